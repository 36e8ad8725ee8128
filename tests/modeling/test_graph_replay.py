"""When functions of a model are recorded, replayed and dropped, with graphs of plain Python."""

import copy
import pickle
import threading
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import _cuda_graph, _graph_lanes, _graph_replay
from detectron2.modeling._cuda_graph import NotNowError
from detectron2.modeling._graph_lanes import GraphLane
from detectron2.modeling._graph_replay import (
    EAGER_CALLS,
    IDLE_CALLS,
    MOST_GRAPHS,
    MOST_PIXELS,
    GraphReplay,
    numerics,
)
from detectron2.modeling._module_watch import CannotWatchError, ModuleWatch
from detectron2.modeling.box_regression import Box2BoxTransform

from .replayed_models import KINDS, as_tensors, make_inputs, make_model


class FakeGraph:
    """Calls the function again, with inputs and outputs that stay where they are."""

    made = replayed = 0

    def __init__(self, function, inputs, lane):
        type(self).made += 1
        self.lane = lane
        self.function = function
        self.inputs = [torch.zeros_like(x) for x in inputs]
        self.outputs, self.read = function(*self.inputs)

    def replay(self, inputs):
        type(self).replayed += 1
        for own, x in zip(self.inputs, inputs, strict=True):
            own.copy_(x)
        self.outputs.copy_(self.function(*self.inputs)[0])


class FakeLane:
    def __init__(self, device):
        self.device = device


class Model:
    """A function of two modules and a setting, which calls a `GraphReplay`."""

    def __init__(self, record=FakeGraph):
        FakeGraph.made = 0
        self.graphs = GraphReplay(record=record, lane=FakeLane)
        self.conv = Conv2d(3, 4, 3, bias=False, norm=FrozenBatchNorm2d(4), activation=F.relu)
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
        self.conv.eval()
        self.conv.topk = {True: 3, False: [2]}
        self.consumer = nn.Linear(4, 4)
        self.settings = {"factor": 1.5, "levels": ["p2"]}
        self.kept = torch.ones(1)

    def compute(self, x):
        y = self.head(self.conv(x)) * self.settings["factor"] * self.kept
        return y, [self.kept]

    @torch.no_grad()
    def __call__(self, x):
        """The result, and whether it was replayed or computed by the caller."""
        watched = [self.conv, self.head], [self.consumer], self.settings
        replayed = FakeGraph.replayed
        result = self.graphs(self.compute, [x], *watched)
        if result is None:
            return self.compute(x)[0], "refused"
        return result, "eager" if FakeGraph.replayed == replayed else "replayed"


def image(seed=0, size=(8, 8)):
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def assert_replays(model, x=None, calls=1):
    x = image() if x is None else x
    for _ in range(calls):
        result, _ = model(x)
    made = FakeGraph.made
    result, how = model(x)
    assert how == "replayed"
    assert FakeGraph.made == made
    torch.testing.assert_close(result, model.compute(x)[0], rtol=0, atol=0)


def warm(model):
    assert_replays(model, calls=EAGER_CALLS + 1)


def test_replayed_from_the_fourth_call_on():
    model = Model()
    for made in (0, 0, 1):
        result, how = model(image())
        assert how == "eager"
        torch.testing.assert_close(result, model.compute(image())[0], rtol=0, atol=0)
        assert FakeGraph.made == made
    assert model(image())[1] == "replayed"
    for seed in range(3):
        assert_replays(model, image(seed))
    assert FakeGraph.made == 1


def test_can_be_switched_off():
    model = make_model("retinanet", "cpu")
    assert model.graph_replay.enabled
    model.graph_replay.enabled = False
    assert not copy.deepcopy(model).graph_replay.enabled
    assert not model.graph_replay.accepts(torch.zeros(1, 3, 8, 8))


