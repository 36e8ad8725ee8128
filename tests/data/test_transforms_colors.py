"""Transforms and augmentations of colours, against the formulas in float64."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from detectron2.data import transforms as T  # noqa: N812


def layouts(image: np.ndarray) -> list[np.ndarray]:
    """The same image, interleaved and planar, mirrored, and read-only."""
    read_only = image.copy()
    read_only.flags.writeable = False
    planar = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    return [image, planar, image[:, ::-1].copy()[:, ::-1], read_only]


def blend(source, source_weight, image, image_weight):
    return source_weight * np.asarray(source, np.float64) + image_weight * image.astype(np.float64)


def random_image(shape=(6, 9, 3)) -> np.ndarray:
    return np.random.randint(0, 256, shape, np.uint8)


SOURCES = [
    0,
    117.3,
    np.float32(12.5),
    np.array([80.25]),
    np.array([10.0, 100, 250]),
    random_image((6, 9, 1)),
    random_image(),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(np.shape(source)))
@pytest.mark.parametrize("weights", [(0.3, 0.7), (-0.4, 1.4), (1.0, 1.0), (0.5, -0.5)])
def test_blend_of_bytes_saturates_and_truncates(source, weights):
    for image in layouts(random_image()):
        before = image.copy()
        got = T.BlendTransform(source, *weights).apply_image(image)
        expected = blend(source, weights[0], image, weights[1]).clip(0, 255)
        assert got.dtype == np.uint8
        assert got.shape == image.shape
        np.testing.assert_array_equal(got, np.floor(expected + 1e-3))
        np.testing.assert_array_equal(image, before)
        got[0, 0, 0] = 1


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (2, 5, 7, 3)])
def test_blend_of_every_shape(shape):
    image = random_image(shape)
    got = T.BlendTransform(50, 0.5, 0.5).apply_image(image)
    np.testing.assert_array_equal(got, (image.astype(int) + 50) // 2)


def test_blend_does_not_lose_a_level_to_rounding():
    # 0.29 * 100 is 28.999999999999996.
    image = np.full((2, 2), 100, np.uint8)
    assert (T.BlendTransform(0, 0.71, 0.29).apply_image(image) == 29).all()
    assert (T.BlendTransform(np.zeros((2, 2)), 0.71, 0.29).apply_image(image) == 29).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_blend_of_floats_keeps_the_dtype(dtype):
    image = np.random.rand(6, 9, 3).astype(dtype)
    got = T.BlendTransform(image.mean(), -0.4, 1.4).apply_image(image)
    assert got.dtype == dtype
    expected = blend(image.mean(), -0.4, image, 1.4)
    np.testing.assert_allclose(got, expected, atol=2e-3 if dtype == "float16" else 1e-6)


def test_blend_of_wide_integers_saturates():
    image = np.array([[0, 40000, 65535]], np.uint16)
    got = T.BlendTransform(0, 0, 2.0).apply_image(image)
    np.testing.assert_array_equal(got, [[0, 65535, 65535]])
    assert got.dtype == np.uint16
    large = np.array([[2**30 + 1]], np.int32)
    assert T.BlendTransform(0, 0, 1.0).apply_image(large)[0, 0] == 2**30 + 1


def test_blend_rejects_what_is_no_image():
    with pytest.raises(TypeError, match="bool"):
        T.BlendTransform(0, 0.5, 0.5).apply_image(np.ones((3, 3), bool))


def test_blend_leaves_coordinates_and_labels():
    labels = random_image((4, 4))
    transform = T.BlendTransform(0, 0.5, 0.5)
    assert transform.apply_segmentation(labels) is labels
    assert transform.apply_coords(labels) is labels
    assert isinstance(transform.inverse(), T.NoOpTransform)


def test_contrast_brightness_and_saturation():
    image = random_image((20, 30, 3))
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    for augmentation, source in (
        (T.RandomContrast, image.mean()),
        (T.RandomBrightness, 0),
        (T.RandomSaturation, grey[..., None]),
    ):
        for low, high in ((1.4, 1.4), (0.3, 0.3), (0.5, 1.5)):
            np.random.seed(5)
            weight = np.random.uniform(low, high)
            np.random.seed(5)
            got, _ = T.apply_augmentations([augmentation(low, high)], image)
            expected = blend(source, 1 - weight, image, weight).clip(0, 255)
            assert np.abs(got - expected).max() <= 1.001
            assert (got == np.floor(expected + 1e-3)).mean() > 0.999


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.77, 1.0, 1.5])
def test_grey_images_are_saturated_already(weight):
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    got, _ = T.apply_augmentations([T.RandomSaturation(weight, weight)], image)
    # The weights of the channels add up to 1; rounding them must not darken the image.
    np.testing.assert_array_equal(got, image)


def test_intensity_one_changes_nothing():
    image = random_image((20, 30, 3))
    for augmentation in (T.RandomContrast, T.RandomBrightness, T.RandomSaturation):
        got, _ = T.apply_augmentations([augmentation(1, 1)], image.copy())
        np.testing.assert_array_equal(got, image)


def test_lighting_adds_one_colour():
    image = np.full((8, 9, 3), 120.0, np.float32)
    augmentation = T.RandomLighting(30.0)
    np.random.seed(3)
    weights = np.random.normal(scale=30.0, size=3) * augmentation.eigen_vals
    np.random.seed(3)
    got, _ = T.apply_augmentations([augmentation], image)
    expected = 120 + (augmentation.eigen_vecs * weights).sum(axis=1)
    np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-5)
    # Principal components are orthonormal.
    product = augmentation.eigen_vecs.T @ augmentation.eigen_vecs
    np.testing.assert_allclose(product, np.eye(3), atol=2e-3)


@pytest.mark.parametrize("augmentation", [T.RandomSaturation(0.5, 1.5), T.RandomLighting(1.0)])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 4)])
def test_colour_augmentations_need_three_channels(augmentation, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        augmentation(T.AugInput(random_image(shape)))


def test_intensities_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"1\.5 and 0\.5"):
        T.RandomContrast(1.5, 0.5)


def test_any_function_of_the_image():
    image = random_image()
    transform = T.ColorTransform(lambda img: 255 - img)
    np.testing.assert_array_equal(transform.apply_image(image), 255 - image)
    assert transform.apply_segmentation(image) is image
    assert transform.apply_coords(image) is image
    assert isinstance(transform.inverse(), T.NoOpTransform)
    with pytest.raises(ValueError, match="got 3"):
        T.ColorTransform(3)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3)])
def test_functions_of_pillow(shape):
    image = random_image(shape)
    transform = T.PILColorTransform(ImageOps.invert)
    got = transform.apply_image(image)
    np.testing.assert_array_equal(got, 255 - image)
    assert got.shape == shape
    got[0] = 0


def test_functions_of_pillow_may_change_the_mode():
    got = T.PILColorTransform(lambda image: image.convert("L")).apply_image(random_image())
    assert got.shape == (6, 9)
    assert isinstance(Image.fromarray(got), Image.Image)
