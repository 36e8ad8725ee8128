"""Inference by CUDA graphs gives what it gives without them."""

import copy
import gc
import pickle
import threading
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import _graph_lanes, _graph_replay
from detectron2.modeling._cuda_graph import CudaGraph
from detectron2.modeling._graph_lanes import GraphLane
from detectron2.modeling._graph_replay import EAGER_CALLS, MOST_GRAPHS

from .replayed_models import KINDS, as_tensors, make_inputs, make_model

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def deterministic(monkeypatch):
    """Some transposed convolutions add in any order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@torch.no_grad()
def call(model, inputs):
    return as_tensors(model(inputs))


def eagerly(model, inputs):
    """Results without graphs, of the same weights."""
    enabled, model.graph_replay.enabled = model.graph_replay.enabled, False
    try:
        return call(model, inputs)
    finally:
        model.graph_replay.enabled = enabled


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def warm_up(model, inputs=None, calls=EAGER_CALLS + 1):
    inputs = make_inputs() if inputs is None else inputs
    for _ in range(calls):
        call(model, inputs)


def replays(model, inputs):
    """How often graphs are replayed in a call."""
    graphs = [x.graph for x in model.graph_replay._graphs.values()]
    counts = []
    for graph in graphs:
        replay = type(graph).replay
        graph.replay = lambda x, g=graph, r=replay: (counts.append(1), r(g, x))
    try:
        results = call(model, inputs)
    finally:
        for graph in graphs:
            del graph.replay
    return len(counts), results


def run_beside_proposals(monkeypatch, model, function):
    """Call a function in another thread whenever proposals are computed, also for a recording."""
    original = type(model.proposal_generator).propose_on_device

    def propose(self, features, limits):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
        return original(self, features, limits)

    monkeypatch.setattr(type(model.proposal_generator), "propose_on_device", propose)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return make_model(request.param, "cuda")


@pytest.mark.parametrize("count", [1, 2])
def test_same_results(model, count):
    model.graph_replay.release()
    inputs = [make_inputs(seed, count=count) for seed in range(4)]
    expected = [eagerly(model, x) for x in inputs]
    assert any(x.numel() > 0 for x in expected[0])
    warm_up(model, inputs[0])
    assert len(model.graph_replay) == 1
    for x, results in zip(inputs, expected, strict=True):
        number, actual = replays(model, x)
        assert number == 1
        assert_same(actual, results)


def test_results_stay(model):
    inputs = [make_inputs(seed) for seed in range(3)]
    warm_up(model, inputs[0])
    first = call(model, inputs[0])
    copies = [x.clone() for x in first]
    for x in inputs[1:]:
        call(model, x)
    assert_same(first, copies)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(model, dtype):
    model.graph_replay.release()
    inputs = [make_inputs(seed) for seed in range(3)]
    with torch.autocast("cuda", dtype):
        in_half = [eagerly(model, x) for x in inputs]
    in_single = [eagerly(model, x) for x in inputs]
    for _ in range(2 * EAGER_CALLS + 2):
        call(model, inputs[0])
        with torch.autocast("cuda", dtype):
            call(model, inputs[0])
    assert len(model.graph_replay) == 2
    for x, half, single in zip(inputs, in_half, in_single, strict=True):
        assert_same(call(model, x), single)
        with torch.autocast("cuda", dtype):
            assert_same(call(model, x), half)
    with torch.autocast("cuda", dtype):  # In one context, which keeps what it has cast.
        model.graph_replay.release()
        warm_up(model, inputs[0])
    torch.rand(10**7, device="cuda").mul_(torch.nan)  # Into memory that is free by now.
    with torch.autocast("cuda", dtype):
        number, actual = replays(model, inputs[1])
        assert number == 1
        assert_same(actual, in_half[1])


def change_in_place(model):
    with torch.no_grad():
        for x in model.parameters():
            x.mul_(1.1)
        for x in model.buffers():
            if x.is_floating_point() and x.dim() == 1:
                x.add_(0.05)
    return 1  # replays


def change_through_data(model):
    for x in model.parameters():
        x.data.mul_(1.1)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.data.add_(0.1)
            module.eval()
    return 1


def replace_data(model):
    for x in model.parameters():
        x.data = x.data * 1.1
    return 0


def load(model):
    state = {k: v * 1.1 for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return 1


def load_by_assignment(model):
    state = {k: v * 1.1 for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return 0


def replace_module(model):
    old = model.backbone.bottom_up.res3
    model.backbone.bottom_up.res3 = copy.deepcopy(old)
    with torch.no_grad():
        for x in model.backbone.bottom_up.res3.parameters():
            x.mul_(1.1)
    return 0


def move(model):
    model.to(memory_format=torch.channels_last)
    return 0


CHANGES = [
    change_in_place,
    change_through_data,
    replace_data,
    load,
    load_by_assignment,
    replace_module,
    move,
]


@pytest.mark.parametrize("kind", ["mask", "retinanet"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights(kind, change):
    model = make_model(kind, "cuda")
    inputs = make_inputs()
    warm_up(model)
    before = call(model, inputs)
    expected_replays = change(model)
    gc.collect()
    torch.full((10**7,), torch.nan, device="cuda")
    expected = eagerly(model, inputs)
    if change is not move:
        assert not all(torch.equal(a, b) for a, b in zip(before, expected, strict=True))
    assert_same(call(model, inputs), expected)
    if expected_replays:
        number, actual = replays(model, inputs)
        assert number == 1
        assert_same(actual, expected)
    for _ in range(EAGER_CALLS + 3):
        assert_same(call(model, inputs), expected)
    assert len(model.graph_replay) == 1


def test_changed_settings():
    model = make_model("mask", "cuda")
    rpn, inputs = model.proposal_generator, make_inputs()

    def change(name):
        if name == "nms_thresh":
            rpn.nms_thresh = 0.2
        elif name == "post_nms_topk":
            rpn.post_nms_topk[False] = 7
        elif name == "weights":
            rpn.box2box_transform.weights = (2.0, 2.0, 2.0, 2.0)
        else:
            model.backbone.bottom_up.stem.conv1.stride = (4, 4)
            model.backbone.bottom_up.stem.conv1.padding = (5, 5)

    for name in ("nms_thresh", "post_nms_topk", "weights", "stride"):
        warm_up(model, calls=8)
        assert replays(model, inputs)[0] == 1
        before = call(model, inputs)
        try:
            change(name)
            expected = eagerly(model, inputs)
        except Exception:
            continue
        assert len(before[0]) != len(expected[0]) or not torch.equal(before[0], expected[0]), name
        assert_same(call(model, inputs), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("test_score_thresh", 0.9),
        ("test_topk_candidates", 3),
        ("test_nms_thresh", 0.01),
        ("max_detections_per_image", 2),
    ],
)
def test_changed_settings_of_dense_detector(name, value):
    model, inputs = make_model("retinanet", "cuda"), make_inputs()
    warm_up(model)
    before = call(model, inputs)
    setattr(model, name, value)
    expected = eagerly(model, inputs)
    assert len(before[0]) != len(expected[0]) or not torch.equal(before[0], expected[0])
    assert_same(call(model, inputs), expected)
    warm_up(model, calls=8)
    number, actual = replays(model, inputs)
    assert number == 1
    assert_same(actual, expected)


@pytest.mark.parametrize("of", ["backbone.bottom_up.res4", "roi_heads.box_head", "global"])
def test_hooks(of):
    model, inputs = make_model("mask", "cuda"), make_inputs()
    warm_up(model)
    seen = []

    def hook(module, args, output):
        seen.append(module)

    if of == "global":
        handle = nn.modules.module.register_module_forward_hook(hook)
    else:
        handle = model.get_submodule(of).register_forward_hook(hook)
    try:
        for i in range(6):
            call(model, inputs)
            assert len(seen) > i
    finally:
        handle.remove()
    assert len(model.graph_replay) == 0
    warm_up(model, calls=80)
    assert len(model.graph_replay) == 1


def test_modes():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        operators = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.operators += 1
            return func(*args, **(kwargs or {}))

    model, inputs = make_model("retinanet", "cuda"), make_inputs()
    warm_up(model)
    with Count() as count:
        assert replays(model, inputs)[0] == 0
    assert count.operators > 100
    assert replays(model, inputs)[0] == 1
    model(inputs)  # With gradients.


def test_alternating_sizes():
    model = make_model("mask", "cuda")
    sizes = [(96, 128), (128, 96), (64, 64), (90, 120), (128, 128), (64, 160), (160, 64)]
    inputs = [make_inputs(i, size) for i, size in enumerate(sizes)]
    expected = [eagerly(model, x) for x in inputs]
    for _ in range(EAGER_CALLS + 3):
        for x, results in zip(inputs, expected, strict=True):
            assert_same(call(model, x), results)
    assert len(model.graph_replay) == MOST_GRAPHS


def test_numerics_are_told_apart():
    model, inputs = make_model("mask", "cuda"), make_inputs()
    was = torch.backends.cudnn.allow_tf32
    try:
        results = {}
        for tf32 in (True, False):
            torch.backends.cudnn.allow_tf32 = tf32
            results[tf32] = eagerly(model, inputs)
            warm_up(model)
        for tf32 in (True, False):
            torch.backends.cudnn.allow_tf32 = tf32
            number, actual = replays(model, inputs)
            assert number == 1
            assert_same(actual, results[tf32])
    finally:
        torch.backends.cudnn.allow_tf32 = was


def test_threads_and_streams():
    model = make_model("retinanet", "cuda")
    inputs = [make_inputs(seed) for seed in range(2)]
    expected = [eagerly(model, x) for x in inputs]
    torch.cuda.synchronize()
    wrong = []

    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(30):
                actual = call(model, inputs[i])
                if not all(torch.equal(a, b) for a, b in zip(actual, expected[i], strict=True)):
                    wrong.append(i)

    def work_on_default_stream(i):
        for _ in range(30):
            actual = call(model, inputs[i])
            if not all(torch.equal(a, b) for a, b in zip(actual, expected[i], strict=True)):
                wrong.append(i)

    for target in (work, work_on_default_stream):
        threads = [threading.Thread(target=target, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(model.graph_replay) == 4


def test_inference_mode():
    model, inputs = make_model("mask", "cuda"), make_inputs()
    expected = eagerly(model, inputs)
    with torch.inference_mode():
        for _ in range(6):
            actual = as_tensors(model(inputs))
    assert len(model.graph_replay) == 1
    assert_same(actual, expected)
    warm_up(model)
    assert_same(call(model, inputs), expected)


def test_copies_and_pickles_do_not_see_graphs():
    model, inputs = make_model("retinanet", "cuda"), make_inputs()
    names = set(model.state_dict())
    warm_up(model)
    assert set(model.state_dict()) == names
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(copied.graph_replay) == 0
        assert_same(call(copied, inputs), call(model, inputs))
        for _ in range(6):
            assert_same(call(copied, inputs), call(model, inputs))


def test_released():
    model, inputs = make_model("mask", "cuda"), make_inputs(size=(640, 640))
    call(model, inputs)
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated()
    warm_up(model, inputs)
    assert torch.cuda.memory_allocated() > before
    for release in (model.graph_replay.release, lambda: model.train().eval(), model.cuda):
        release()
        assert len(model.graph_replay) == 0
        assert torch.cuda.memory_allocated() <= before + 2**16
        torch.cuda.empty_cache()
        warm_up(model, inputs)
        assert len(model.graph_replay) == 1


def test_graphs_share_memory():
    model = make_model("mask", "cuda")

    def size_of_pool():
        (lane,) = model.graph_replay._lanes.values()
        return sum(x["total_size"] for x in torch.cuda.memory_snapshot(lane.pool))

    warm_up(model, make_inputs(size=(640, 640)))
    of_one = size_of_pool()
    for size in ((640, 608), (608, 640), (608, 608)):
        warm_up(model, make_inputs(size=size))
    assert len(model.graph_replay) == 4
    assert size_of_pool() < 2 * of_one


def test_failure_leaves_an_eager_model(monkeypatch, caplog):
    model, inputs = make_model("mask", "cuda"), make_inputs()
    warm_up(model, make_inputs(size=(64, 64)))  # A graph in the same memory stays.
    expected_small = eagerly(model, make_inputs(size=(64, 64)))
    expected = eagerly(model, inputs)
    original = type(model.proposal_generator).propose_on_device

    def waiting(self, features, limits):
        features["p2"].sum().item()
        return original(self, features, limits)

    monkeypatch.setattr(type(model.proposal_generator), "propose_on_device", waiting)
    for _ in range(8):
        assert_same(call(model, inputs), expected)
    assert sum("CUDA graph" in x.message for x in caplog.records) == 1
    assert len(model.graph_replay) == 1
    number, actual = replays(model, make_inputs(size=(64, 64)))
    assert number == 1
    assert_same(actual, expected_small)
    monkeypatch.undo()
    torch.cuda.empty_cache()
    assert torch.rand(3, device="cuda").unique().numel() == 3
    warm_up(model, make_inputs(size=(64, 96)))
    assert len(model.graph_replay) == 2
    for size in ((64, 64), (64, 96)):
        assert_same(call(model, make_inputs(size=size)), eagerly(model, make_inputs(size=size)))
    torch.cuda.synchronize()


def test_large_batches_are_left_alone(monkeypatch):
    monkeypatch.setattr(_graph_replay, "MOST_PIXELS", 96 * 128)
    model = make_model("retinanet", "cuda")
    warm_up(model, make_inputs(count=2), 6)
    assert len(model.graph_replay) == 0
    warm_up(model)
    assert len(model.graph_replay) == 1


def test_changed_anchors():
    """Those that the generator keeps are read by the graph."""
    model, inputs = make_model("retinanet", "cuda"), make_inputs()
    warm_up(model)
    features = [torch.zeros(1, 1, 128 // s, 128 // s, device="cuda") for s in (8, 16, 32, 64, 128)]
    expected = eagerly(model, inputs)
    for boxes in model.anchor_generator(features):
        boxes.scale(2, 2)
    assert_same(call(model, inputs), expected)


def test_algorithms_chosen_by_time(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    model, inputs = make_model("mask", "cuda"), make_inputs()
    warm_up(model)
    number, actual = replays(model, inputs)
    assert number == 1
    for a, b in zip(actual, eagerly(model, inputs), strict=True):
        assert a.shape == b.shape


def test_pools_of_others_are_left_alone():
    """Of what lies in them, the graph could not know when it is someone else's."""
    model, inputs = make_model("mask", "cuda"), make_inputs()
    expected = eagerly(model, inputs)
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        for _ in range(EAGER_CALLS + 3):
            assert_same(call(model, inputs), expected)
    assert len(model.graph_replay) == 0
    del pool
    model.graph_replay.release()
    warm_up(model)
    assert len(model.graph_replay) == 1
    assert_same(call(model, inputs), expected)