class OnCuda(torch.Tensor):
    is_cuda = True


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_accepts(monkeypatch):
    graphs = GraphReplay()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    x = image()
    with torch.no_grad():
        assert graphs.accepts(x)
        side = int(MOST_PIXELS**0.5)
        assert graphs.accepts(torch.empty(1, 3, side, side, device="meta"))
        assert not graphs.accepts(torch.empty(2, 3, side, side, device="meta"))
        assert not graphs.accepts(nn.Parameter(x))
        with torch.enable_grad():
            assert not graphs.accepts(x)
        with TorchDispatchMode():
            assert not graphs.accepts(x)
        with torch.device("cpu"):  # a mode of functions
            assert not graphs.accepts(x)
        seen = []
        torch.func.vmap(lambda y: (seen.append(graphs.accepts(x)), y)[1])(torch.ones(2))
        torch.jit.trace(
            lambda y: (seen.append(graphs.accepts(x)), y + 1)[1], torch.ones(2), check_trace=False
        )
        assert seen == [False, False]
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert not graphs.accepts(x)
        monkeypatch.undo()
        assert not graphs.accepts(x)


def in_place(model):
    with torch.no_grad():
        model.conv.weight.mul_(2)
        model.conv.norm.bias.add_(1)
        model.head[2].running_mean.add_(1)


def through_data(model):
    model.conv.weight.data.mul_(2)


def load(model):
    model.head.load_state_dict({k: v * 2 for k, v in model.head.state_dict().items()})


def eval_again(model):
    model.conv.eval()
    model.head.eval()


@pytest.mark.parametrize("change", [in_place, through_data, load, eval_again])
def test_numbers_may_change(change):
    model = Model()
    warm(model)
    change(model)
    assert_replays(model)
    assert FakeGraph.made == 1


def replace_parameter(model):
    model.head[0].weight = nn.Parameter(model.head[0].weight * 2)


def replace_data(model):
    model.head[0].weight.data = model.head[0].weight.data * 2


def change_form(model):
    weight = model.head[0].weight
    weight.data = weight.data[..., 0].transpose(0, 1)[..., None]


def replace_buffer(model):
    model.conv.norm.bias = model.conv.norm.bias + 1


def load_by_assignment(model):
    state = {k: v * 2 for k, v in model.head.state_dict().items()}
    model.head.load_state_dict(state, assign=True)


def convert(model):
    model.conv.to(torch.float64).to(torch.float32)


def replace_module(model):
    model.head[0] = nn.Conv2d(4, 4, 1).eval()


def replace_root(model):
    model.head = copy.deepcopy(model.head)


def add_module(model):
    model.head.append(nn.Sigmoid().eval())


def replace_norm(model):
    model.conv.norm = None


def change_setting(model):
    model.settings["factor"] = 3


def change_setting_within(model):
    model.settings["levels"].append("p3")


def change_attribute(model):
    model.head[2].momentum = 0.3


def change_dict_of_module(model):
    model.conv.topk[True] = 2


def change_list_within_dict_of_module(model):
    model.conv.topk[False][0] = 1


def change_eps(model):
    model.conv.norm.eps = 0.5


def change_eps_of_batch_norm(model):
    model.head[2].eps = 0.5


def change_activation(model):
    model.conv.activation = F.gelu


def write_to_kept(model):
    model.kept.fill_(2)


def override_forward(model):
    model.head[1].forward = F.gelu


def train_a_part(model):
    model.head[2].train()


def listen(model):
    model.head[0].register_forward_hook(lambda *_: None)


def listen_before(model):
    model.conv.norm.register_forward_pre_hook(lambda *_: None)


def listen_to_consumer(model):
    model.consumer.register_forward_hook(lambda *_: None)


def replace_consumer(model):
    model.consumer = nn.Linear(4, 4)


REFUSED = [override_forward, train_a_part, listen, listen_before, listen_to_consumer]


