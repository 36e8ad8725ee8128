"""What a Visualizer draws, by the pixels that it changes."""

import types

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
)
from detectron2.utils.visualizer import (
    ColorMode,
    VisImage,
    Visualizer,
    _create_text_labels,
)

HEIGHT, WIDTH = 200, 300
METADATA = types.SimpleNamespace(
    thing_classes=["cat", "dog"],
    thing_colors=[(200, 0, 0), (0, 0, 200)],
    stuff_classes=["sky", "sea"],
    stuff_colors=[(0, 200, 0), (0, 200, 200)],
    keypoint_names=["nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"],
    keypoint_connection_rules=[("left_shoulder", "right_shoulder", (0, 255, 0))],
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random colours, the same in each run."""
    np.random.seed(0)


def grey_image(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def make(**options) -> Visualizer:
    return Visualizer(grey_image(), METADATA, **options)


def changed(picture: VisImage) -> np.ndarray:
    """Where a picture of the grey image differs from it; bool ``(H, W)``."""
    return (picture.get_image() != 100).any(axis=2)


def extent(is_set: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(is_set.any(axis=1)), np.flatnonzero(is_set.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def disc(x: float, y: float, radius: float, hole: float = 0) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(columns - x, rows - y)
    return (distance < radius) & (distance >= hole)


def predictions() -> Instances:
    masks = torch.from_numpy(np.stack([disc(80, 100, 50), disc(200, 100, 60)]))
    return Instances(
        (HEIGHT, WIDTH),
        pred_boxes=BitMasks(masks).get_bounding_boxes(),
        scores=torch.tensor([0.876, 0.5]),
        pred_classes=torch.tensor([1, 0]),
        pred_masks=masks,
    )


class TestVisImage:
    def test_result_is_a_new_array(self) -> None:
        image = grey_image()
        picture = VisImage(image)
        result = picture.get_image()
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, image)
        result[:] = 0
        np.testing.assert_array_equal(picture.get_image(), image)

    def test_the_image_is_not_written_to(self) -> None:
        image = grey_image()
        visualizer = Visualizer(image)
        visualizer.draw_box((10, 10, 50, 50))
        assert (image == 100).all()
        assert (visualizer.img == 100).all()

    @pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 0.1 + 0.2])
    def test_scale(self, scale: float) -> None:
        picture = VisImage(grey_image(90, 130), scale)
        assert picture.get_image().shape == (int(90 * scale + 0.01), int(130 * scale + 0.01), 3)
        assert (picture.width, picture.height, picture.scale) == (130, 90, scale)

    def test_pixels_stay_visible_when_they_grow(self) -> None:
        image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        expected = image.repeat(3, axis=0).repeat(3, axis=1)
        np.testing.assert_array_equal(VisImage(image, 3).get_image(), expected)

    def test_saves(self, tmp_path) -> None:
        picture = make().draw_box((10, 10, 50, 50))
        picture.save(tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as saved:
            np.testing.assert_array_equal(np.asarray(saved), picture.get_image())
        picture.save(str(tmp_path / "picture.jpg"))
        with pytest.raises(ValueError, match="nonsense"):
            picture.save(tmp_path / "picture.nonsense")

    @pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3)])
    def test_rejects_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=str(shape[0])):
            VisImage(np.zeros(shape, np.uint8))

    def test_floats_are_clipped(self) -> None:
        image = np.array([[[-5.0, 300.0, 7.9]]])
        assert Visualizer(image).get_output().get_image().tolist() == [[[0, 255, 7]]]


class TestBoxes:
    def test_frame(self) -> None:
        is_changed = changed(make().draw_box((50, 40, 150, 120)))
        left, top, right, bottom = extent(is_changed)
        # The line is some pixels wide, half of it outside.
        assert 46 <= left < 50 < 150 < right <= 154
        assert 36 <= top < 40 < 120 < bottom <= 124
        assert not is_changed[45:115, 55:145].any()
        assert is_changed[40, 50:150].all()
        assert is_changed[40:120, 149].all()

    def test_frame_is_even(self) -> None:
        """Also at its corners: no pixel is blended twice."""
        picture = make().draw_box((50.3, 40.6, 150.2, 120.9), edge_color="r").get_image()
        assert set(map(tuple, picture.reshape(-1, 3).tolist())) == {(100,) * 3, (178, 50, 50)}

    def test_alpha(self) -> None:
        picture = make().draw_box((50, 40, 150, 120), alpha=1, edge_color=(1, 0, 0))
        assert picture.get_image()[40, 100].tolist() == [255, 0, 0]

    def test_dashes(self) -> None:
        solid, dashed = (
            make().draw_box((50, 40, 150, 120), edge_color="w", line_style=style).get_image()
            for style in ("-", "--")
        )
        # Dashes are 3.7 and gaps 1.6 times as long as the line is wide.
        share = (dashed - 100.0).sum() / (solid - 100.0).sum()
        assert share == pytest.approx(3.7 / 5.3, abs=0.05)
        with pytest.raises(ValueError, match="wavy"):
            make().draw_box((50, 40, 150, 120), line_style="wavy")

    @pytest.mark.parametrize("style", ["-", "--"])
    @pytest.mark.parametrize(
        "box",
        [
            (-1e30, -1e30, 1e30, 1e30),
            (-np.inf, 50, np.inf, 60),
            (np.nan, 0, 5, 5),
            (400, 400, 500, 500),
        ],
    )
    def test_far_outside(self, box: tuple[float, ...], style: str) -> None:
        make().draw_box(box, line_style=style)

    def test_point(self) -> None:
        assert changed(make().draw_box((50, 50, 50, 50))).any()

    def test_rotated(self) -> None:
        visualizer = make()
        visualizer.draw_rotated_box_with_label((150, 100, 100, 40, 90), alpha=1)
        is_changed = changed(visualizer.get_output())
        left, top, right, bottom = extent(is_changed)
        assert abs(left - 130) <= 3
        assert abs(right - 170) <= 3
        assert abs(top - 50) <= 3
        assert abs(bottom - 150) <= 3
        # By a quarter turn counter-clockwise the left side, which is dashed, becomes the lower one.
        assert is_changed[50, 132:168].all()
        assert not is_changed[150, 132:168].all()

    def test_rotation_is_counter_clockwise(self) -> None:
        visualizer = make()
        visualizer.draw_rotated_box_with_label((150, 100, 200, 4, 30))
        is_changed = changed(visualizer.get_output())
        assert is_changed[40:75, 200:].any()
        assert not is_changed[40:75, :100].any()

    def test_rotated_label(self) -> None:
        for angle in (0, 45, 90, -120):
            without, with_text = (
                changed(
                    make().overlay_rotated_instances(
                        np.array([[150, 100, 80, 50, angle]]), labels, ["w"]
                    )
                )
                for labels in (None, ["text"])
            )
            label = with_text & ~without
            # It starts at the corner, and runs along the upper side.
            radians = np.deg2rad(angle)
            cosine, sine = np.cos(radians), np.sin(radians)
            corner = (150 - 40 * cosine - 25 * sine, 100 + 40 * sine - 25 * cosine)
            rows, columns = np.nonzero(label)
            along = (columns - corner[0]) * cosine - (rows - corner[1]) * sine
            across = (columns - corner[0]) * sine + (rows - corner[1]) * cosine
            assert along.min() > -3
            assert across.min() > -3
            assert along.max() < 60
            assert across.max() < 25


class TestShapes:
    def test_line(self) -> None:
        picture = make().draw_line([50, 250], [100, 100], "b", linewidth=7.2).get_image()
        # 7.2 points are 10 pixels.
        assert (picture[95:105, 60:240] == (0, 0, 255)).all()
        assert (picture[:94] == 100).all()
        assert (picture[106:] == 100).all()

    @pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.2, 2.5])
    def test_line_is_smooth(self, angle: float) -> None:
        """What a line covers is its length times its width, whatever its direction."""
        direction = np.array([np.cos(angle), np.sin(angle)])
        start, end = [150, 100] - 80 * direction, [150, 100] + 80 * direction
        picture = make().draw_line(*np.stack([start, end], axis=1), "w", linewidth=7.2)
        opacity = (picture.get_image()[..., 0] - 100.0) / 155
        assert opacity.sum() == pytest.approx(160 * 10 + np.pi * 25, rel=0.02)

    @pytest.mark.parametrize("style", ["-", "--"])
    def test_endless_line(self, style: str) -> None:
        picture = make().draw_line([-1e12, 1e12], [100, 100], "b", linestyle=style)
        assert changed(picture)[100].any()
        make().draw_line([0, np.nan], [0, 5], "b", linestyle=style)

    def test_transparent_line(self) -> None:
        picture = make().draw_line([50, 250], [100, 100], (0, 0, 0, 0.5), linewidth=7)
        assert picture.get_image()[100, 150].tolist() == [50, 50, 50]

    def test_uneven_line(self) -> None:
        with pytest.raises(ValueError, match="2 x and 3 y"):
            make().draw_line([1, 2], [1, 2, 3], "b")

    @pytest.mark.parametrize("scale", [1.0, 2.0])
    def test_circle(self, scale: float) -> None:
        picture = make(scale=scale).draw_circle((100.5, 90.5), "w", radius=20).get_image()
        opacity = (picture[..., 0] - 100.0) / 155
        assert opacity.sum() == pytest.approx(np.pi * (20 * scale) ** 2, rel=0.03)
        rows, columns = np.nonzero(opacity > 0)
        assert (columns.mean() + 0.5) / scale == pytest.approx(100.5, abs=0.1)
        assert (rows.mean() + 0.5) / scale == pytest.approx(90.5, abs=0.1)

    def test_polygon(self) -> None:
        triangle = np.array([[50, 50], [150, 50], [50, 150]])
        picture = make().draw_polygon(triangle, "w", edge_color="k", alpha=0.4).get_image()
        assert picture[80, 80].tolist() == [162, 162, 162]
        assert (picture[50, 60:140] < 100).all()
        assert (picture[120, 120] == 100).all()

    def test_opaque_polygon_has_dark_sides(self) -> None:
        triangle = np.array([[50, 50], [150, 50], [50, 150]])
        picture = make().draw_polygon(triangle, "w", alpha=1).get_image()
        assert picture[80, 80].tolist() == [255, 255, 255]
        assert picture[49:51, 100].max() < 200

    @pytest.mark.parametrize("offset", [0, 0.3, 0.5, 0.8])
    def test_polygon_is_smooth(self, offset: float) -> None:
        """What it covers is its area, and its middle is where it should be."""
        polygon = np.array([[50, 50], [150, 60], [120, 150], [60, 130]]) + offset
        visualizer = make()
        coverage = visualizer.output.canvas.polygon_coverage(polygon).values / 255.0
        x, y = polygon.T
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        area = cross.sum() / 2
        middle = ((x + np.roll(x, -1)) * cross).sum() / 6 / area
        assert coverage.sum() == pytest.approx(area, rel=0.01)
        columns = np.arange(coverage.shape[1]) + np.floor(x.min()) + 0.5
        assert (coverage * columns).sum() / coverage.sum() == pytest.approx(middle, abs=0.1)

    @pytest.mark.parametrize(
        "points", [[[-1e9, -1e9], [1e9, -1e9], [0, 1e9]], [[0, 0], [np.nan, 5], [9, 9]], [[5, 5]]]
    )
    def test_odd_polygons(self, points: list) -> None:
        make().draw_polygon(np.array(points), "r")

    def test_polygon_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"\[3, 3\]"):
            make().draw_polygon(np.zeros((3, 3)), "r")


class TestMasks:
    def test_fills_the_pixels(self) -> None:
        mask = disc(150, 100, 50, hole=20)
        picture = make().draw_binary_mask(mask, "w", edge_color="w", alpha=0.2).get_image()
        inside = disc(150, 100, 47, hole=23)
        assert (picture[inside] == 131).all()
        assert (picture[disc(150, 100, 17)] == 100).all()
        assert (picture[~disc(150, 100, 53)] == 100).all()

    def test_border_of_holes(self) -> None:
        picture = make().draw_binary_mask(disc(150, 100, 50, hole=20), "w", alpha=0.2).get_image()
        assert picture[98:102, 166:174].max() > 180
        assert picture[98:102, 196:204].max() > 180

    @pytest.mark.parametrize("scale", [0.5, 1.7, 3.0])
    def test_scaled(self, scale: float) -> None:
        mask = disc(150, 100, 50)
        picture = make(scale=scale).draw_binary_mask(mask, "w", edge_color="k", alpha=0.4)
        bright = picture.get_image()[..., 0] > 100
        assert bright.sum() == pytest.approx(np.pi * (50 * scale) ** 2, rel=0.1)
        rows, columns = np.nonzero(bright)
        assert (columns.mean() + 0.5) / scale == pytest.approx(150, abs=0.5)
        assert (rows.mean() + 0.5) / scale == pytest.approx(100, abs=0.5)

    def test_small_parts_are_left_out(self) -> None:
        mask = disc(150, 100, 30)
        mask[10:13, 10:13] = True
        assert not changed(make().draw_binary_mask(mask, "r"))[:20, :20].any()
        picture = make().draw_binary_mask(mask, "r", area_threshold=9)
        assert changed(picture)[:20, :20].any()
        assert mask[10:13, 10:13].all()

    def test_text_is_on_the_largest_part(self) -> None:
        mask = disc(220, 100, 40) | disc(60, 100, 20)
        without = changed(make().draw_binary_mask(mask, "r", alpha=0))
        with_text = changed(make().draw_binary_mask(mask, "r", text="text", alpha=0))
        left, top, right, bottom = extent(with_text & ~without)
        assert (left + right) / 2 == pytest.approx(220, abs=2)
        assert (top + bottom) / 2 == pytest.approx(100, abs=2)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
    def test_dtypes(self, dtype: type) -> None:
        mask = disc(150, 100, 30)
        expected = make().draw_binary_mask(mask, "r").get_image()
        np.testing.assert_array_equal(
            make().draw_binary_mask(mask.astype(dtype), "r").get_image(), expected
        )
        tensor = torch.from_numpy(mask.astype(dtype))
        np.testing.assert_array_equal(make().draw_binary_mask(tensor, "r").get_image(), expected)

    def test_empty_mask(self) -> None:
        empty = np.zeros((HEIGHT, WIDTH), bool)
        assert not changed(make().draw_binary_mask(empty, "r", text="text")).any()
        assert not changed(make().draw_soft_mask(empty, "r", text="text")).any()

    def test_other_size(self) -> None:
        with pytest.raises(ValueError, match=r"\[300, 200\]"):
            make().draw_binary_mask(np.zeros((WIDTH, HEIGHT), bool))

    def test_soft_mask(self) -> None:
        soft = np.zeros((HEIGHT, WIDTH))
        soft[:, 100:200], soft[:, 200:] = 0.5, 1
        picture = make().draw_soft_mask(soft, "k", alpha=0.5).get_image()
        assert picture[50, 50].tolist() == [100] * 3
        assert picture[50, 150].tolist() == pytest.approx([75] * 3, abs=1)
        assert picture[50, 250].tolist() == pytest.approx([50] * 3, abs=1)


class TestInstances:
    @pytest.mark.parametrize("mode", list(ColorMode))
    def test_predictions(self, mode: ColorMode) -> None:
        is_changed = changed(make(instance_mode=mode).draw_instance_predictions(predictions()))
        assert is_changed[disc(80, 100, 45)].all()
        assert is_changed[disc(200, 100, 55)].all()
        assert not is_changed[:10].any()

    def test_colors_by_class(self) -> None:
        visualizer = make(instance_mode=ColorMode.SEGMENTATION)
        picture = visualizer.draw_instance_predictions(predictions(), jittering=False).get_image()
        # 0.8 of the class's colour and 0.2 of the image.
        assert picture[120, 80].tolist() == pytest.approx([20, 20, 180], abs=1)
        assert picture[120, 200].tolist() == pytest.approx([180, 20, 20], abs=1)

    def test_grey_around_the_masks(self) -> None:
        image = grey_image()
        image[..., 0], image[..., 1] = 40, 12  # 152 / 3 = 50.67
        picture = Visualizer(image, METADATA, instance_mode=ColorMode.IMAGE_BW)
        result = picture.draw_instance_predictions(predictions()).get_image()
        assert result[5, 5].tolist() == [51, 51, 51]
        assert len(set(result[120, 200].tolist())) > 1

    def test_inputs_of_any_kind(self) -> None:
        square = [[60.0, 50, 120, 50, 120, 110, 60, 110]]
        bitmap = np.zeros((1, HEIGHT, WIDTH), bool)
        bitmap[0, 50:110, 60:120] = True
        results = [
            make().overlay_instances(masks=masks, assigned_colors=["r"]).get_image().astype(int)
            for masks in (
                bitmap,
                torch.from_numpy(bitmap),
                BitMasks(bitmap),
                PolygonMasks([square]),
                [square],
                [bitmap[0]],
            )
        ]
        for result in results[1:]:
            # Polygons and bitmaps may differ at the border.
            assert (np.abs(result - results[0]).max(axis=2) > 20).sum() < 500
            np.testing.assert_array_equal(result[55:105, 65:115], results[0][55:105, 65:115])

    def test_larger_ones_lie_below(self) -> None:
        masks = np.stack([disc(150, 100, 20), disc(150, 100, 60)])
        picture = make().overlay_instances(masks=masks, assigned_colors=["w", "k"], alpha=1)
        assert picture.get_image()[100, 150].tolist() == [255, 255, 255]

    @pytest.mark.parametrize(
        "boxes", [np.zeros((0, 4)), Boxes(torch.zeros(0, 4)), RotatedBoxes(torch.zeros(0, 5)), []]
    )
    def test_no_instances(self, boxes) -> None:
        assert not changed(make().overlay_instances(boxes=boxes, labels=[])).any()

    def test_no_predictions(self) -> None:
        nothing = predictions()[torch.zeros(2, dtype=torch.bool)]
        assert not changed(make().draw_instance_predictions(nothing)).any()
        assert not changed(make().draw_instance_predictions(Instances((HEIGHT, WIDTH)))).any()

    def test_different_numbers(self) -> None:
        with pytest.raises(ValueError, match="'boxes': 2, 'labels': 1"):
            make().overlay_instances(boxes=np.ones((2, 4)), labels=["one"])

    def test_rotated_boxes(self) -> None:
        boxes = RotatedBoxes(torch.tensor([[150.0, 100, 80, 50, 30]]))
        assert changed(make().overlay_instances(boxes=boxes, labels=["text"])).any()
        with pytest.raises(ValueError, match=r"\[1, 4\]"):
            make().overlay_rotated_instances(np.ones((1, 4)))

    def test_nothing_of_a_mask(self) -> None:
        masks = np.zeros((1, HEIGHT, WIDTH), bool)
        assert not changed(make().overlay_instances(masks=masks, labels=["text"])).any()

    @pytest.mark.parametrize("y", [100, 194])
    def test_label_does_not_hide_a_small_mask(self, y: int) -> None:
        mask = disc(150, y, 5)
        visualizer = make()
        visualizer.overlay_instances(masks=[mask], labels=["text"])
        (box,) = visualizer.output.labels.boxes((WIDTH, HEIGHT)).astype(int)
        assert not mask[box[1] : box[3], box[0] : box[2]].any()

    def test_label_in_the_middle_of_a_large_mask(self) -> None:
        visualizer = make()
        visualizer.overlay_instances(masks=[disc(150, 100, 50)], labels=["text"])
        (box,) = visualizer.output.labels.boxes((WIDTH, HEIGHT))
        assert (box[0] + box[2]) / 2 == pytest.approx(150, abs=1.5)
        assert (box[1] + box[3]) / 2 == pytest.approx(100, abs=1.5)

    def test_subclass_that_writes_and_draws_in_its_own_way(self) -> None:
        """As code written for upstream does, for other fonts or thin outlines."""
        seen: list[tuple] = []

        class Own(Visualizer):
            def draw_text(
                self, text, position, *, color="g", horizontal_alignment="center", **rest
            ):
                seen.append((text, tuple(np.round(position).tolist()), horizontal_alignment))
                return super().draw_text(text, position, color="w", **rest)

            def draw_polygon(self, segment, color, edge_color=None, alpha=0.5):
                seen.append(("polygon", extent_of_points(segment)))
                return super().draw_polygon(segment, "r", alpha=1)

        def extent_of_points(points: np.ndarray) -> tuple[float, ...]:
            return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())

        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20:180, 40:260] = True
        visualizer = Own(grey_image(), METADATA)
        box = np.array([[40, 20, 260, 180]])
        visualizer.overlay_instances(boxes=box, masks=mask[None], labels=["at a box"])
        assert seen == [("polygon", (40.5, 20.5, 259.5, 179.5)), ("at a box", (40, 20), "left")]
        assert len(visualizer.output.labels.boxes((WIDTH, HEIGHT))) == 1
        seen.clear()
        visualizer.overlay_instances(masks=mask[None], labels=["on a mask"])
        visualizer.draw_sem_seg(mask.astype(int))
        texts = [text for text in seen if text[0] != "polygon"]
        assert texts[0] == ("on a mask", (150, 100), "center")
        assert sorted(text for text, *_ in texts[1:]) == ["sea", "sky"]
        seen.clear()
        visualizer.overlay_rotated_instances([[150.0, 100, 80, 50, 30]], labels=["turned"])
        assert seen[0][0] == "turned"

    def test_text_labels(self) -> None:
        assert _create_text_labels(None, None, None) is None
        assert _create_text_labels([1, 0], None, ["cat", "dog"]) == ["dog", "cat"]
        assert _create_text_labels([1], torch.tensor([0.876]), None) == ["1 88%"]
        assert _create_text_labels(None, [0.5], ["cat"]) == ["50%"]
        assert _create_text_labels([0, 0], None, ["cat"], [0, 1]) == ["cat", "cat|crowd"]


class TestKeypoints:
    def test_points_and_lines(self) -> None:
        keypoints = [[150, 30, 1], [100, 80, 1], [200, 80, 1], [120, 160, 1], [180, 160, 0.01]]
        picture = make().draw_and_connect_keypoints(torch.tensor(keypoints)).get_image()
        for x, y, score in keypoints:
            expected = [255, 0, 0] if score > 0.05 else [100] * 3
            assert picture[int(y), int(x)].tolist() == expected
        assert picture[80, 120].tolist() == [0, 255, 0]
        # From the nose to the middle of the shoulders, but not to the hips: one is not seen.
        assert picture[55, 150].tolist() == [255, 0, 0]
        assert picture[120, 150].tolist() == [100] * 3

    def test_down_to_the_hips(self) -> None:
        keypoints = np.array(
            [[150, 30, 1], [100, 80, 1], [200, 80, 1], [120, 160, 1], [180, 160, 1]]
        )
        picture = make().overlay_instances(keypoints=Keypoints(keypoints[None])).get_image()
        assert picture[120, 150].tolist() == [255, 0, 0]

    def test_without_metadata(self) -> None:
        keypoints = np.array([[150, 100, 1], [np.nan, 100, 1]])
        assert changed(Visualizer(grey_image()).draw_and_connect_keypoints(keypoints)).any()

    def test_other_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"\[5, 2\]"):
            make().draw_and_connect_keypoints(np.zeros((5, 2)))


class TestSegmentations:
    def test_semantic(self) -> None:
        labels = np.full((HEIGHT, WIDTH), 255)
        labels[:100], labels[100:, :150] = 0, 1
        picture = make().draw_sem_seg(torch.from_numpy(labels), draw_text=False).get_image()
        assert picture[20, 20].tolist() == [20, 180, 20]
        assert picture[180, 20].tolist() == [20, 180, 180]
        assert (picture[180, 200] == 100).all()
        # The border is off-white.
        assert picture[98:102, 50].min(axis=1).max() > 150

    def test_semantic_without_metadata(self) -> None:
        assert changed(Visualizer(grey_image()).draw_sem_seg(np.zeros((HEIGHT, WIDTH), int))).all()

    def test_panoptic(self) -> None:
        segments = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
        segments[:, 150:] = 4
        segments[torch.from_numpy(disc(80, 100, 40))] = 9
        infos = [
            {"id": 4, "isthing": False, "category_id": 1},
            {"id": 9, "isthing": True, "category_id": 0, "score": 0.9},
        ]
        result = make().draw_panoptic_seg(segments, infos).get_image()
        assert result[20, 200].tolist() == [30, 170, 170]
        assert (result[5, 5] == 100).all()
        assert (result[disc(80, 100, 35)] != 100).any(axis=1).all()
        same = make().draw_panoptic_seg_predictions(segments, infos).get_image()
        np.testing.assert_array_equal(same[20, 200], result[20, 200])

    def test_panoptic_in_grey(self) -> None:
        """Colour stays where a segment is, also where segments cover the whole image."""
        image = grey_image()
        image[..., 0] = 220
        segments = np.full((HEIGHT, WIDTH), 3)
        infos = [{"id": 3, "isthing": True, "category_id": 0}]
        visualizer = Visualizer(image, METADATA, instance_mode=ColorMode.IMAGE_BW)
        visualizer.draw_panoptic_seg(segments, infos, alpha=0)
        assert visualizer.get_output().get_image()[20, 20].tolist() == [220, 100, 100]

    def test_panoptic_ids_by_divisor(self) -> None:
        metadata = types.SimpleNamespace(
            label_divisor=1000,
            thing_dataset_id_to_contiguous_id={7: 1},
            stuff_classes=["sky", "thing"],
            thing_classes=["sky", "dog"],
        )
        segments = np.full((HEIGHT, WIDTH), -1)
        segments[:100], segments[100:, 150:] = 0, 1001
        visualizer = Visualizer(grey_image(), metadata)
        is_changed = changed(visualizer.draw_panoptic_seg(segments, None))
        assert is_changed[:100].all()
        assert is_changed[100:, 150:].all()
        assert not is_changed[105:, :145].any()
        with pytest.raises(ValueError, match="label_divisor"):
            make().draw_panoptic_seg(segments, None)


class TestDatasetDicts:
    def test_annotations(self) -> None:
        annotation = {
            "bbox": [60, 50, 60, 60],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 1,
            "segmentation": [[60, 50, 120, 50, 120, 110, 60, 110]],
            "keypoints": [70, 70, 2, 80, 80, 2, 90, 90, 2, 70, 90, 2, 90, 70, 0],
        }
        picture = make().draw_dataset_dict({"annotations": [annotation]})
        assert changed(picture)[50:110, 60:120].all()
        assert picture.get_image()[90, 90].tolist() == [255, 0, 0]

    def test_annotations_that_lack_something(self) -> None:
        full = {
            "bbox": [60, 50, 120, 110],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 1,
            "segmentation": [[60, 50, 120, 50, 120, 110, 60, 110]],
            "keypoints": [70, 70, 2] * 5,
        }
        bare = {"bbox": [150, 50, 200, 90], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        for annotations in ([full, bare], [bare, full]):
            is_changed = changed(make().draw_dataset_dict({"annotations": annotations}))
            assert is_changed[50:110, 60:120].all()
            assert is_changed[50, 150:200].all()

    def test_rotated_annotation(self) -> None:
        annotation = {
            "bbox": [150, 100, 80, 40, 30],
            "bbox_mode": BoxMode.XYWHA_ABS,
            "category_id": 1,
        }
        assert changed(make().draw_dataset_dict({"annotations": [annotation]})).any()

    def test_nothing(self) -> None:
        assert not changed(make().draw_dataset_dict({"annotations": []})).any()

    def test_segmentations(self) -> None:
        labels = np.full((HEIGHT, WIDTH), 255, np.uint8)
        labels[:100] = 1
        picture = make().draw_dataset_dict({"sem_seg": labels}).get_image()
        assert picture[20, 20].tolist() == [50, 150, 150]
        ids = np.zeros((HEIGHT, WIDTH), int)
        ids[:100] = 70000
        dic = {
            "pan_seg": ids,
            "segments_info": [{"id": 70000, "isthing": False, "category_id": 0}],
        }
        picture = make().draw_dataset_dict(dic).get_image()
        assert picture[20, 20].tolist() == [50, 150, 50]

    def test_files(self, tmp_path) -> None:
        pytest.importorskip("detectron2.utils.file_io")
        labels = np.full((HEIGHT, WIDTH), 255, np.uint8)
        labels[:100] = 1
        Image.fromarray(labels).save(tmp_path / "semantic.png")
        picture = make().draw_dataset_dict({"sem_seg_file_name": str(tmp_path / "semantic.png")})
        assert picture.get_image()[20, 20].tolist() == [50, 150, 150]
        # 70000 = 112 + 17 * 256 + 65536
        ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        ids[:100] = (112, 17, 1)
        Image.fromarray(ids).save(tmp_path / "panoptic.png")
        dic = {
            "pan_seg_file_name": str(tmp_path / "panoptic.png"),
            "segments_info": [{"id": 70000, "isthing": False, "category_id": 0}],
        }
        assert make().draw_dataset_dict(dic).get_image()[20, 20].tolist() == [50, 150, 50]


def test_classes_beyond_the_metadata() -> None:
    metadata = types.SimpleNamespace(
        thing_classes=["cat"],
        thing_colors=[(200, 0, 0)],
        stuff_classes=["sky", "sea"],
        stuff_colors=[(0, 200, 0)],
    )
    visualizer = Visualizer(grey_image(), metadata, instance_mode=ColorMode.SEGMENTATION)
    assert changed(visualizer.draw_instance_predictions(predictions())).any()
    assert changed(visualizer.draw_sem_seg(np.ones((HEIGHT, WIDTH), int))).all()


def test_crowds_of_labels_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, [150, 100], (20, 2))
    boxes = np.concatenate([corner, corner + np.array([60, 45])], axis=1) * 3
    visualizer = Visualizer(grey_image(HEIGHT * 3, WIDTH * 3), METADATA)
    visualizer.overlay_instances(boxes=boxes, labels=[f"label {n}" for n in range(20)])
    layer = visualizer.output.labels
    placed = np.array(layer.boxes(visualizer.output.canvas.size))
    assert (placed[:, :2] >= 0).all()
    assert (placed[:, 2:] <= [WIDTH * 3, HEIGHT * 3]).all()
    low = np.maximum(placed[:, None, :2], placed[None, :, :2])
    high = np.minimum(placed[:, None, 2:], placed[None, :, 2:])
    overlaps = (high - low).clip(min=0).prod(axis=2)
    assert (np.triu(overlaps, 1) == 0).all()


def test_fixed_text_stays() -> None:
    visualizer = make()
    for alignment, x in (("left", 100), ("center", 150), ("right", 200)):
        visualizer.draw_text("text", (x, 50), horizontal_alignment=alignment)
    boxes = visualizer.output.labels.boxes(visualizer.output.canvas.size)
    left, centre, right = boxes
    assert left[:2].tolist() == [100, 50]
    assert (centre[0] + centre[2]) / 2 == pytest.approx(150, abs=1)
    assert right[2] == 200
    with pytest.raises(ValueError, match="top"):
        visualizer.draw_text("text", (1, 1), horizontal_alignment="top")


def test_text_lies_over_shapes_that_come_later() -> None:
    visualizer = make()
    visualizer.draw_text("text", (150, 50), color="w")
    before = visualizer.get_output().get_image()
    visualizer.draw_polygon(np.array([[100, 20], [200, 20], [200, 100], [100, 100]]), "b", alpha=1)
    after = visualizer.get_output().get_image()
    is_letter = (before == 255).all(axis=2)
    assert is_letter.any()
    assert (after[is_letter] == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(30, 40, 1), (64, 64, 0.25), (3000, 4000, 1)]
)
def test_text_can_be_read_at_any_size(height: int, width: int, scale: float) -> None:
    visualizer = Visualizer(grey_image(height, width), METADATA, scale=scale)
    visualizer.overlay_instances(boxes=np.array([[5, 5, 20, 20]]), labels=["x"])
    (box,) = visualizer.output.labels.boxes(visualizer.output.canvas.size)
    assert 10 <= box[3] - box[1] <= max(0.05 * height * scale, 20)


def test_accepts_metadata_of_any_kind() -> None:
    for metadata in (None, object(), METADATA):
        assert changed(
            Visualizer(grey_image(), metadata).draw_instance_predictions(predictions())
        ).any()
    assert Visualizer(grey_image()).metadata.get("thing_classes", 5) == 5