def test_random_numbers_are_not_touched():
    model, inputs = make_model("mask", "cuda"), make_inputs()
    torch.cuda.manual_seed(3)
    expected = [torch.rand(5, device="cuda") for _ in range(5)]
    torch.cuda.manual_seed(3)
    actual = [torch.rand(5, device="cuda")]
    for calls in (EAGER_CALLS - 1, 1, 1, 2):
        warm_up(model, inputs, calls)
        actual.append(torch.rand(5, device="cuda"))
    assert len(model.graph_replay) == 1
    assert_same(actual, expected)


def test_random_numbers_of_others_while_recording(monkeypatch):
    model, inputs = make_model("mask", "cuda"), make_inputs()
    drawn = []

    def draw():
        drawn.append(torch.rand(3, device="cuda").unique().numel())

    run_beside_proposals(monkeypatch, model, draw)
    warm_up(model, inputs)
    assert len(model.graph_replay) == 1
    assert drawn == [3] * (EAGER_CALLS + 1)


def test_random_numbers_within(monkeypatch):
    """A graph has none to draw; the model goes on without."""
    model, inputs = make_model("mask", "cuda"), make_inputs()
    original = type(model.proposal_generator).propose_on_device

    def propose(self, features, limits):
        torch.rand(3, device=limits.device)
        return original(self, features, limits)

    monkeypatch.setattr(type(model.proposal_generator), "propose_on_device", propose)
    expected = eagerly(model, inputs)
    for _ in range(EAGER_CALLS + 3):
        assert_same(call(model, inputs), expected)
    assert len(model.graph_replay) == 0
    assert torch.rand(3, device="cuda").unique().numel() == 3


