"""Results scaled to another size."""

import pytest
import torch

from detectron2.layers import paste_masks_in_image
from detectron2.modeling.postprocessing import (
    detector_postprocess,
    detector_postprocess_batch,
    sem_seg_postprocess,
)
from detectron2.structures import Boxes, Instances, ROIMasks, RotatedBoxes


def detections(tensor, size=(60, 80), **fields):
    return Instances(size, pred_boxes=Boxes(torch.tensor(tensor)), **fields)


BOXES = [[10.0, 6, 40, 30], [70, 50, 95, 75], [81, 61, 95, 75], [-5, -5, 8, 9]]


def test_boxes_and_keypoints():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    keypoints = torch.rand(4, 3, 3) * 60
    given = detections(BOXES, scores=scores, pred_keypoints=keypoints.clone())
    result = detector_postprocess(given, 120, 40)
    assert result.image_size == (120, 40)
    # The third lies outside.
    wanted = torch.tensor([[5.0, 12, 20, 60], [35, 100, 40, 120], [0, 0, 4, 18]])
    torch.testing.assert_close(result.pred_boxes.tensor, wanted)
    assert result.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    scaled = keypoints * torch.tensor([0.5, 2.0, 1.0])
    torch.testing.assert_close(result.pred_keypoints, scaled[[0, 1, 3]])


def test_proposals_and_what_has_no_boxes():
    proposals = Instances((60, 80), proposal_boxes=Boxes(torch.tensor(BOXES)))
    assert len(detector_postprocess(proposals, 60, 80).proposal_boxes) == 3
    with pytest.raises(AttributeError, match=r"got \['scores'\]"):
        detector_postprocess(Instances((60, 80), scores=torch.zeros(1)), 60, 80)


@pytest.mark.parametrize("wrapped", [False, True])
def test_masks(wrapped):
    masks = torch.rand(4, 1, 7, 7)
    given = detections(BOXES, pred_masks=ROIMasks(masks[:, 0]) if wrapped else masks)
    result = detector_postprocess(given, 90, 100, mask_threshold=0.4)
    boxes = result.pred_boxes.tensor
    wanted = paste_masks_in_image(masks[[0, 1, 3], 0], boxes, (90, 100), 0.4)
    assert result.pred_masks.shape == (3, 90, 100)
    assert result.pred_masks.dtype == torch.bool
    assert torch.equal(result.pred_masks, wanted.bool())


def test_rotated():
    tensor = torch.tensor([[40.0, 30, 20, 10, 30], [200, 30, 20, 10, 0]])
    given = Instances((60, 80), pred_boxes=RotatedBoxes(tensor.clone()))
    result = detector_postprocess(given, 120, 160)
    wanted = torch.tensor([[80.0, 60, 40, 20, 30]])
    torch.testing.assert_close(result.pred_boxes.tensor, wanted)


def test_batch():
    given = [BOXES, BOXES[:1], [[81.0, 61, 95, 75]]]
    sizes = [(60, 80), (30, 200), (10, 10)]
    together = detector_postprocess_batch([detections(x) for x in given], sizes)
    singly = [detector_postprocess(detections(x), *size) for x, size in zip(given, sizes)]  # noqa: B905
    for a, b in zip(together, singly, strict=True):
        assert a.image_size == b.image_size
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert [len(x) for x in together] == [3, 1, 0]
    assert detector_postprocess_batch([], []) == []


def test_empty():
    given = Instances((60, 80), pred_boxes=Boxes(torch.zeros(0, 4)))
    given.pred_masks = torch.zeros(0, 1, 28, 28)
    result = detector_postprocess(given, 30, 40)
    assert result.pred_masks.shape == (0, 30, 40)
    assert len(result) == 0


def test_semantic():
    logits = torch.randn(3, 20, 30)
    result = sem_seg_postprocess(logits, (15, 25), 15, 25)
    assert torch.equal(result, logits[:, :15, :25])
    # Nothing of the padding, which is far from the rest.
    logits[:, 15:] = logits[:, :, 25:] = 1e6
    scaled = sem_seg_postprocess(logits, (15, 25), 40, 70)
    assert scaled.shape == (3, 40, 70)
    assert scaled.abs().max() < 100
