"""NMS within classes, plain and rotated, against a greedy loop in float64."""

import importlib
import warnings

import numpy as np
import pytest
import torch

from detectron2.layers import batched_nms, batched_nms_rotated, nms, nms_rotated

NUM_LVIS_CLASSES = 1203

# The package has a function of the module's name.
nms_module = importlib.import_module("detectron2.layers.nms")


def random_boxes(seed, count, extent=100.0, side=40.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * extent
    return torch.cat(
        [corners, corners + side * (0.2 + torch.rand(count, 2, generator=generator))], dim=1
    )


def random_scores(seed, count):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def random_classes(seed, count, num_classes):
    return torch.randint(num_classes, (count,), generator=torch.Generator().manual_seed(seed))


def rotated(boxes, quarter_turns=None):
    """The same regions as (cx, cy, w, h, angle), some with w and h exchanged by a quarter turn."""
    result = torch.zeros(len(boxes), 5, dtype=boxes.dtype)
    result[:, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
    result[:, 2:4] = boxes[:, 2:] - boxes[:, :2]
    if quarter_turns is not None:
        odd = quarter_turns % 2 == 1
        result[odd, 2:4] = result[odd][:, [3, 2]]
        result[:, 4] = 90.0 * quarter_turns
    return result


def iou_matrix(boxes):
    a = boxes.double().numpy()
    sides = np.minimum(a[:, None, 2:], a[:, 2:]) - np.maximum(a[:, None, :2], a[:, :2])
    inter = np.clip(sides, 0, None).prod(-1)
    area = (a[:, 2:] - a[:, :2]).prod(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(inter / (area[:, None] + area - inter))


@pytest.fixture(params=["of pairs", "of moved boxes"])
def each_algorithm(request, monkeypatch):
    """Both of what batched_nms chooses from by the number of boxes."""
    monkeypatch.setattr(nms_module, "_FEW", 10**6 if request.param == "of pairs" else -1)


def greedy(boxes, scores, classes, threshold):
    """Kept indices, by descending score, ties by index."""
    iou = iou_matrix(boxes)
    order = np.argsort(-scores.double().numpy(), kind="stable")
    classes = classes.numpy()
    suppressed = np.zeros(len(order), bool)
    keep = []
    for i in order:
        if not suppressed[i]:
            keep.append(int(i))
            suppressed |= (classes == classes[i]) & (iou[i] > threshold)
    return keep


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize("count", [0, 1, 2, 150, 2500])
@pytest.mark.parametrize("num_classes", [1, 7])
def test_batched_nms(count, num_classes):
    extent = 100.0 * max(count, 100) ** 0.5 / 10
    boxes, scores = random_boxes(1, count, extent), random_scores(2, count)
    classes = random_classes(3, count, num_classes)
    keep = batched_nms(boxes, scores, classes, 0.3)
    assert keep.dtype == torch.int64
    assert keep.tolist() == greedy(boxes, scores, classes, 0.3)


@pytest.mark.parametrize("count", [0, 1, 2, 150, 2500])
def test_batched_nms_rotated(count):
    extent = 100.0 * max(count, 100) ** 0.5 / 10
    boxes, scores = random_boxes(4, count, extent), random_scores(5, count)
    classes, turns = random_classes(6, count, 7), random_classes(7, count, 4)
    keep = batched_nms_rotated(rotated(boxes, turns), scores, classes, 0.3)
    assert keep.dtype == torch.int64
    assert keep.tolist() == greedy(boxes, scores, classes, 0.3)


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize("is_rotated", [False, True])
def test_many_classes_on_a_large_image_lose_no_precision(is_rotated):
    """3-pixel boxes in pairs, 1,203 classes on 8,000 pixels, where a float32 offset leaves a
    resolution of about a pixel."""
    count = 800
    boxes = random_boxes(8, count, 8000.0, side=3.0)
    boxes[1::2] = boxes[::2] + torch.rand(count // 2, 4, generator=torch.manual_seed(9)) - 0.5
    scores = random_scores(10, count)
    classes = random_classes(11, count // 2, NUM_LVIS_CLASSES).repeat_interleave(2)
    expected = greedy(boxes, scores, classes, 0.5)

    in_float32 = nms(boxes + (classes * (boxes.max() + 1))[:, None], scores, 0.5)
    assert in_float32.tolist() != expected  # the case tells a float32 offset from a right one

    if is_rotated:
        keep = batched_nms_rotated(rotated(boxes), scores, classes, 0.5)
    else:
        keep = batched_nms(boxes, scores, classes, 0.5)
    assert keep.tolist() == expected


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_and_boxes_may_have_any_floating_dtype(dtype):
    boxes = random_boxes(12, 60).to(dtype)
    # bfloat16 scores have many ties.
    scores, classes = random_scores(13, 60).to(dtype), random_classes(14, 60, 3)
    expected = greedy(boxes, scores, classes, 0.4)
    assert batched_nms(boxes, scores, classes, 0.4).tolist() == expected
    assert batched_nms(boxes.float(), scores, classes, 0.4).tolist() == expected
    assert batched_nms(boxes, scores.float(), classes, 0.4).tolist() == expected
    assert batched_nms_rotated(rotated(boxes.double()), scores, classes, 0.4).tolist() == expected


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize("count", [6, 2500])
def test_equal_scores_are_ordered_by_index(count):
    apart = torch.arange(count)[:, None] * 20.0 + torch.tensor([0.0, 0, 10, 10])
    scores = torch.ones(count)
    classes = torch.arange(count) % 3
    assert batched_nms(apart, scores, classes, 0.5).tolist() == list(range(count))
    assert batched_nms_rotated(rotated(apart), scores, classes, 0.5).tolist() == list(range(count))
    same = torch.zeros(count, 4) + torch.tensor([0.0, 0, 10, 10])
    assert batched_nms(same, scores, classes, 0.5).tolist() == [0, 1, 2]
    assert batched_nms_rotated(rotated(same), scores, classes, 0.5).tolist() == [0, 1, 2]


# Inner length of a 10-long box that makes an IoU of exactly the threshold.
@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize(("threshold", "length"), [(0.5, 5), (0.6, 6), (0.7, 7), (0.3, 3)])
def test_an_iou_that_equals_the_threshold_is_kept(threshold, length):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, length], [0, 0, 10, length + 0.01]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    assert batched_nms(boxes[:2], scores[:2], classes[:2], threshold).tolist() == [0, 1]
    assert batched_nms(boxes[[0, 2]], scores[:2], classes[:2], threshold).tolist() == [0]


def test_boxes_that_are_not_finite_leave_the_others_alone():
    boxes = random_boxes(15, 40)
    scores, classes = random_scores(16, 40), random_classes(17, 40, 3)
    expected = greedy(boxes, scores, classes, 0.3)
    assert len(expected) < 40
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = torch.cat([boxes, torch.full((1, 4), bad)])
        keep = batched_nms(
            broken, torch.cat([scores, torch.zeros(1)]), torch.cat([classes, classes[:1]]), 0.3
        )
        assert [i for i in keep.tolist() if i < 40] == expected
    turned = torch.cat([rotated(boxes), torch.full((1, 5), float("nan"))])
    keep = batched_nms_rotated(
        turned, torch.cat([scores, torch.zeros(1)]), torch.cat([classes, classes[:1]]), 0.3
    )
    assert [i for i in keep.tolist() if i < 40] == expected


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.parametrize("far", [1e15, 3e38, float("inf")])
@pytest.mark.parametrize("is_rotated", [False, True])
def test_a_stray_box_leaves_the_others_alone(far, is_rotated):
    """Classes a stray box apart, no digit of the others' coordinates would be left."""
    boxes = random_boxes(30, 60)
    scores, classes = random_scores(31, 60), random_classes(32, 60, 3)
    stray = torch.tensor([[0.0, 0, far, far], [-far, 0, 5, far]])
    expected = greedy(boxes, scores, classes, 0.3)
    assert len(expected) < 60
    inputs = (
        torch.cat([boxes, stray]),
        torch.cat([scores, torch.ones(2)]),
        torch.cat([classes, torch.tensor([2, 0])]),
    )
    if is_rotated:
        stray = torch.tensor([[0.0, 0, far, far, 45], [far, 0, 5, far, 0]])
        keep = batched_nms_rotated(torch.cat([rotated(boxes), stray]), *inputs[1:], 0.3)
    else:
        keep = batched_nms(*inputs, 0.3)
    assert [i for i in keep.tolist() if i < 60] == expected


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_upright_boxes_go_through_the_rotated_operator_alike(threshold):
    """What CUDA does, which compares the same bits as the CPU; with IoUs that are the threshold."""
    generator = torch.Generator().manual_seed(33)
    corners = torch.randint(40, (1500, 2), generator=generator)
    sides = torch.randint(-1, 11, (1500, 2), generator=generator)  # some without area
    boxes = torch.cat([corners, corners + sides], dim=1) * 0.1 + 4000
    for form in (boxes, boxes + random_boxes(34, 1500, 20.0), (boxes * 10).round()):
        scores = random_scores(35, 1500)
        expected = batched_nms(form, scores, torch.zeros(1500, dtype=torch.int64), threshold)
        keep = nms_module._upright_nms_on_cuda(
            form.double(),
            torch.full((1500,), 1e7, dtype=torch.float64),
            scores.double(),
            nms_module._float32_at_least(threshold),
        )
        assert keep.tolist() == expected.tolist()


def test_class_indices_may_be_any_integers():
    boxes, scores = random_boxes(18, 80), random_scores(19, 80)
    classes = random_classes(20, 80, 4)
    expected = greedy(boxes, scores, classes, 0.3)
    for names in ([-5, 0, 3, 100], [10**6, 7, -(10**6), 1]):
        renamed = torch.tensor(names)[classes]
        assert batched_nms(boxes, scores, renamed, 0.3).tolist() == expected
        assert batched_nms_rotated(rotated(boxes), scores, renamed.int(), 0.3).tolist() == expected


def test_diagonal_boxes_of_neighbouring_classes_do_not_meet():
    """A square turned by 45 degrees is wider than its side."""
    boxes = torch.tensor([[50.0, 50, 100, 100, 45], [50, 50, 100, 100, 45]])
    for classes in ([0, 1], [1, 0]):
        keep = batched_nms_rotated(boxes, torch.tensor([0.9, 0.8]), torch.tensor(classes), 0.0)
        assert keep.tolist() == [0, 1]


def test_nms_rotated_knows_regions_not_angles():
    boxes = torch.tensor(
        [[50.0, 50, 20, 10, 0], [50, 50, 10, 20, 90], [50, 50, 20, 10, 90], [50, 50, 20, 10, 180]]
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    # The third is a cross with the others: IoU 100 / 300.
    assert nms_rotated(boxes, scores, 0.5).tolist() == [0, 2]
    assert nms_rotated(boxes, scores, 0.3).tolist() == [0]


def test_wrong_widths_raise_with_the_shape():
    scores, classes = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(N, 4\), got \[2, 5\]"):
        batched_nms(torch.zeros(2, 5), scores, classes, 0.5)
    with pytest.raises(ValueError, match=r"\(N, 5\), got \[2, 4\]"):
        batched_nms_rotated(torch.zeros(2, 4), scores, classes, 0.5)


@pytest.mark.parametrize("function", [batched_nms, batched_nms_rotated])
def test_each_box_needs_a_score_and_a_class(function, each_algorithm):
    boxes = torch.rand(5, 4 if function is batched_nms else 5)
    scores, classes = torch.ones(5), torch.zeros(5, dtype=torch.int64)
    for count in (1, 4, 6):
        others = torch.ones(count), torch.zeros(count, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf"5 boxes .* got \[{count}\] and \[5\]"):
            function(boxes, others[0], classes, 0.5)
        with pytest.raises(ValueError, match=rf"5 boxes .* got \[5\] and \[{count}\]"):
            function(boxes, scores, others[1], 0.5)
    with pytest.raises(ValueError, match=r"shape \(5,\), got \[5, 1\]"):
        function(boxes, scores[:, None], classes, 0.5)


@pytest.mark.parametrize("function", [batched_nms, batched_nms_rotated])
@pytest.mark.parametrize("threshold", [float("inf"), float("nan")])
def test_no_iou_is_above_a_threshold_that_is_not_finite(function, threshold, each_algorithm):
    boxes = random_boxes(40, 20)
    boxes = boxes if function is batched_nms else rotated(boxes)
    keep = function(boxes, random_scores(41, 20), torch.zeros(20, dtype=torch.int64), threshold)
    assert sorted(keep.tolist()) == list(range(20))


def suppress(boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor):
    """At module level, since TorchScript reads the source."""
    return batched_nms(boxes, scores, classes, 0.3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripts_traces_and_graphs_adapt_to_the_number_of_boxes():
    small = random_boxes(21, 10), random_scores(22, 10), random_classes(23, 10, 3)
    functions = [
        torch.jit.script(suppress),
        torch.jit.trace(suppress, small),
        torch.compile(suppress, backend="eager", fullgraph=True, dynamic=True),
    ]
    for count in (10, 0, 1, 90, 2100):
        inputs = (
            random_boxes(24, count, 500.0),
            random_scores(25, count),
            random_classes(26, count, 5),
        )
        expected = greedy(*inputs, 0.3)
        for function in functions:
            assert function(*inputs).tolist() == expected


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.gpu
@pytest.mark.parametrize("count", [0, 1, 1000, 30000])
@pytest.mark.parametrize("num_classes", [5, NUM_LVIS_CLASSES])
def test_cuda_gives_what_the_cpu_gives(count, num_classes):
    boxes = random_boxes(27, count, 2000.0)
    scores = random_scores(28, count).half()  # with ties
    classes = random_classes(29, count, num_classes)
    for function, form in ((batched_nms, boxes), (batched_nms_rotated, rotated(boxes))):
        expected = function(form, scores, classes, 0.5)
        keep = function(form.cuda(), scores.cuda(), classes.cuda(), 0.5)
        assert keep.is_cuda
        assert keep.tolist() == expected.tolist()


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.gpu
@pytest.mark.parametrize(("threshold", "length"), [(0.5, 5), (0.6, 6), (0.7, 7), (0.3, 3)])
def test_cuda_keeps_an_iou_that_equals_the_threshold(threshold, length):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, length]], device="cuda")
    scores, classes = torch.tensor([0.9, 0.8]).cuda(), torch.zeros(2, dtype=torch.int64).cuda()
    assert batched_nms(boxes, scores, classes, threshold).tolist() == [0, 1]


@pytest.mark.usefixtures("each_algorithm")
@pytest.mark.gpu
def test_cuda_waits_for_the_device_once():
    """For the number of boxes that are kept."""
    boxes = random_boxes(36, 500).cuda()
    scores, classes = random_scores(37, 500).cuda(), random_classes(38, 500, 5).cuda()
    for function, form in (
        (batched_nms, boxes),
        (batched_nms_rotated, rotated(boxes.cpu()).cuda()),
    ):
        function(form, scores, classes, 0.5)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function(form, scores, classes, 0.5)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert len([w for w in caught if "synchroniz" in str(w.message)]) <= 1
