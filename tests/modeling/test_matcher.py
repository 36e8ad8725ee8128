"""The matcher against loops over the matrix."""

import pytest
import torch

from detectron2.modeling._labelling import match_batch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou


def match_in_loops(quality, thresholds, labels, low_quality):
    num_gt, num_predictions = quality.shape
    matches, result = [], []
    for j in range(num_predictions):
        column = [quality[i, j].item() for i in range(num_gt)]
        best = max(range(num_gt), key=lambda i: column[i])
        label = labels[sum(column[best] >= t for t in thresholds)]
        if low_quality and any(column[i] == quality[i].max().item() for i in range(num_gt)):
            label = 1
        matches.append(best)
        result.append(label)
    return torch.tensor(matches), torch.tensor(result, dtype=torch.int8)


CASES = [([0.5], [0, 1]), ([0.3, 0.7], [0, -1, 1]), ([0.2, 0.4, 0.6], [-1, 0, -1, 1])]


@pytest.mark.parametrize(("thresholds", "labels"), CASES)
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("num_gt", [1, 4])
def test_matches(thresholds, labels, low_quality, num_gt):
    # Few values, so that there are ties, also with the thresholds.
    quality = torch.randint(0, 11, (num_gt, 60)).double() / 10
    quality[0] = 0
    matcher = Matcher(thresholds, labels, low_quality)
    matches, result = matcher(quality)
    wanted = match_in_loops(quality, thresholds, labels, low_quality)
    assert torch.equal(matches, wanted[0])
    assert torch.equal(result, wanted[1])
    assert (matches.dtype, result.dtype) == (torch.int64, torch.int8)


def test_nothing_to_match():
    matcher = Matcher([0.3, 0.7], [-1, 0, 1], allow_low_quality_matches=True)
    for shape in ((0, 5), (3, 0), (0, 0)):
        matches, labels = matcher(torch.zeros(shape))
        assert matches.tolist() == [0] * shape[1]
        assert labels.tolist() == [-1] * shape[1]


def test_arguments_stay_as_they_are():
    thresholds, labels = [0.3, 0.7], [0, -1, 1]
    matcher = Matcher(thresholds, labels)
    assert (thresholds, labels) == ([0.3, 0.7], [0, -1, 1])
    assert matcher.thresholds == [-float("inf"), 0.3, 0.7, float("inf")]
    assert matcher.labels == [0, -1, 1]


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [([0.7, 0.3], [0, 1, 1]), ([0.5], [0, 2]), ([0.5], [0, 1, 1]), ([0.0], [0, 1])],
)
def test_bad_arguments(thresholds, labels):
    with pytest.raises(AssertionError, match="got"):
        Matcher(thresholds, labels)


def test_bad_qualities():
    matcher = Matcher([0.5], [0, 1])
    with pytest.raises(AssertionError, match=r"got -0\.5"):
        matcher(torch.tensor([[0.1, -0.5]]))
    with pytest.raises(AssertionError, match=r"shape \[2\]"):
        matcher(torch.zeros(2))


def boxes(count):
    corners = torch.rand(count, 2) * 20
    return Boxes(torch.cat([corners, corners + 3 + torch.rand(count, 2) * 15], dim=1))


class HalfMatcher(Matcher):
    """Of a kind that knows of single images only."""

    def __call__(self, match_quality_matrix):
        assert match_quality_matrix.dim() == 2
        return super().__call__(match_quality_matrix / 2)


@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0], [2], []])
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("most_pairs", [2**26, 200])
@pytest.mark.parametrize("matcher_class", [Matcher, HalfMatcher])
def test_match_batch(counts, low_quality, most_pairs, matcher_class, monkeypatch):
    """The same as image by image, whatever is held at a time."""
    monkeypatch.setattr("detectron2.modeling._labelling._MOST_PAIRS", most_pairs)
    matcher = matcher_class([0.3, 0.6], [0, -1, 1], low_quality)
    gt_boxes = [boxes(count) for count in counts]
    anchors = boxes(40)
    labels, matches, padded = match_batch(pairwise_iou, matcher, gt_boxes, anchors)
    assert labels.shape == matches.shape == (len(counts), 40)
    assert labels.dtype == torch.int8
    for i, of_image in enumerate(gt_boxes):
        wanted_matches, wanted_labels = matcher(pairwise_iou(of_image, anchors))
        assert torch.equal(labels[i], wanted_labels)
        assert torch.equal(matches[i], wanted_matches)
        assert torch.equal(padded[i, : len(of_image)], of_image.tensor)
        assert not padded[i, len(of_image) :].any()


def test_match_batch_without_anchors():
    labels, matches, _ = match_batch(
        pairwise_iou, Matcher([0.5], [0, 1], True), [boxes(2), boxes(0)], boxes(0)
    )
    assert labels.shape == matches.shape == (2, 0)