def current_device():
    return torch.device("cuda", torch.cuda.current_device())


def test_streams_are_nobody_elses(monkeypatch):
    monkeypatch.setattr(_graph_lanes, "_unused", defaultdict(list))
    pool = {torch.cuda.Stream().cuda_stream for _ in range(64)}
    lanes = [GraphLane(current_device()) for _ in range(3)]
    own = {x.side_stream.cuda_stream for x in lanes}
    assert len(own) == 3
    assert not own & pool
    del lanes
    assert GraphLane(current_device()).side_stream.cuda_stream in own


def test_others_launch_while_recording(monkeypatch):
    """On whichever of PyTorch's streams: nothing of it becomes part of the graph."""
    model, inputs = make_model("mask", "cuda"), make_inputs()
    counts = [torch.zeros(1, device="cuda") for _ in range(64)]
    torch.cuda.synchronize()

    def count():
        for x in counts:
            with torch.cuda.stream(torch.cuda.Stream()):
                x.add_(1)

    run_beside_proposals(monkeypatch, model, count)
    warm_up(model, inputs, EAGER_CALLS)
    assert len(model.graph_replay) == 1
    torch.cuda.synchronize()
    assert torch.cat(counts).tolist() == [EAGER_CALLS + 1] * 64
    assert_same(call(model, inputs), eagerly(model, inputs))


