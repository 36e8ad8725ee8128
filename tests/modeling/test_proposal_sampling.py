"""Labels, random choice and selection of proposals."""

import collections

import numpy as np
import pytest
import torch

from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import ROIHeads, select_foreground_proposals
from detectron2.modeling.roi_heads._matching import _match_together, match_proposals
from detectron2.modeling.roi_heads._sampling import sample_proposals
from detectron2.modeling.roi_heads.roi_heads import select_proposals_with_visible_keypoints
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, pairwise_iou
from detectron2.structures._selected_masks import SelectedBitMasks
from detectron2.utils.events import EventStorage

from .roi_toys import proposals, random_boxes, recorded_waits, targets

K = 5


class PerImage(ROIHeads):
    """Overrides the choice, as downstream heads do, without changing it."""

    def _sample_proposals(self, *args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._sample_proposals(*args)


def heads(kind: type[ROIHeads] = ROIHeads, **kwargs: object) -> ROIHeads:
    arguments = {
        "num_classes": K,
        "batch_size_per_image": 10,
        "positive_fraction": 0.3,
        "proposal_matcher": Matcher([0.3, 0.5], [0, -1, 1]),
    }
    return kind(**{**arguments, **kwargs})


# ------------------------------------------------------------------------------------------ choice


def sample(classes: list[list[int]], count: int, fraction: float) -> list:
    tensors = [torch.tensor(c, dtype=torch.int64) for c in classes]
    boxes = [torch.rand(len(c), 4) for c in classes]
    # An object for each proposal, in reverse, and one more.
    gt_classes = [torch.cat([c.flip(0).clamp(0, K - 1), c.new_zeros(1)]) for c in tensors]
    matches = [torch.arange(len(c)).flip(0) for c in classes]
    labels = [torch.where(c == K, 0, torch.where(c == -1, -1, 1)) for c in tensors]
    samples = sample_proposals(boxes, matches, labels, gt_classes, count, fraction, K)
    for s, c, b, m in zip(samples, tensors, boxes, matches, strict=True):
        assert torch.equal(s.classes, c[s.rows])
        assert torch.equal(s.classes_on_host, s.classes)
        assert torch.equal(s.matches, m[s.rows])
        assert torch.equal(s.matches_on_host, s.matches)
        assert torch.equal(s.boxes_on_host, b[s.rows])
        assert len(set(s.rows.tolist())) == len(s.rows)
        is_foreground = s.classes != K
        assert is_foreground[: s.num_foreground].all()
        assert not is_foreground[s.num_foreground :].any()
        assert (s.classes != -1).all()
    return samples


@pytest.mark.parametrize(
    ("foreground", "background", "ignored", "wanted"),
    [
        (20, 30, 4, (3, 7)),
        (2, 30, 4, (2, 8)),
        (20, 1, 0, (3, 1)),
        (0, 4, 9, (0, 4)),
        (0, 0, 3, (0, 0)),
        (3, 0, 0, (3, 0)),
        (0, 0, 0, (0, 0)),
    ],
)
def test_counts(foreground: int, background: int, ignored: int, wanted: tuple[int, int]) -> None:
    classes = [2] * foreground + [K] * background + [-1] * ignored
    # Images do not mix.
    for s in sample([classes, [K] * 3, classes, []], 10, 0.3)[0::2]:
        assert (s.num_foreground, len(s.rows) - s.num_foreground) == wanted


def test_all_are_equally_likely() -> None:
    counts = collections.Counter()
    for _ in range(1500):
        (s,) = sample([[K, 1, K, 1, 1, K, 1, K, K, K]], 4, 0.5)
        counts.update(s.rows.tolist())
    for row in (1, 3, 4, 6):
        assert counts[row] / 1500 == pytest.approx(2 / 4, abs=0.07)
    for row in (0, 2, 5, 7, 8, 9):
        assert counts[row] / 1500 == pytest.approx(2 / 6, abs=0.07)


def test_image_without_objects_is_background() -> None:
    boxes, none = [torch.rand(3, 4), torch.rand(2, 4)], torch.zeros(0, dtype=torch.int64)
    matches, ignored = [torch.zeros(3).long(), torch.zeros(2).long()], torch.full((3,), -1)
    labels = [ignored, torch.ones(2).long()]
    gt_classes = [none, torch.tensor([4])]
    first, second = sample_proposals(boxes, matches, labels, gt_classes, 10, 1.0, K)
    assert first.classes.tolist() == [K] * 3
    assert second.classes.tolist() == [4, 4]
    first, second = sample_proposals(boxes, matches, labels, [none, none], 10, 1.0, K)
    assert first.classes.tolist() + second.classes.tolist() == [K] * 5


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("counts", [(4, 0, 2), (0, 0), (1,), (3, 3)])
def test_matched_together_as_by_image(counts: tuple[int, ...]) -> None:
    matcher = Matcher([0.3, 0.5], [0, -1, 1])
    gt = [Boxes(random_boxes(count)) for count in counts]
    given = [Boxes(random_boxes(20 + i)) for i in range(len(counts))]
    matches, labels = match_proposals(pairwise_iou, matcher, gt, given)
    if not any(counts):
        assert not torch.cat(labels).any()
        return
    together, its_labels = _match_together(pairwise_iou, matcher, gt, given)
    for a, b in zip(matches + labels, together + its_labels, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [ROIHeads, PerImage])
def test_labels_and_fields(kind: type[ROIHeads]) -> None:
    model = heads(kind, batch_size_per_image=1000, positive_fraction=1.0)
    gt = [targets(4), targets(0), targets(2)]
    for x in gt:
        x.gt_names = [f"object {i}" for i in range(len(x))]
        x.other = torch.zeros(len(x))
    given = [proposals(40), proposals(12), proposals(9)]
    with EventStorage() as storage:
        chosen = model.label_and_sample_proposals(given, gt)
        latest = {name: value for name, (value, _) in storage.latest().items()}
    foreground = background = 0
    for i, (c, g, p) in enumerate(zip(chosen, gt, given, strict=True)):
        own = torch.cat([p.proposal_boxes.tensor, g.gt_boxes.tensor])
        boxes = c.proposal_boxes.tensor
        wanted = ["gt_boxes", "gt_classes", "gt_keypoints", "gt_masks", "gt_names"]
        fields = ["gt_classes"] if i == 1 else wanted
        assert sorted(c.get_fields()) == [*fields, "objectness_logits", "proposal_boxes"]
        labels = {tuple(b.tolist()): int(k) for b, k in zip(boxes, c.gt_classes, strict=True)}
        for box in own:
            ious = [slow_iou(box, g_box) for g_box in g.gt_boxes.tensor]
            best = max(ious, default=0.0)
            if best < 0.3:
                assert labels[tuple(box.tolist())] == K
                background += 1
            elif best < 0.5:
                assert tuple(box.tolist()) not in labels
            else:
                match = ious.index(best)
                assert labels[tuple(box.tolist())] == int(g.gt_classes[match])
                row = [tuple(b) for b in boxes.tolist()].index(tuple(box.tolist()))
                assert c.gt_names[row] == f"object {match}"
                assert torch.equal(c.gt_boxes.tensor[row], g.gt_boxes.tensor[match])
                assert torch.equal(c.gt_keypoints.tensor[row], g.gt_keypoints.tensor[match])
                assert c.gt_masks.polygons[row] is g.gt_masks.polygons[match]
                foreground += 1
    assert foreground > 6
    assert latest == pytest.approx(
        {"roi_head/num_fg_samples": foreground / 3, "roi_head/num_bg_samples": background / 3}
    )
    assert all(not p.has("gt_classes") for p in given)


def slow_iou(a: torch.Tensor, b: torch.Tensor) -> float:
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    common = sides.prod()
    return float(common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common))