@pytest.mark.parametrize(
    "change",
    [
        replace_parameter,
        replace_data,
        change_form,
        replace_buffer,
        load_by_assignment,
        convert,
        replace_module,
        replace_root,
        add_module,
        replace_norm,
        change_setting,
        change_setting_within,
        change_attribute,
        change_dict_of_module,
        change_list_within_dict_of_module,
        change_eps,
        change_eps_of_batch_norm,
        change_activation,
        write_to_kept,
        replace_consumer,
        *REFUSED,
    ],
)
def test_all_else_drops_the_graph(change):
    model = Model()
    warm(model)
    change(model)
    result, how = model(image())
    assert how == "refused"
    torch.testing.assert_close(result, model.compute(image())[0], rtol=0, atol=0)
    assert len(model.graphs) == 0
    for _ in range(EAGER_CALLS + 2):
        model(image())
    assert len(model.graphs) == (0 if change in REFUSED else 1)


def test_changed_class(monkeypatch):
    model = Model()
    warm(model)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: -x)
    assert model(image())[1] == "refused"


def test_global_hooks():
    model = Model()
    warm(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert model(image())[1] == "refused"
    finally:
        handle.remove()


class Unknown(nn.Module):
    def forward(self, x):
        return x


def parametrized():
    conv = nn.Conv2d(3, 3, 1)
    nn.utils.parametrize.register_parametrization(conv, "weight", Unknown())
    return conv


def with_buffer(x):
    module = nn.Identity()
    module.register_buffer("x", x)
    return module


def with_attribute(x):
    module = nn.Identity()
    module.x = x
    return module


@pytest.mark.parametrize(
    "make",
    [
        Unknown,
        parametrized,
        lambda: Conv2d(3, 3, 1, activation=lambda x: x),
        lambda: nn.utils.weight_norm(nn.Conv2d(3, 3, 1)),
        lambda: with_buffer(torch.zeros(3, device="meta")),
        lambda: with_buffer(torch.zeros(3).to_sparse()),
        lambda: with_buffer(torch.zeros(3).as_subclass(OnCuda)),
        lambda: with_attribute([torch.zeros(3, device="meta")]),
        lambda: with_attribute(object()),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_cannot_be_watched(make):
    module = nn.Sequential(make()).eval()
    with pytest.raises(CannotWatchError):
        ModuleWatch([module], [], {}, torch.device("cpu"))


def test_objects_that_hold_numbers():
    module = with_attribute(Box2BoxTransform((1.0, 1.0, 1.0, 1.0))).eval()
    watch = ModuleWatch([module], [], {}, torch.device("cpu"))
    assert watch.holds([module], [], {})
    module.x.weights = (2.0, 2.0, 2.0, 2.0)
    assert not watch.holds([module], [], {})


@pytest.mark.parametrize("kind", KINDS)
def test_models_can_be_watched(kind):
    model = make_model(kind, "cpu")
    calls = []

    class Graphs(GraphReplay):
        def accepts(self, batch):
            return True

        def __call__(self, function, inputs, *args, **kwargs):
            calls.append(function.__name__)
            result = super().__call__(function, inputs, *args, **kwargs)
            assert result is not None
            return result

    with torch.no_grad():
        (expected,) = model(make_inputs())
        model._graph_replay = Graphs(record=None)
        (actual,) = model(make_inputs())
    assert len(calls) == 1
    torch.testing.assert_close(actual["instances"].scores, expected["instances"].scores)
    torch.testing.assert_close(
        actual["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor
    )


def test_forms_have_graphs_of_their_own():
    model = Model()
    forms = [image(), image(size=(8, 9)), image().to(memory_format=torch.channels_last)]
    for x in forms:
        assert_replays(model, x, EAGER_CALLS + 1)
    assert len(model.graphs) == len(forms)


def test_numerics():
    before = numerics("cpu")
    assert numerics("cpu") == before
    with torch.autocast("cpu", torch.bfloat16):
        assert numerics("cpu") != before
    with torch.inference_mode():
        assert numerics("cpu") != before
    for holder, name in (
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "deterministic"),
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_fp16_accumulation"),
    ):
        value = getattr(holder, name)
        setattr(holder, name, not value)
        try:
            assert numerics("cpu") != before, name
        finally:
            setattr(holder, name, value)


def test_number_of_graphs_is_bounded():
    model = Model()
    sizes = [(8, 8 + i) for i in range(MOST_GRAPHS + 2)]
    for _ in range(EAGER_CALLS + 4):
        for size in sizes:
            result, _ = model(image(size=size))
            torch.testing.assert_close(result, model.compute(image(size=size))[0])
    # Nothing is recorded over and over.
    assert len(model.graphs) == MOST_GRAPHS == FakeGraph.made
    for _ in range(IDLE_CALLS):
        for size in sizes[1:4]:
            model(image(size=size))
    model(image(size=sizes[-1]))
    assert len(model.graphs) == MOST_GRAPHS == FakeGraph.made - 1
    assert_replays(model, image(size=sizes[-1]))
    for size in sizes[1:4]:
        assert_replays(model, image(size=size))
    assert FakeGraph.made == MOST_GRAPHS + 1


def test_threads_have_graphs_of_their_own():
    model = Model()
    warm(model)
    thread = threading.Thread(target=warm, args=(model,))
    thread.start()
    thread.join()
    assert len({id(x.graph.lane) for x in model.graphs._graphs.values()}) == 2
    model(image(size=(8, 9)))
    assert_replays(model, image(size=(8, 9)), EAGER_CALLS)
    assert len({id(x.graph.lane) for x in model.graphs._graphs.values()}) == 2


def test_failures_are_remembered(caplog):
    tried = []

    def fail(function, inputs, lane):
        tried.append(1)
        raise RuntimeError("no graphs today")

    model = Model(fail)
    for i in range(12):
        for size in ((8, 8), (8, 9), (9, 8)):
            x = image(i, size)
            torch.testing.assert_close(model(x)[0], model.compute(x)[0])
    assert len(tried) == 2
    assert len(caplog.records) == 1
    assert "no graphs today" in caplog.text
    model.graphs.release()
    for _ in range(4):
        model(image())
    assert len(tried) == 3


def test_failed_replay(caplog):
    """The caller computes, and meets what the error was about, if it still is."""
    model = Model()
    warm(model)
    (recorded,) = model.graphs._graphs.values()

    def fail(inputs):
        raise RuntimeError("cannot be launched")

    recorded.graph.replay = fail
    assert model(image())[1] == "refused"
    assert "cannot be launched" in caplog.text
    for _ in range(EAGER_CALLS + 2):
        assert model(image())[1] == "eager"
    assert_replays(model, image(size=(8, 9)), EAGER_CALLS + 1)


def recorder(lanes, errors):
    """It notes each lane in ``lanes``, and raises what is in ``errors``, the last first."""

    def record(function, inputs, lane):
        lanes.append(lane)
        if errors:
            raise errors.pop()
        return FakeGraph(function, inputs, lane)

    return record


def test_a_lane_is_used_until_a_recording_in_it_fails():
    lanes, fails = [], []
    model = Model(recorder(lanes, fails))
    errors = [None, None, RuntimeError("not this one"), None, KeyboardInterrupt(), None]
    for i, error in enumerate(errors):
        fails += [] if error is None else [error]
        for _ in range(EAGER_CALLS):
            try:
                model(image(size=(8, 8 + i)))
            except KeyboardInterrupt as caught:
                assert caught is error  # noqa: PT017
    assert [lanes.index(x) for x in lanes] == [0, 0, 0, 3, 3, 5]
    assert len(model.graphs) == 4
    for i in (0, 1, 3, 5):
        assert_replays(model, image(size=(8, 8 + i)))


def test_streams_of_lanes(monkeypatch):
    """They are used again as soon as nothing is kept for them."""
    device, numbers, held = torch.device("cuda", 0), iter(range(100)), set()

    def snapshot():
        return [{"segment_pool_id": (0, i), "allocated_size": i in held} for i in range(100)]

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, next(numbers)))
    monkeypatch.setattr(torch.cuda, "memory_snapshot", snapshot)
    monkeypatch.setattr(_graph_lanes, "_new_stream", lambda _: object())
    monkeypatch.setattr(_graph_lanes, "_unused", defaultdict(list))
    lanes = [GraphLane(device) for _ in range(3)]
    streams = [x.side_stream for x in lanes]
    assert len(set(streams)) == 3
    held.add(lanes[0].pool[1])
    del lanes
    again = [GraphLane(device) for _ in range(3)]
    assert [x.side_stream in streams for x in again] == [True, True, False]
    assert streams[0] not in [x.side_stream for x in again]
    # From the first one on that leaves memory behind, there is a place of its own for it.
    workspaces = [x._workspace for x in again]
    assert [x.side_stream for x in workspaces] == [x.side_stream for x in again]
    held.clear()
    del again[1]
    lane = GraphLane(device)
    assert lane._workspace is workspaces[1]
    other = GraphLane(device)
    assert other.side_stream is streams[0]
    assert other._workspace is None


def test_recordings_are_put_off(caplog):
    """Where another thread waits for the device, which is not forever."""
    lanes, busy = [], []
    model = Model(recorder(lanes, busy))
    warm(model)
    busy += [NotNowError(), NotNowError()]
    x = image(size=(8, 9))
    for _ in range(3 * EAGER_CALLS):
        assert model(x)[1] == "eager"
    assert_replays(model, x)
    assert len(lanes) == 4
    assert len(set(map(id, lanes))) == 1
    assert caplog.records == []


def test_threads_that_wait_for_the_device(monkeypatch):
    lock, original = threading.Lock(), torch._C._cuda_synchronize

    def synchronize():
        lock.acquire()
        lock.release()

    def enter():
        with _cuda_graph._without_waits_for_the_device():
            pass

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    enter()
    thread = threading.Thread(target=synchronize)
    with lock:
        thread.start()
        while not _cuda_graph._are_others_waiting():
            thread.join(0.001)
        with pytest.raises(NotNowError):
            enter()
    assert torch._C._cuda_synchronize is original
    thread.join()
    enter()


def test_waits_for_the_device_wait_for_recordings(monkeypatch):
    order, began = [], threading.Event()
    monkeypatch.setattr(torch._C, "_cuda_synchronize", lambda: order.append("waited"))
    function = torch._C._cuda_synchronize

    def work():
        began.set()
        torch._C._cuda_synchronize()

    thread = threading.Thread(target=work)
    with _cuda_graph._recording, _cuda_graph._without_waits_for_the_device():
        thread.start()
        began.wait()
        thread.join(0.1)
        order.append("recorded")
        monkeypatch.setattr(_cuda_graph._here, "is_recording", True)
        torch._C._cuda_synchronize()  # The recording thread itself is not to wait for itself.
    thread.join()
    assert order == ["recorded", "waited", "waited"]
    assert torch._C._cuda_synchronize is function


def test_out_of_memory(caplog):
    """Without graphs it is tried again, once."""
    model, inputs = make_model("retinanet", "cpu"), make_inputs()
    with torch.no_grad():
        expected = as_tensors(model(inputs))
        original, left = model.forward, []

        def forward(batched_inputs):
            if left:
                left.pop()
                raise torch.OutOfMemoryError("no more")
            return original(batched_inputs)

        model.forward = forward
        left.append(1)
        with pytest.raises(torch.OutOfMemoryError):
            model(inputs)
        model.graph_replay._graphs["key"] = None
        left.append(1)
        actual = as_tensors(model(inputs))
        assert len(model.graph_replay) == 0
        assert "given up" in caplog.text
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        model.graph_replay._graphs["key"] = None
        left += [1, 1]
        with pytest.raises(torch.OutOfMemoryError):
            model(inputs)


def test_nothing_is_recorded_after_giving_up():
    model = Model()
    warm(model)
    model.graphs.give_up()
    for _ in range(2 * EAGER_CALLS):
        assert model(image())[1] == "eager"
    assert len(model.graphs) == 0
    model.graphs.release()
    warm(model)


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("is_cached", [True, False])
def test_anchors_in_graphs(monkeypatch, is_held, is_cached):
    generator = make_model("retinanet", "cpu").anchor_generator
    maps = [torch.zeros(1, 1, 128 // x, 128 // x) for x in generator.strides]
    before = generator(maps) if is_cached else None
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cuda", True)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        patch.setattr(_cuda_graph._here, "is_recording", is_held)
        recorded = generator(maps)
    after = generator(maps)
    if is_cached:
        assert after[0].tensor is before[0].tensor
    # What is kept is not what a graph computes, and someone else's graph computes its own.
    assert (recorded[0].tensor is after[0].tensor) == (is_held and is_cached)
    assert torch.equal(recorded[0].tensor, after[0].tensor)


def test_looks_less_often_where_everything_changes(monkeypatch):
    looks = []

    def watch(*args):
        looks.append(1)
        return ModuleWatch(*args)

    monkeypatch.setattr(_graph_replay, "ModuleWatch", watch)
    model = Model()
    for i in range(200):
        model.settings["factor"] = float(i)
        result, how = model(image())
        assert how != "replayed"
        torch.testing.assert_close(result, model.compute(image())[0])
    assert 3 < len(looks) < 20
    # It recovers.
    for _ in range(400):
        model(image())
    assert_replays(model)


def test_copies_start_anew():
    model = Model()
    warm(model)
    for graphs in (copy.deepcopy(model.graphs), pickle.loads(pickle.dumps(model.graphs))):
        assert len(graphs) == 0
        assert graphs.enabled
    assert len(model.graphs) == 1


@pytest.mark.parametrize(
    "release", [lambda model: model.train(), lambda model: model.to(torch.float64)]
)
def test_training_and_moving_release(release):
    model = make_model("retinanet", "cpu")
    model.graph_replay._graphs["key"] = None
    model.eval()
    assert len(model.graph_replay) == 1
    release(model)
    assert len(model.graph_replay) == 0
    assert not any("graph" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_methods_of_ones_own_are_called(kind):
    model = make_model(kind, "cpu")
    assert model._detects_on_device()

    class Own(type(model)):
        def forward_inference(self, images, features, predictions):
            return []

    model.__class__ = Own
    assert not model._detects_on_device()
    model.__class__ = Own.__base__
    model.inference_single_image = lambda *_: []
    assert not model._detects_on_device()
    assert not model._detects_at_once()


@pytest.mark.parametrize("how", ["instance", "subclass", "class"])
@pytest.mark.parametrize("name", ["forward", "predict_proposals", "_decode_proposals"])
def test_proposals_of_ones_own(how, name, monkeypatch):
    rpn = make_model("mask", "cpu").proposal_generator
    assert rpn.proposes_on_device()
    own = getattr(type(rpn), name)
    if how == "instance":
        setattr(rpn, name, lambda *args: own(rpn, *args))
    elif how == "subclass":
        rpn.__class__ = type("Own", (type(rpn),), {})
    else:
        monkeypatch.setattr(type(rpn), name, lambda *args: own(*args))
    assert not rpn.proposes_on_device()


@pytest.mark.parametrize("kind", ["mask", "retinanet"])
def test_compilers_see_the_model_as_it_is(kind):
    model = make_model(kind, "cpu")
    model._graph_replay = None
    inputs = make_inputs()
    with torch.no_grad():
        images = model.preprocess_image(inputs)

        def replays(batch):
            return model._may_replay(batch)

        compiled = torch.compile(replays, fullgraph=True, backend="eager")
        assert not compiled(images.tensor)
    assert model._graph_replay is None