@pytest.mark.parametrize("wait", [torch.cuda.synchronize, torch.accelerator.synchronize])
def test_others_wait_for_the_device_while_recording(wait):
    model, inputs = make_model("mask", "cuda"), make_inputs()
    expected = eagerly(model, inputs)
    errors, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            try:
                wait()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            model.graph_replay.release()
            for _ in range(100 * EAGER_CALLS):  # It may have to be put off.
                assert_same(call(model, inputs), expected)
                if len(model.graph_replay) > 0:
                    break
            assert len(model.graph_replay) == 1
            assert_same(call(model, inputs), expected)
    finally:
        stop.set()
        thread.join()
    assert errors == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_matrix_products(dtype):
    """What cuBLAS works in is neither given to others, nor left behind again and again."""
    weight = torch.randn(512, 512, device="cuda", dtype=dtype)

    def multiply(x):
        return F.linear(x, weight, weight[0]) @ weight, []

    def check(*graphs):
        gc.collect()
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # Others do so, too.
        torch.cuda.empty_cache()
        others = [torch.full((2**20,), 3.0, device="cuda") for _ in range(64)]
        for graph in graphs * 2:
            graph.replay(inputs)
            torch.testing.assert_close(graph.outputs, expected, rtol=0, atol=0)
        assert all((x == 3).all() for x in others)

    inputs = [torch.randn(64, 512, device="cuda", dtype=dtype)]
    expected = multiply(*inputs)[0]
    lane = GraphLane(current_device())
    CudaGraph(multiply, inputs, GraphLane(current_device()))  # It goes, and its pool.
    graph = CudaGraph(multiply, inputs, lane)
    check(graph, CudaGraph(multiply, inputs, lane))

    allocated = []
    for _ in range(8):
        CudaGraph(multiply, inputs, GraphLane(current_device()))
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    assert allocated[-1] <= allocated[1] + 2**16
    lanes = [GraphLane(current_device()) for _ in range(2)]
    graphs = [CudaGraph(multiply, inputs, x) for x in (*lanes, *lanes)]
    check(*graphs)
    graphs.append(CudaGraph(multiply, inputs, lanes[0]))
    check(*graphs)
    del lanes, graphs[0]
    check(CudaGraph(multiply, inputs, GraphLane(current_device())), *graphs)


