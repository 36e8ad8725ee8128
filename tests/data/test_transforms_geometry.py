"""Transforms that move pixels, against Pillow, NumPy and arithmetic done by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from fvcore.transforms import transform as fvcore_transforms
from PIL import Image

from detectron2.data import transforms as T  # noqa: N812
from detectron2.data.transforms import _rotation

DTYPES = ["uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64", "bool"]
CHANNELS = [(), (1,), (2,), (3,), (4,), (7,)]


def smooth_image(h: int, w: int, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    """A uint8 image with gradients, edges and noise."""
    y, x = np.mgrid[0:h, 0:w]
    image = 120 + 60 * np.sin(x / 7)[..., None] * np.cos(y / 9)[..., None]
    image = image + np.random.normal(0, 6, (h, w, int(np.prod(channels))))
    image[h // 3 : h // 2, w // 4 : w // 2] = np.random.uniform(0, 255)
    return image.clip(0, 255).astype(np.uint8).reshape(h, w, *channels)


def layouts(image: np.ndarray) -> list[np.ndarray]:
    """The same image in every way that it may lie in memory."""
    read_only = image.copy()
    read_only.flags.writeable = False
    planar = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, -1, 0)), 0, -1)
    return [image, image[::-1].copy()[::-1], image[:, ::-1].copy()[:, ::-1], read_only, planar]


# Flips


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", "complex128"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_flips_reverse_an_axis(dtype, channels):
    image = smooth_image(5, 8, channels).astype(dtype)
    for array in layouts(image) if image.ndim == 3 else [image]:
        before = array.copy()
        horizontal = T.HFlipTransform(8).apply_image(array)
        vertical = T.VFlipTransform(5).apply_image(array)
        np.testing.assert_array_equal(horizontal, before[:, ::-1])
        np.testing.assert_array_equal(vertical, before[::-1])
        np.testing.assert_array_equal(array, before)
        assert horizontal.dtype == vertical.dtype == array.dtype
        assert min(horizontal.strides) > 0
        assert min(vertical.strides) > 0
        assert not np.shares_memory(horizontal, array)


def test_flips_of_a_batch_of_images():
    images = np.stack([smooth_image(5, 8) for _ in range(2)])
    np.testing.assert_array_equal(T.HFlipTransform(8).apply_image(images), images[:, :, ::-1])
    np.testing.assert_array_equal(T.VFlipTransform(5).apply_image(images), images[:, ::-1])


def test_read_only_images_raise_no_warning(recwarn):
    image = smooth_image(6, 7)
    image.flags.writeable = False
    T.HFlipTransform(7).apply_image(image)
    T.ResizeTransform(6, 7, 9, 4).apply_image(image)
    T.RotationTransform(6, 7, 20).apply_image(image)
    assert not recwarn.list


# Resizing


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("size", [(60, 84), (47, 91), (90, 40), (7, 5), (1, 1), (200, 3), (61, 84)])
def test_resize_of_bytes_is_that_of_pillow(channels, size):
    image = smooth_image(60, 84, channels)
    planes = image[:, :, 0] if channels == (1,) else image
    for interp in (Image.BICUBIC, Image.NEAREST, Image.LANCZOS, Image.BOX, Image.HAMMING):
        got = T.ResizeTransform(60, 84, *size, interp).apply_image(image)
        assert got.shape == (*size, *channels)
        assert got.dtype == np.uint8
        expected = np.asarray(Image.fromarray(planes).resize(size[::-1], interp))
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
@pytest.mark.parametrize("size", [(60, 84), (61, 84), (60, 91), (45, 63), (100, 140), (7, 10)])
def test_bilinear_resize_of_bytes_is_that_of_pillow(channels, size):
    image = smooth_image(60, 84, channels)
    got = T.ResizeTransform(60, 84, *size).apply_image(image)
    assert got.shape == (*size, *channels)
    assert got.dtype == np.uint8
    image = image.reshape(60, 84, -1)
    planes = [Image.fromarray(image[:, :, c]) for c in range(image.shape[2])]
    pillow = np.stack([p.resize(size[::-1], Image.BILINEAR) for p in planes], axis=-1)
    np.testing.assert_array_equal(got.reshape(*size, -1), pillow)


@pytest.mark.parametrize("interp", [Image.BILINEAR, Image.BICUBIC, Image.NEAREST])
def test_resize_treats_every_channel_alike(interp):
    # Pillow takes the second of two channels and the fourth of four for an opacity.
    image = smooth_image(20, 31, (4,))
    image[:, :, 3] = np.random.randint(0, 3, (20, 31))
    resize = T.ResizeTransform(20, 31, 33, 17, interp)
    together = resize.apply_image(image)
    for channel in range(4):
        np.testing.assert_array_equal(
            together[:, :, channel], resize.apply_image(image[:, :, channel])
        )


@pytest.mark.parametrize("interp", [Image.BILINEAR, Image.BICUBIC])
def test_resize_of_bytes_in_every_layout(interp):
    image = smooth_image(12, 17)
    resize = T.ResizeTransform(12, 17, 8, 30, interp)
    expected = resize.apply_image(image)
    for array in layouts(image):
        np.testing.assert_array_equal(resize.apply_image(array), expected)


@pytest.mark.parametrize(("interp", "mode"), [(2, "bilinear"), (3, "bicubic")])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_resize_of_floats_is_not_antialiased(interp, mode, dtype):
    image = (smooth_image(30, 40) / 255).astype(dtype)
    got = T.ResizeTransform(30, 40, 13, 55, interp).apply_image(image)
    tensor = torch.from_numpy(image).double().permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, (13, 55), mode=mode, align_corners=False)[0].permute(1, 2, 0)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, atol=1e-3 if dtype == "float16" else 1e-6)


def test_resize_of_wide_integers_neither_wraps_nor_loses_digits():
    image = np.array([[0, 60000], [60000, 65535]], np.uint16)
    got = T.ResizeTransform(2, 2, 4, 4, Image.BICUBIC).apply_image(image)
    assert got.dtype == np.uint16
    # A wrapped overshoot would be far from its neighbours.
    assert got[3, 3] == 65535
    large = np.full((3, 3), 2**31 - 1, np.int32)
    assert (T.ResizeTransform(3, 3, 5, 5).apply_image(large) == 2**31 - 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_labels_of_every_dtype_are_resized_like_bytes(dtype, channels):
    labels = np.random.randint(0, 2, (23, 31, *channels), np.uint8)
    resize = T.ResizeTransform(23, 31, 50, 19)
    got = resize.apply_segmentation(labels.astype(dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.uint8), resize.apply_segmentation(labels))


def test_nearest_takes_the_pixel_under_the_centre():
    row = np.arange(6, dtype=np.float32)[None]
    got = T.ResizeTransform(1, 6, 1, 2, Image.NEAREST).apply_image(row)
    # `torch.nn.functional.interpolate` in the mode "nearest" would take 0 and 3.
    np.testing.assert_array_equal(got, [[1, 4]])


def test_resize_scales_coordinates_and_boxes():
    resize = T.ResizeTransform(10, 20, 5, 60)
    np.testing.assert_allclose(resize.apply_coords(np.array([[2.0, 4]])), [[6, 2]])
    np.testing.assert_allclose(resize.apply_box(np.array([[1.0, 2, 3, 4]])), [[3, 1, 9, 2]])
    np.testing.assert_allclose(resize.inverse().apply_coords(np.array([[6.0, 2]])), [[2, 4]])
    # Integers are not cut off.
    np.testing.assert_allclose(resize.apply_box([[1, 3, 4, 5]]), [[3, 1.5, 12, 2.5]])


def test_resize_rejects_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"height 10 and width 12.*\(12, 10, 3\)"):
        T.ResizeTransform(10, 12, 5, 5).apply_image(smooth_image(12, 10))
    with pytest.raises(ValueError, match="10x12 to 0x5"):
        T.ResizeTransform(10, 12, 0, 5)
    with pytest.raises(ValueError, match=r"float32.*interp=1"):
        T.ResizeTransform(4, 4, 5, 5, Image.LANCZOS).apply_image(np.zeros((4, 4), np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_transform(dtype):
    image = smooth_image(8, 9).astype(dtype)
    scale = T.ScaleTransform(8, 9, 12, 5, "bicubic")
    got = scale.apply_image(image)
    tensor = torch.from_numpy(image).double().permute(2, 0, 1)[None]
    expected = F.interpolate(tensor, (12, 5), mode="bicubic", align_corners=False)[0]
    expected = expected.permute(1, 2, 0).numpy()
    if dtype == "bool":
        np.testing.assert_array_equal(got, expected >= 0.5)
    else:
        tolerance = 0.2 if got.dtype.kind == "f" else 0.51
        limits = (0, 255) if dtype == "uint8" else (-1000, 1000)
        np.testing.assert_allclose(got, expected.clip(*limits), atol=tolerance)
    assert got.dtype == dtype
    assert scale.apply_segmentation(image).dtype == dtype
    assert scale.inverse().apply_image(got).shape == image.shape


def test_scale_transform_does_not_wrap_overshoots():
    image = np.zeros((4, 4), np.uint8)
    image[:, 2:] = 255
    got = T.ScaleTransform(4, 4, 4, 16, "bicubic").apply_image(image)
    assert (np.diff(got[0].astype(int)) >= 0).all()


def test_scale_transform_needs_a_mode():
    with pytest.raises(ValueError, match="interp=None"):
        T.ScaleTransform(4, 4, 4, 16).apply_image(smooth_image(4, 4))


def test_grid_sample_transform():
    image = smooth_image(6, 8)
    x, y = np.meshgrid((np.arange(8) + 0.5) / 4 - 1, (np.arange(6) + 0.5) / 3 - 1)
    mirrored = np.stack([-x, y], axis=-1)[None]
    for dtype in ("uint8", "uint16", "int64", "float32", "float64"):
        got = T.GridSampleTransform(mirrored, "bilinear").apply_image(image.astype(dtype))
        np.testing.assert_allclose(got, image[:, ::-1], atol=1e-4)
        assert got.dtype == dtype
    labels = (image[:, :, 0] > 100)[:, :, None]
    got = T.GridSampleTransform(mirrored, "bilinear").apply_segmentation(labels)
    np.testing.assert_array_equal(got, labels[:, ::-1])


# Extents


@pytest.mark.parametrize("rect", [(3, 2, 20, 15), (-5.5, 4.25, 60, 50), (1.3, 2.7, 3.1, 4.9)])
def test_extent_of_bytes_is_that_of_pillow(rect):
    image = smooth_image(30, 40)
    for interp in (Image.BILINEAR, Image.NEAREST, Image.BICUBIC):
        got = T.ExtentTransform(rect, (25, 33), interp).apply_image(image)
        expected = Image.fromarray(image).transform((33, 25), Image.Transform.EXTENT, rect, interp)
        np.testing.assert_array_equal(got, np.asarray(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_extent_of_labels_makes_no_new_ones(dtype):
    labels = np.zeros((20, 30), dtype)
    labels[:, 15:] = 200
    got = T.ExtentTransform((-4.7, 3.2, 28.9, 17.1), (31, 47)).apply_segmentation(labels)
    # Interpolated labels would be between the two.
    assert set(np.unique(got)) == set(np.unique(labels))
    assert got.dtype == dtype
    assert not got[:, :5].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_extent_of_other_dtypes_and_channels(dtype):
    image = smooth_image(20, 30, (4,))
    extent = T.ExtentTransform((2.2, 3.1, 25.4, 18.3), (21, 19))
    got = extent.apply_image(image.astype(dtype))
    expected = np.stack([extent.apply_image(image[:, :, i]) for i in range(4)], axis=2)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, atol=1.01)


def test_extent_fills_images_but_not_labels():
    extent = T.ExtentTransform((-10, 0, 10, 10), (10, 20), fill=77)
    for channels in ((), (1,), (3,)):
        image = np.full((10, 10, *channels), 5, np.uint8)
        got = extent.apply_image(image)
        assert (got[:, :10] == 77).all()
        assert (got[:, 11:] == 5).all()
    assert (extent.apply_segmentation(np.ones((10, 10), np.uint8))[:, :10] == 0).all()


def test_extent_maps_the_rectangle_onto_the_result():
    extent = T.ExtentTransform((2, 3, 12, 8), (20, 30))
    corners = np.array([[2, 3], [12, 8], [7, 5.5]])
    got = extent.apply_coords(corners)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[0, 0], [30, 20], [15, 10]], atol=1e-5)
    np.testing.assert_array_equal(corners, [[2, 3], [12, 8], [7, 5.5]])


def test_extent_rejects_what_is_empty():
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 8\)"):
        T.ExtentTransform((2, 3, 2, 8), (4, 4))
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        T.ExtentTransform((2, 3, 4, 8), (0, 4))


# Rotations


def rotate_slowly(image: np.ndarray, rotation: T.RotationTransform, order: int) -> np.ndarray:
    """Sample an image that goes on in black, in float64: the nearest pixel, or between four."""
    radians = np.radians(rotation.angle)
    cos, sin = np.cos(radians), np.sin(radians)
    y, x = np.mgrid[: rotation.bound_h, : rotation.bound_w] + 0.5
    if rotation.expand:
        x, y = x - rotation.bound_w / 2, y - rotation.bound_h / 2
        fixed_x, fixed_y = rotation.w / 2, rotation.h / 2
    else:
        fixed_x, fixed_y = rotation.center
        x, y = x - fixed_x, y - fixed_y
    column = cos * x - sin * y + fixed_x - 0.5
    row = sin * x + cos * y + fixed_y - 0.5
    if order == 0:
        column, row = np.rint(column), np.rint(row)
    column, row = (
        v.clip(-1, limit) for v, limit in zip((column, row), image.shape[1::-1], strict=True)
    )
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right_share, bottom_share = (column - left)[..., None], (row - top)[..., None]
    padded = np.pad(image.astype(np.float64), ((1, 2), (1, 2), (0, 0)))
    return (
        padded[top + 1, left + 1] * (1 - bottom_share) * (1 - right_share)
        + padded[top + 1, left + 2] * (1 - bottom_share) * right_share
        + padded[top + 2, left + 1] * bottom_share * (1 - right_share)
        + padded[top + 2, left + 2] * bottom_share * right_share
    )


ROTATIONS = [
    {"angle": 30},
    {"angle": -75.5},
    {"angle": 160},
    {"angle": 33, "expand": False},
    {"angle": -20, "expand": False, "center": (20, 30)},
    {"angle": 90, "expand": False},
]


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("options", ROTATIONS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_rotation_interpolates_bilinearly_on_black(options, channels, dtype, opencv, monkeypatch):
    if not opencv:
        monkeypatch.setattr(_rotation, "_exact_opencv", lambda: None)
    elif _rotation._exact_opencv() is None:
        pytest.skip("no OpenCV 5")
    image = smooth_image(41, 62, channels).astype(dtype)
    rotation = T.RotationTransform(41, 62, **options)
    got = rotation.apply_image(image)
    expected = rotate_slowly(image.reshape(41, 62, -1), rotation, order=1)
    expected = expected.reshape(*expected.shape[:2], *channels)
    assert got.dtype == dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=0.02 if got.dtype.kind == "f" else 0.52)


@pytest.mark.parametrize("options", ROTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_of_labels_takes_the_nearest(options, dtype):
    labels = (np.arange(41 * 61).reshape(41, 61, 1) % 119 + 1).astype(dtype)
    rotation = T.RotationTransform(41, 61, **options)
    got = rotation.apply_segmentation(labels)
    expected = rotate_slowly(labels, rotation, order=0)
    assert got.dtype == dtype
    # Where a point falls onto the border of two pixels, either will do. Pillow's coordinates have
    # 16 bits behind the point.
    assert (got != expected).mean() < 0.01


@pytest.mark.parametrize("angle", [90, 180, 270, -90, 450])
@pytest.mark.parametrize("size", [(40, 61), (8, 8), (1, 5)])
def test_quarter_turns_are_exact(angle, size):
    image = smooth_image(*size)
    rotation = T.RotationTransform(*size, angle)
    expected = np.rot90(image, angle // 90)
    np.testing.assert_array_equal(rotation.apply_image(image), expected)
    np.testing.assert_array_equal(rotation.apply_segmentation(image[..., 0]), expected[..., 0])
    np.testing.assert_array_equal(rotation.inverse().apply_image(expected), image)


def test_rotation_turns_counter_clockwise():
    rotation = T.RotationTransform(10, 20, 90)
    # The upper right corner becomes the upper left one.
    np.testing.assert_allclose(rotation.apply_coords(np.array([[20.0, 0]])), [[0, 0]], atol=1e-12)
    assert (rotation.bound_h, rotation.bound_w) == (20, 10)


@pytest.mark.parametrize("size", [(40, 61), (33, 20), (7, 7), (1, 50)])
@pytest.mark.parametrize("angle", [0, 12.5, -33, 45, 90, 119, 250, 359.9])
@pytest.mark.parametrize("options", [{}, {"expand": False}, {"expand": False, "center": (3, 9)}])
def test_inverse_of_a_rotation_is_exact(size, angle, options):
    rotation = T.RotationTransform(*size, angle, **options)
    points = np.random.uniform(-5, 60, (20, 2))
    inverse = rotation.inverse()
    there = rotation.apply_coords(points.copy())
    np.testing.assert_allclose(inverse.apply_coords(there.copy()), points, atol=1e-9)
    np.testing.assert_allclose(inverse.inverse().apply_coords(points.copy()), there, atol=1e-9)


def test_inverse_of_a_rotation_brings_the_pixels_back():
    y, x = np.mgrid[0:60, 0:83]
    image = (3.0 * x + 2.0 * y).astype(np.float32)
    for angle in (10, 37, -120):
        rotation = T.RotationTransform(60, 83, angle)
        back = rotation.inverse().apply_image(rotation.apply_image(image))
        assert back.shape == image.shape
        # Half a pixel off would be 0.5 * 3 grey levels and more.
        np.testing.assert_allclose(back[8:-8, 8:-8], image[8:-8, 8:-8], atol=0.01)


def test_full_turns_and_empty_arrays_stay():
    image = smooth_image(5, 6)
    assert T.RotationTransform(5, 6, 720).apply_image(image) is image
    assert T.RotationTransform(5, 6, 30).apply_coords(np.zeros((0, 2))).shape == (0, 2)


def test_rotation_rejects_what_it_cannot_do():
    with pytest.raises(ValueError, match="got 4"):
        T.RotationTransform(5, 6, 30, interp=4)
    with pytest.raises(ValueError, match="got nan"):
        T.RotationTransform(5, 6, float("nan"))
    with pytest.raises(ValueError, match=r"height 5 and width 6.*\(6, 5, 3\)"):
        T.RotationTransform(5, 6, 30).apply_image(smooth_image(6, 5))


def test_bicubic_rotation_does_not_wrap_overshoots():
    image = np.zeros((30, 30), np.uint8)
    image[:, 15:] = 255
    got = T.RotationTransform(30, 30, 5, expand=False, interp=2).apply_image(image)
    assert got[10:20, 20:25].min() > 240
    assert got[10:20, 5:10].max() < 15


# Crops and borders


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_pad_and_crop_undo_each_other(dtype, channels):
    image = smooth_image(7, 9, channels).astype(dtype)
    pad = T.PadTransform(1, 2, 3, 4, orig_w=9, orig_h=7, pad_value=1, seg_pad_value=1)
    widths = [(2, 4), (1, 3)] + [(0, 0)] * len(channels)
    expected = np.pad(image, widths, constant_values=1)
    for array in layouts(image) if image.ndim == 3 else [image]:
        np.testing.assert_array_equal(pad.apply_image(array), expected)
    if dtype != "bool":
        np.testing.assert_array_equal(pad.apply_segmentation(image), expected)
    np.testing.assert_array_equal(pad.inverse().apply_image(expected), image)
    np.testing.assert_allclose(pad.apply_coords(np.array([[0.0, 0]])), [[1, 2]])


def test_border_of_a_batch_of_images():
    images = np.ones((2, 3, 4, 5), np.float32)
    expected = np.pad(images, [(0, 0), (2, 4), (1, 3), (0, 0)], constant_values=7)
    got = T.PadTransform(1, 2, 3, 4, pad_value=7).apply_image(images)
    np.testing.assert_array_equal(got, expected)


def test_border_of_a_mask_is_not_part_of_it():
    mask = np.ones((3, 3), bool)
    got = T.PadTransform(0, 0, 2, 2, seg_pad_value=255).apply_segmentation(mask)
    assert got.sum() == 9


def test_pad_rejects_values_that_the_dtype_cannot_hold():
    with pytest.raises(ValueError, match="uint8 cannot hold the padding value 300"):
        T.PadTransform(0, 0, 1, 1, pad_value=300).apply_image(smooth_image(3, 3))
    with pytest.raises(ValueError, match="-1"):
        T.PadTransform(0, 0, 1, -1).apply_image(smooth_image(3, 3))


def test_crop_of_an_image_smaller_than_the_window():
    image = smooth_image(10, 12)
    crop = T.CropTransform(2, 3, 50, 50, orig_w=12, orig_h=10)
    cropped = crop.apply_image(image)
    np.testing.assert_array_equal(cropped, image[3:, 2:])
    restored = crop.inverse().apply_image(cropped)
    np.testing.assert_array_equal(restored[3:, 2:], cropped)
    assert restored.shape == image.shape


def test_crop_rejects_negative_corners_and_unknown_sizes():
    with pytest.raises(ValueError, match="x0=-1, y0=0"):
        T.CropTransform(-1, 0, 5, 5).apply_image(smooth_image(9, 9))
    with pytest.raises(ValueError, match="got None and None"):
        T.CropTransform(1, 0, 5, 5).inverse()


# Rotated boxes


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """The corners of rotated boxes, ``(N, 4, 2)``."""
    radians = np.radians(boxes[:, 4])
    cos, sin = np.cos(radians), np.sin(radians)
    across = np.stack([cos, -sin], 1) * boxes[:, 2:3] / 2
    along = np.stack([sin, cos], 1) * boxes[:, 3:4] / 2
    center = boxes[:, :2]
    signs = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return np.stack([center + a * across + b * along for a, b in signs], 1)


@pytest.mark.parametrize(
    "transform",
    [
        T.HFlipTransform(90),
        T.VFlipTransform(60),
        T.ResizeTransform(60, 90, 30, 45),
        T.ScaleTransform(60, 90, 120, 180, "bilinear"),
        T.RotationTransform(60, 90, 33),
        T.RotationTransform(60, 90, -140, expand=False, center=(5, 7)),
        T.CropTransform(3, 4, 20, 30),
        T.PadTransform(3, 4, 20, 30),
        T.NoOpTransform(),
        T.ColorTransform(lambda image: image),
        T.BlendTransform(0, 0.5, 0.5),
        T.TransformList([T.HFlipTransform(90), T.RotationTransform(60, 90, 70)]),
        fvcore_transforms.HFlipTransform(90),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rotated_boxes_go_where_their_corners_go(transform, dtype):
    boxes = np.random.uniform(5, 50, (6, 5)).astype(dtype)
    boxes[:, 4] = np.random.uniform(-180, 180, 6)
    expected = transform.apply_coords(corners_of(boxes).reshape(-1, 2)).reshape(-1, 4, 2)
    moved = transform.apply_rotated_box(boxes.copy())
    assert moved.dtype == dtype
    got = corners_of(moved)
    distances = np.linalg.norm(got[:, :, None] - expected[:, None], axis=-1)
    assert distances.min(axis=2).max() < 1e-3
    assert (np.abs(moved[:, 4]) <= 180 + 1e-4).all()


def test_rotated_boxes_under_different_factors():
    boxes = np.array([[10.0, 20, 8, 4, 0], [10, 20, 8, 4, 90]])
    got = T.ResizeTransform(60, 90, 30, 180).apply_rotated_box(boxes)
    np.testing.assert_allclose(got, [[20, 10, 16, 2, 0], [20, 10, 4, 8, 90]], atol=1e-9)
    # The side along (cos, -sin) = (0.8, -0.6) becomes (1.6, -0.3) times its length.
    angle = np.degrees(np.arctan2(0.6, 0.8))
    got = T.ResizeTransform(60, 90, 30, 180).apply_rotated_box(np.array([[0, 0, 10.0, 5, angle]]))
    expected_w, expected_h = 10 * np.hypot(1.6, 0.3), 5 * np.hypot(1.2, 0.4)
    expected_angle = np.degrees(np.arctan2(1.2, 0.4))
    np.testing.assert_allclose(got, [[0, 0, expected_w, expected_h, expected_angle]])


def test_rotated_boxes_have_five_columns():
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        T.HFlipTransform(9).apply_rotated_box(np.zeros((2, 4)))


# The classes of fvcore


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("HFlipTransform", (4,)),
        ("VFlipTransform", (4,)),
        ("CropTransform", (0, 0, 2, 2)),
        ("PadTransform", (0, 0, 2, 2)),
        ("BlendTransform", (0, 1, 1)),
        ("ScaleTransform", (4, 4, 2, 2)),
        ("GridSampleTransform", (np.zeros((1, 2, 2, 2)), "bilinear")),
        ("NoOpTransform", ()),
    ],
)
def test_isinstance_takes_the_classes_of_fvcore_for_these_and_the_other_way_round(name, arguments):
    here, there = getattr(T, name), getattr(fvcore_transforms, name)
    assert isinstance(here(*arguments), there)
    assert isinstance(there(*arguments), here)
    assert not isinstance(T.TransformList([]), here)
    assert not isinstance(T.TransformList([]), there)
    assert repr(here(*arguments)) == repr(there(*arguments))

    class Special(here):
        pass

    assert isinstance(Special(*arguments), here)
    assert not isinstance(here(*arguments), Special)
    assert not isinstance(there(*arguments), Special)


def test_types_registered_with_fvcore_are_served_here(monkeypatch):
    monkeypatch.setattr(fvcore_transforms.HFlipTransform, "apply_voxel", None, raising=False)
    fvcore_transforms.HFlipTransform.register_type("voxel", lambda transform, data: data * 2)
    assert T.HFlipTransform(3).apply_voxel(4) == 8
    assert T.TransformList([T.HFlipTransform(3), T.NoOpTransform()]).apply_voxel(4) == 8


def test_inverse_of_a_list():
    transforms = T.TransformList(
        [
            T.ResizeTransform(60, 84, 90, 120),
            T.HFlipTransform(120),
            T.CropTransform(3, 4, 100, 70, 120, 90),
            T.PadTransform(1, 2, 3, 4, 100, 70),
            T.RotationTransform(76, 104, 25),
            T.VFlipTransform(113),
            T.BlendTransform(0, 0.2, 0.8),
            T.ScaleTransform(113, 127, 50, 60, "bilinear"),
        ]
    )
    points = np.random.uniform(0, 60, (9, 2))
    there = transforms.apply_coords(points.copy())
    np.testing.assert_allclose(transforms.inverse().apply_coords(there), points, atol=1e-9)