@pytest.mark.parametrize("where", ["instance", "class"])
def test_other_choice(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = heads()
    owner = model if where == "instance" else ROIHeads
    choose = lambda *args: (torch.tensor([1]), torch.tensor([3]))  # noqa: E731
    monkeypatch.setattr(owner, "_sample_proposals", choose)
    with EventStorage():
        (chosen,) = model.label_and_sample_proposals([proposals(4)], [targets(2)])
    assert chosen.gt_classes.tolist() == [3]


def test_without_appended_ground_truth() -> None:
    model = heads(proposal_append_gt=False, batch_size_per_image=100)
    with EventStorage():
        (chosen,) = model.label_and_sample_proposals([proposals(7)], [targets(0)])
    assert len(chosen) == 7
    assert (chosen.gt_classes == K).all()


def test_fields_of_numpy() -> None:
    gt = targets(3)
    gt.gt_numbers = np.arange(3) * 10
    with EventStorage():
        (chosen,) = heads().label_and_sample_proposals([proposals(30)], [gt])
    for box, number in zip(chosen.gt_boxes.tensor, chosen.gt_numbers, strict=True):
        assert torch.equal(box, gt.gt_boxes.tensor[number // 10])
    (selected,), _ = select_foreground_proposals([chosen.to("cpu")], K)
    assert len(selected.gt_numbers) == int((chosen.gt_classes != K).sum())


def test_bitmaps_are_not_copied() -> None:
    gt = targets(3)
    gt.gt_masks = BitMasks.from_polygon_masks(gt.gt_masks, 60, 80)
    with EventStorage():
        (chosen,) = heads().label_and_sample_proposals([proposals(30)], [gt])
    assert chosen.gt_masks._masks.data_ptr() == gt.gt_masks.tensor.data_ptr()
    for mask, box in zip(chosen.gt_masks, chosen.gt_boxes.tensor, strict=True):
        match = [torch.equal(box, b) for b in gt.gt_boxes.tensor].index(True)
        assert torch.equal(mask, gt.gt_masks.tensor[match])


class TestSelectedBitMasks:
    masks = torch.rand(3, 20, 30) > 0.5
    index = torch.tensor([2, 0, 0, 1])

    @pytest.mark.parametrize(
        "item", [1, -1, slice(1, 3), torch.tensor([3, 0]), torch.tensor([True, False, False, True])]
    )
    def test_selects_as_masks_do(self, item: object) -> None:
        selected = SelectedBitMasks(self.masks, self.index)[item]
        wanted = BitMasks(self.masks[self.index])[item]
        assert isinstance(selected, BitMasks)
        assert len(selected) == len(wanted)
        assert torch.equal(selected.tensor, wanted.tensor)
        assert selected.image_size == wanted.image_size

    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
    def test_crops_as_masks_do(self, device: str) -> None:
        boxes = random_boxes(4, (20, 30), 3).to(device)
        selected = SelectedBitMasks(self.masks, self.index).to(device)
        wanted = BitMasks(self.masks[self.index].to(device)).crop_and_resize(boxes, 7)
        assert torch.equal(selected.crop_and_resize(boxes, 7), wanted)
        with pytest.raises(ValueError, match=r"\(4, 4\)"):
            selected.crop_and_resize(boxes[:2], 7)

    def test_edited_as_masks_are(self) -> None:
        selected = SelectedBitMasks(self.masks, self.index)
        given = self.masks.clone()
        selected.tensor[1] = False
        assert selected.nonempty().tolist() == [True, False, True, True]
        assert selected[1:3].nonempty().tolist() == [False, True]
        assert selected.to("cpu").nonempty().tolist() == [True, False, True, True]
        assert not selected.crop_and_resize(random_boxes(4, (20, 30), 3), 7)[1].any()
        assert torch.equal(self.masks, given)
        selected.tensor = given[:2]
        assert len(selected) == 2
        assert torch.equal(BitMasks.cat([selected]).tensor, given[:2])

    def test_concatenates(self) -> None:
        selected = SelectedBitMasks(self.masks, self.index)
        assert torch.equal(
            BitMasks.cat([selected, selected[:1]]).tensor, self.masks[[2, 0, 0, 1, 2]]
        )
        assert torch.equal(selected.nonempty(), torch.ones(4, dtype=torch.bool))


# --------------------------------------------------------------------------------------- selection


class OfIndices:
    """A field that is indexed by indices only, as DensePose's."""

    def __init__(self, values: list[int]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: torch.Tensor) -> "OfIndices":
        return OfIndices([self.values[i] for i in item])


@pytest.mark.parametrize("classes", [[1, 0, K], [K, 1, 0], [K, K, K]])
def test_foreground_of_fields_of_indices(classes: list[int]) -> None:
    gt = targets(3)
    gt.gt_classes, gt.gt_own = torch.tensor(classes), OfIndices([0, 1, 2])
    (selected,), _ = select_foreground_proposals([gt], K)
    assert selected.gt_own.values == [i for i in range(3) if classes[i] != K]


@pytest.mark.parametrize("classes", [[3, 1, K, -1], [K, 2, -1, 0], [K, K, K, K], [1, 2, 3, 4], []])
def test_foreground(classes: list[int]) -> None:
    gt = targets(len(classes))
    gt.gt_classes = torch.tensor(classes, dtype=torch.int64)
    gt.names = [str(i) for i in range(len(classes))]
    empty = gt[:0]
    (selected, none), masks = select_foreground_proposals([gt, empty], K)
    wanted = [i for i, c in enumerate(classes) if c not in (-1, K)]
    assert selected.names == [str(i) for i in wanted]
    assert torch.equal(selected.gt_boxes.tensor, gt.gt_boxes.tensor[wanted])
    assert all(p is gt.gt_masks.polygons[i] for p, i in zip(selected.gt_masks, wanted, strict=True))
    assert len(none) == 0
    assert masks[0].tolist() == [i in wanted for i in range(len(classes))]
    assert masks[1].shape == (0,)


def test_foreground_of_nothing() -> None:
    assert select_foreground_proposals([], K) == ([], [])
    with pytest.raises(TypeError, match="Instances"):
        select_foreground_proposals(targets(1), K)


def test_visible_keypoints() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 5)
    points = torch.tensor(
        [
            [[5.0, 5, 2], [50, 5, 2]],  # One inside.
            [[50, 5, 2], [5, -1, 2]],  # None inside.
            [[5, 5, 0], [4, 4, 0]],  # Not labelled.
            [[10, 10, 1], [5, 5, 0]],  # Hidden, on the corner.
            [[0, 0, 2], [0, 99, 2]],  # On the other corner.
        ]
    )
    given = Instances((99, 99), proposal_boxes=Boxes(boxes), gt_keypoints=Keypoints(points))
    given.row = torch.arange(5)
    without = Instances((99, 99), proposal_boxes=Boxes(torch.zeros(0, 4)))
    with EventStorage() as storage:
        selected = select_proposals_with_visible_keypoints([given, without, given])
        assert storage.latest()["keypoint_head/num_fg_samples"][0] == 3
        assert [len(x) for x in select_proposals_with_visible_keypoints([without])] == [0]
    assert [x.row.tolist() for x in selected[0::2]] == [[0, 3, 4]] * 2
    assert selected[1] is without


# -------------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
def test_waits_once_for_all_images() -> None:
    model = heads()
    gt = [targets(4).to("cuda"), targets(3).to("cuda"), targets(2).to("cuda")]
    given = [proposals(30).to("cuda") for _ in gt]
    with EventStorage(), recorded_waits() as waits:
        chosen = model.label_and_sample_proposals(given, gt)
        selected, _ = select_foreground_proposals(chosen, K)
    assert len(waits) == 1, waits
    assert all((x.gt_classes < K).all() and len(x) > 0 for x in selected)