@pytest.mark.parametrize("is_cached", [True, False])
def test_anchors_in_graphs_of_others(is_cached):
    model = make_model("retinanet", "cuda")

    def make(side):
        maps = [torch.zeros(1, 1, side // x, side // x, device="cuda") for x in strides]
        return [x.tensor for x in model.anchor_generator(maps)]

    strides = model.anchor_generator.strides
    expected = [x.clone() for x in make(256)]
    if not is_cached:
        model.anchor_generator._cache.__init__()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = make(256)
    assert_same(make(256), expected)  # Before anything is replayed.
    for i in range(20):
        make(384 + 128 * i)
    gc.collect()
    torch.full((10**6,), torch.nan, device="cuda")
    graph.replay()
    assert_same(recorded, expected)


def test_memory_runs_out(monkeypatch):
    """Where it would do without graphs, it does."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model, large = make_model("mask", "cuda"), make_inputs(size=(1600, 1600), count=2)
    expected = eagerly(model, large)
    total = torch.cuda.get_device_properties(current_device()).total_memory
    succeeded = 0
    try:
        # With too little memory it fails in any case, with enough it need not give up graphs. What
        # is between depends on cuDNN, which chooses its algorithms by what there is.
        for limit in range(500, 3000, 100):
            torch.cuda.set_per_process_memory_fraction(1.0)
            model.graph_replay.release()
            for size in ((1600, 1600), (1600, 1536), (1536, 1600), (1536, 1536)):
                warm_up(model, make_inputs(size=size))
            assert len(model.graph_replay) == MOST_GRAPHS
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(limit * 2**20 / total)
            try:
                actual = call(model, large)
            except torch.OutOfMemoryError:
                assert len(model.graph_replay) == 0
                continue
            assert [x.shape for x in actual] == [x.shape for x in expected]
            for a, b in zip(actual, expected, strict=True):
                if a.is_floating_point():
                    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)
            if len(model.graph_replay) > 0:
                break
            succeeded += 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert succeeded > 0
