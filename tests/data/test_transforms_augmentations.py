"""Augmentations: the protocol, what they draw, and what they reject."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import transforms as T  # noqa: N812


def aug_input(h: int = 60, w: int = 84, boxes: np.ndarray | None = None) -> T.AugInput:
    image = np.random.randint(0, 256, (h, w, 3), np.uint8)
    sem_seg = np.random.randint(0, 5, (h, w), np.uint8)
    return T.AugInput(image, boxes=boxes, sem_seg=sem_seg)


# The protocol


class AskForLabels(T.Augmentation):
    def get_transform(self, image, sem_seg):
        self.seen = (image, sem_seg)
        return T.NoOpTransform()


def test_arguments_are_found_by_name():
    inputs, augmentation = aug_input(), AskForLabels()
    augmentation(inputs)
    assert augmentation.seen[0] is inputs.image
    assert augmentation.seen[1] is inputs.sem_seg
    assert augmentation.input_args == ("image", "sem_seg")
    assert AskForLabels.input_args is None


def test_a_sole_parameter_means_the_image():
    class Odd(T.Augmentation):
        def get_transform(self, anything):
            assert anything.shape == (60, 84, 3)
            return T.NoOpTransform()

    Odd()(aug_input())


def test_input_args_can_be_set():
    class Named(T.Augmentation):
        input_args = ("sem_seg", "extra")

        def get_transform(self, *args):
            self.seen = args
            return T.NoOpTransform()

    inputs, augmentation = aug_input(), Named()
    inputs.extra = 7
    augmentation(inputs)
    assert augmentation.seen[0] is inputs.sem_seg
    assert augmentation.seen[1] == 7


def test_missing_attributes_are_named():
    class Input:
        image = np.zeros((4, 4), np.uint8)

    with pytest.raises(AttributeError, match=r"AskForLabels.*'sem_seg'.*Input"):
        AskForLabels()(Input())


def test_variadic_arguments_have_no_names():
    class Variadic(T.Augmentation):
        def get_transform(self, image, *more):
            return T.NoOpTransform()

    with pytest.raises(TypeError, match=r"\*more"):
        Variadic()(aug_input())


def test_augmentations_return_transforms():
    class Wrong(T.Augmentation):
        def get_transform(self, image):
            return image

    with pytest.raises(TypeError, match=r"Wrong.*ndarray"):
        Wrong()(aug_input())
    with pytest.raises(NotImplementedError, match="Augmentation"):
        T.Augmentation()(aug_input())


def test_random_range():
    augmentation = T.Augmentation()
    for arguments, low, high in (((), 0, 1), ((5,), 0, 5), ((2, 3), 2, 3)):
        draws = [augmentation._rand_range(*arguments) for _ in range(100)]
        assert low <= min(draws) < max(draws) < high
    assert isinstance(augmentation._rand_range(), float)
    assert augmentation._rand_range(2, 3, (4, 5)).shape == (4, 5)


def test_repr_is_the_call_with_what_is_not_default():
    assert repr(T.RandomFlip(prob=0.3)) == "RandomFlip(prob=0.3)"
    assert repr(T.Resize((4, 5))) == "Resize(shape=(4, 5))"
    assert str(T.ResizeShortestEdge((4, 5), 9)) == (
        "ResizeShortestEdge(short_edge_length=(4, 5), max_size=9)"
    )
    augmentations = T.AugmentationList([T.RandomFlip(), T.HFlipTransform(3)])
    assert repr(augmentations) == "AugmentationList[RandomFlip(), HFlipTransform(width=3)]"

    class Forgetful(T.Augmentation):
        def __init__(self, number):
            super().__init__()

    assert "Forgetful object at" in repr(Forgetful(3))


def test_every_augmentation_has_a_repr():
    for augmentation in AUGMENTATIONS:
        assert repr(augmentation).startswith(type(augmentation).__name__ + "(")


def test_lists_apply_one_after_the_other_and_flatten():
    inputs = aug_input()
    image, sem_seg = inputs.image, inputs.sem_seg
    inner = T.AugmentationList([T.FixedSizeCrop((40, 90)), T.VFlipTransform(40)])
    transforms = inputs.apply_augmentations([T.Resize((50, 70)), inner, T.RandomFlip(prob=1)])
    assert [type(t).__name__ for t in transforms] == [
        "ResizeTransform",
        "CropTransform",
        "PadTransform",
        "VFlipTransform",
        "HFlipTransform",
    ]
    assert transforms[-1].width == 90
    np.testing.assert_array_equal(inputs.image, transforms.apply_image(image))
    np.testing.assert_array_equal(inputs.sem_seg, transforms.apply_segmentation(sem_seg))


def test_lists_hold_augmentations_and_transforms_only():
    with pytest.raises(TypeError, match="'flip'"):
        T.AugmentationList(["flip"])


def test_apply_augmentations_to_an_array_or_an_input():
    image = aug_input().image
    before = image.copy()
    got, transforms = T.apply_augmentations([T.Resize(30), T.HFlipTransform(30)], image)
    assert got.shape == (30, 30, 3)
    assert len(transforms) == 2
    np.testing.assert_array_equal(image, before)
    inputs = aug_input()
    assert T.apply_transform_gens([T.Resize(30)], inputs)[0] is inputs
    assert T.TransformGen is T.Augmentation
    assert T.StandardAugInput is T.AugInput


def test_inputs_are_images():
    for dtype in ("uint8", "uint16", "int32", "int64", "float16", "float32", "float64"):
        for shape in ((4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 6)):
            T.AugInput(np.zeros(shape, dtype))
    for dtype in ("bool", "complex64", "U1"):
        with pytest.raises(TypeError, match=str(np.dtype(dtype))):
            T.AugInput(np.zeros((4, 5), dtype))
    with pytest.raises(ValueError, match=r"\(1, 4, 5, 3\)"):
        T.AugInput(np.zeros((1, 4, 5, 3), np.uint8))
    with pytest.raises(TypeError, match="list"):
        T.AugInput([[1, 2]])


AUGMENTATIONS = [
    T.Resize((30, 50)),
    T.ResizeShortestEdge((20, 40), 100),
    T.ResizeScale(0.5, 2.0, 70, 90),
    T.RandomResize([(30, 40), (70, 20)]),
    T.RandomFlip(prob=1.0),
    T.RandomFlip(prob=1.0, horizontal=False, vertical=True),
    T.RandomRotation([-40, 40]),
    T.RandomCrop("relative_range", (0.4, 0.5)),
    T.FixedSizeCrop((80, 50)),
    T.RandomExtent((0.5, 1.5), (0.2, 0.3)),
    T.RandomContrast(0.5, 1.5),
    T.RandomBrightness(0.5, 1.5),
    T.RandomApply(T.Resize((30, 40)), prob=1.0),
    T.MinIoURandomCrop(),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(60, 84), (60, 84, 1), (60, 84, 3), (60, 84, 5)])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=repr)
def test_images_of_every_kind_go_through_every_augmentation(augmentation, shape, dtype):
    image = np.random.randint(0, 256, shape).astype(dtype)
    sem_seg = np.random.randint(0, 5, shape[:2], np.uint8)
    boxes = np.array([[20.0, 20, 60, 50]])
    inputs = T.AugInput(image, sem_seg=sem_seg, boxes=boxes)
    transform = augmentation(inputs)
    assert inputs.image.dtype == dtype
    assert inputs.image.shape[2:] == shape[2:]
    assert inputs.image.shape[:2] == inputs.sem_seg.shape
    assert set(np.unique(inputs.sem_seg)) <= {0, 1, 2, 3, 4, 255}
    assert inputs.boxes.shape == (1, 4)
    np.testing.assert_array_equal(inputs.boxes, transform.apply_box(boxes))


# Sizes


def test_shortest_edge_keeps_the_aspect_ratio_and_the_limit():
    # Rounded half up: 800 / 427 * 640 = 1199.06, 1333 / 640 * 427 = 889.4, 1333 / 500 * 333 = 887.8
    cases = [
        ((427, 640, 800, 1333), (800, 1199)),
        ((640, 427, 800, 1333), (1199, 800)),
        ((480, 480, 800, 1333), (800, 800)),
        ((100, 1000, 800, 1333), (133, 1333)),
        ((1, 5000, 800, 1333), (1, 1333)),
        ((2, 3, 3, 100), (3, 5)),
    ]
    for arguments, expected in cases:
        assert T.ResizeShortestEdge.get_output_shape(*arguments) == expected
        scripted = torch.jit.script(T.ResizeShortestEdge.get_output_shape)
        assert scripted(*arguments) == expected


def test_shortest_edge_draws_from_the_range_or_the_choice():
    image = aug_input().image
    in_range = {T.ResizeShortestEdge((30, 32)).get_transform(image).new_h for _ in range(50)}
    assert in_range == {30, 31, 32}
    choice = T.ResizeShortestEdge((30, 50), 1000, "choice")
    assert {choice.get_transform(image).new_h for _ in range(50)} == {30, 50}
    assert isinstance(T.ResizeShortestEdge(0).get_transform(image), T.NoOpTransform)
    assert T.ResizeShortestEdge(20, interp=Image.NEAREST).get_transform(image).interp == 0


def test_resize_scale_fits_into_the_target():
    transform = T.ResizeScale(0.5, 0.5, 100, 300).get_transform(aug_input(60, 84).image)
    # min(50 / 60, 150 / 84) = 5 / 6.
    assert (transform.new_h, transform.new_w) == (50, 70)


# Places


@pytest.mark.parametrize(
    ("crop_type", "crop_size", "heights", "widths"),
    [
        ("relative", (0.5, 0.25), {30}, {21}),
        ("relative_range", (0.9, 0.95), set(range(54, 61)), set(range(80, 85))),
        ("absolute", (10, 200), {10}, {84}),
        ("absolute_range", (57, 62), {57, 58, 59, 60}, {57, 58, 59, 60, 61, 62}),
    ],
)
def test_random_crop(crop_type, crop_size, heights, widths):
    image = aug_input().image
    crops = [T.RandomCrop(crop_type, crop_size).get_transform(image) for _ in range(300)]
    assert {crop.h for crop in crops} == heights
    assert {crop.w for crop in crops} == widths
    assert all(crop.apply_image(image).shape == (crop.h, crop.w, 3) for crop in crops)
    tall = [crop for crop in crops if crop.h == min(heights)]
    assert {crop.y0 for crop in tall} <= set(range(60 - min(heights) + 1))
    assert len({crop.y0 for crop in tall}) > 1 or min(heights) == 60
    crops[0].inverse()


def test_crop_of_a_tiny_image_has_pixels():
    crop = T.RandomCrop("relative", (0.1, 0.1)).get_transform(np.zeros((3, 2, 3), np.uint8))
    assert (crop.h, crop.w) == (1, 1)


def test_category_constraint():
    sem_seg = np.zeros((40, 40), np.int32)
    sem_seg[:, 20:] = 1
    sem_seg[:5] = 255
    inputs = T.AugInput(np.zeros((40, 40, 3), np.uint8), sem_seg=sem_seg)
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.75, 255)
    satisfied = 0
    for dtype in (np.int32, np.uint8):
        inputs.sem_seg = sem_seg.astype(dtype)
        for _ in range(100):
            window = crop.get_transform(inputs.image, inputs.sem_seg).apply_image(inputs.sem_seg)
            counts = [(window == label).sum() for label in (0, 1)]
            satisfied += max(counts) < 0.75 * sum(counts)
    # A single window does with a probability of about one half.
    assert satisfied > 195
    with pytest.raises(ValueError, match=r"\(40, 40, 3\).*None"):
        crop.get_transform(inputs.image, None)


def test_fixed_size_crop_crops_on_the_diagonal_and_pads():
    image = aug_input(60, 84).image
    for _ in range(20):
        crop, pad = T.FixedSizeCrop((40, 100), pad_value=7, seg_pad_value=3).get_transform(image)
        assert (crop.x0, crop.w, crop.h) == (0, 84, 40)
        assert 0 <= crop.y0 <= 20
        padded = pad.apply_image(crop.apply_image(image))
        assert padded.shape == (40, 100, 3)
        assert (padded[:, 84:] == 7).all()
        labels = pad.apply_segmentation(crop.apply_segmentation(image[..., 0]))
        assert (labels[:, 84:] == 3).all()
        inverse = T.TransformList([crop, pad]).inverse()
        restored = inverse.apply_image(padded)
        assert restored.shape == image.shape
        rows = slice(crop.y0, crop.y0 + 40)
        np.testing.assert_array_equal(restored[rows], image[rows])
    both = T.FixedSizeCrop((30, 42)).get_transform(image)[0]
    assert abs(both.x0 / 42 - both.y0 / 30) < 0.05
    assert len(T.FixedSizeCrop((90, 90), pad=False).get_transform(image)) == 1


def test_min_iou_crop_keeps_the_overlap():
    image = aug_input(100, 120).image
    boxes = np.array([[20.0, 20, 90, 80]])
    crops = 0
    for _ in range(60):
        crop = T.MinIoURandomCrop((0.6,)).get_transform(image, boxes)
        if isinstance(crop, T.NoOpTransform):
            continue
        crops += 1
        x0, y0, x1, y1 = crop.x0, crop.y0, crop.x0 + crop.w, crop.y0 + crop.h
        assert 0 <= x0 < x1 <= 120
        assert 0 <= y0 < y1 <= 100
        assert x0 < 55 < x1
        assert y0 < 50 < y1
    assert crops > 10
    augmentation = T.MinIoURandomCrop((0.6,))
    augmentation.sample_mode = (0.6,)
    for _ in range(30):
        crop = augmentation.get_transform(image, boxes)
        window = np.array([crop.x0, crop.y0, crop.x0 + crop.w, crop.y0 + crop.h])
        overlap = np.prod(np.minimum(window, boxes[0])[2:] - np.maximum(window, boxes[0])[:2])
        assert overlap / (crop.w * crop.h + 70 * 60 - overlap) >= 0.6


def test_min_iou_crop_without_boxes():
    image = aug_input().image
    assert isinstance(T.MinIoURandomCrop().get_transform(image, None), T.NoOpTransform)
    T.MinIoURandomCrop().get_transform(image, np.zeros((0, 4)))


def test_min_iou_crop_gives_up():
    augmentation = T.MinIoURandomCrop((0.999,), mode_trials=2, crop_trials=3)
    augmentation.sample_mode = (0.999,)
    boxes = np.array([[0.0, 0, 1, 1]])
    transform = augmentation.get_transform(aug_input().image, boxes)
    assert isinstance(transform, T.NoOpTransform)


# Flips, rotations, extents


def test_random_flip_and_apply_follow_the_probability():
    image = aug_input().image
    flips = [T.RandomFlip(0.3).get_transform(image) for _ in range(500)]
    assert 100 < sum(isinstance(flip, T.HFlipTransform) for flip in flips) < 200
    vertical = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(image)
    assert vertical.height == 60
    augmentation = T.RandomApply(T.Resize(30), 0.3)
    resized = [type(augmentation(aug_input())) for _ in range(500)]
    assert 100 < resized.count(T.ResizeTransform) < 200
    never = T.RandomApply(T.AugmentationList([T.Resize(30)]), 0.0)
    assert isinstance(never(aug_input()), T.NoOpTransform)
    always = T.RandomApply(T.HFlipTransform(84), 1.0)
    assert always.get_transform(image).width == 84


def test_rotation_draws_angles_and_centres():
    image = aug_input(60, 84).image
    angles = [T.RandomRotation((10, 20)).get_transform(image).angle for _ in range(50)]
    assert 10 <= min(angles) < max(angles) <= 20
    assert isinstance(T.RandomRotation(360).get_transform(image), T.NoOpTransform)
    choice = T.RandomRotation([30, 60], sample_style="choice")
    assert {choice.get_transform(image).angle for _ in range(30)} == {30, 60}
    within = T.RandomRotation(30, False, center=[[0.2, 0.5], [0.4, 0.5]]).get_transform(image)
    assert 0.2 * 84 <= within.center[0] <= 0.4 * 84
    assert within.center[1] == 30


def test_rotation_chooses_among_several_centres():
    image = aug_input(60, 84).image
    centers = [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    rotation = T.RandomRotation([30], False, center=centers, sample_style="choice")
    drawn = {rotation.get_transform(image).center for _ in range(50)}
    assert drawn == {(0, 0), (42, 30), (84, 60)}
    one = T.RandomRotation([30], False, center=(0.5, 0.5), sample_style="choice")
    assert one.get_transform(image).center == (42, 30)


def test_extent_without_shift_is_centred():
    transform = T.RandomExtent((0.5, 0.5), (0, 0)).get_transform(aug_input(60, 84).image)
    assert transform.src_rect == (21, 15, 63, 45)
    assert tuple(transform.output_size) == (30, 42)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.RandomFlip(horizontal=True, vertical=True), "True and True"),
        (lambda: T.RandomFlip(horizontal=False), "False and False"),
        (lambda: T.RandomFlip(prob=1.5), "1.5"),
        (lambda: T.RandomApply(T.NoOpTransform(), -1), "-1"),
        (lambda: T.ResizeShortestEdge(3, sample_style="x"), "'x'"),
        (lambda: T.ResizeShortestEdge((1, 2, 3)), r"\(1, 2, 3\)"),
        (lambda: T.ResizeShortestEdge((5, 3)), r"\(5, 3\)"),
        (lambda: T.ResizeShortestEdge((5, 5), 0), "and 0"),
        (lambda: T.ResizeShortestEdge((), 9, "choice"), r"\(\)"),
        (lambda: T.ResizeScale(2, 1, 5, 5), "2 and 1"),
        (lambda: T.RandomResize([]), r"\[\]"),
        (lambda: T.RandomRotation((1, 2, 3)), r"\(1, 2, 3\)"),
        (lambda: T.RandomRotation([], sample_style="choice"), r"\[\]"),
        (lambda: T.RandomRotation(3, sample_style="any"), "'any'"),
        (lambda: T.RandomExtent((2, 1), (0, 0)), r"\(2, 1\)"),
        (lambda: T.RandomCrop("x", (1, 1)), "'x'"),
        (lambda: T.RandomCrop("relative", (0.5, 1.5)), r"\(0\.5, 1\.5\).*'relative'"),
        (lambda: T.RandomCrop("absolute_range", (9, 5)), r"\(9, 5\)"),
        (lambda: T.FixedSizeCrop((0, 5)), r"\(0, 5\)"),
        (lambda: T.MinIoURandomCrop(min_crop_size=0), "got 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
