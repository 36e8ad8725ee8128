"""TrainerBase, SimpleTrainer and AMPTrainer."""

import gc
import logging
import weakref

import pytest
import torch
from torch import nn

from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase, hooks
from detectron2.utils.events import get_event_storage

from .toys import Toy, batches, sgd


class Recorder(HookBase):
    def __init__(self, trace, name=""):
        self.trace, self.name = trace, name

    def _record(self, event):
        self.trace.append((self.name, event, self.trainer.iter))

    def before_train(self):
        self._record("before_train")

    def after_train(self):
        self._record("after_train")

    def before_step(self):
        self._record("before_step")

    def after_backward(self):
        self._record("after_backward")

    def after_step(self):
        self._record("after_step")


class Counting(TrainerBase):
    def run_step(self):
        self.after_backward()


def plain_training(model, data, steps, lr=0.05, momentum=0.9):
    """The same by hand."""
    optimizer = sgd(model, lr, momentum)
    losses = []
    for x in data[:steps]:
        optimizer.zero_grad()
        loss = sum(model(x).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_order_of_hooks():
    trace = []
    trainer = Counting()
    trainer.register_hooks([Recorder(trace, "x"), None, Recorder(trace, "y")])
    trainer.train(2, 4)
    expected = []
    for iteration in (2, 3):
        for event in ("before_step", "after_backward", "after_step"):
            expected += [("x", event, iteration), ("y", event, iteration)]
    ends = [("x", "before_train", 2), ("y", "before_train", 2)]
    assert trace == [*ends, *expected, ("x", "after_train", 4), ("y", "after_train", 4)]
    assert (trainer.start_iter, trainer.iter, trainer.max_iter) == (2, 4, 4)
    assert trainer.storage.iter == 4


def test_hooks_do_not_keep_the_trainer_alive():
    trainer = Counting()
    hook = HookBase()
    trainer.register_hooks([hook])
    gone = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert gone() is None
    finally:
        gc.enable()


def test_no_hook_is_registered_if_one_is_none():
    trainer = Counting()
    with pytest.raises(TypeError, match="3"):
        trainer.register_hooks([HookBase(), 3])
    assert trainer._hooks == []


def test_run_step_is_abstract():
    with pytest.raises(NotImplementedError):
        TrainerBase().train(0, 1)


def test_after_train_comes_after_an_exception_and_for_every_hook():
    class Failing(TrainerBase):
        def run_step(self):
            if self.iter == 2:
                raise ValueError("in the step")

    class FailsAtEnd(HookBase):
        def after_train(self):
            raise OSError("at the end")

    trace = []
    trainer = Failing()
    trainer.register_hooks([FailsAtEnd(), Recorder(trace)])
    with pytest.raises(OSError, match="at the end") as raised:
        trainer.train(0, 9)
    assert str(raised.value.__context__) == "in the step"
    assert trace[-1] == ("", "after_train", 2)


def test_a_hook_may_end_the_training():
    def stop(trainer):
        if trainer.iter == 4:
            trainer.max_iter = 5

    trainer = Counting()
    trainer.register_hooks([hooks.CallbackHook(after_step=stop)])
    trainer.train(0, 100)
    assert trainer.iter == 5


@pytest.mark.parametrize("zero_grad_before_forward", [False, True])
@pytest.mark.parametrize("async_write_metrics", [False, True])
def test_same_weights_and_losses_as_by_hand(zero_grad_before_forward, async_write_metrics):
    data = batches()
    expected = Toy()
    losses = plain_training(expected, data, 7)
    model = Toy()
    trainer = SimpleTrainer(
        model,
        data,
        sgd(model),
        zero_grad_before_forward=zero_grad_before_forward,
        async_write_metrics=async_write_metrics,
    )
    trainer.train(0, 7)
    assert torch.equal(model.fc.weight, expected.fc.weight)
    history = trainer.storage.history("total_loss").values()
    assert [iteration for _, iteration in history] == list(range(7))
    assert [value for value, _ in history] == pytest.approx(losses)
    assert set(trainer.storage.latest()) == {
        "data_time",
        "rank_data_time",
        "total_loss",
        "loss_a",
        "loss_b",
    }


@pytest.mark.parametrize("trainer_class", [SimpleTrainer, AMPTrainer])
def test_metrics_are_written_asynchronously(trainer_class):
    model = Toy()
    options = {} if trainer_class is SimpleTrainer else {"precision": torch.bfloat16}
    trainer = trainer_class(model, batches(), sgd(model), async_write_metrics=True, **options)
    seen = []

    def look(trainer):
        seen.append(trainer.storage.latest().get("total_loss", (None, None))[1])

    trainer.register_hooks([hooks.CallbackHook(after_step=look)])
    trainer.train(0, 5)
    # An iteration late, but there when the last iteration's hooks, such as writers, look.
    assert seen == [None, 0, 1, 2, 4]


def test_name_scopes_of_the_model_do_not_meet_asynchronous_metrics():
    class Scoped(Toy):
        def forward(self, x):
            with get_event_storage().name_scope("model"):
                get_event_storage().put_scalar("own", 1.0)
                return super().forward(x)

    model = Scoped()
    trainer = SimpleTrainer(model, batches(), sgd(model), async_write_metrics=True)
    trainer.train(0, 20)
    assert [name for name in trainer.storage.latest() if name.startswith("model/")] == ["model/own"]


def test_a_trainer_that_puts_its_parts_together_itself():
    """Of whose ``__init__`` that of TrainerBase is the only other one called."""

    class Own(SimpleTrainer):
        def __init__(self, model, data):
            TrainerBase.__init__(self)
            model.train()
            self.model, self.data_loader, self.optimizer = model, data, sgd(model)
            self._data_loader_iter_obj = iter(data)
            self.gather_metric_period = 1
            self.zero_grad_before_forward = self.async_write_metrics = False

    model = Toy()
    trainer = Own(model, batches())
    trainer.train(0, 5)
    expected = Toy()
    plain_training(expected, batches(), 5)
    assert torch.equal(model.fc.weight, expected.fc.weight)
    assert trainer.storage.latest()["total_loss"][1] == 4


def test_metrics_are_gathered_periodically():
    model = Toy()
    trainer = SimpleTrainer(model, batches(), sgd(model), gather_metric_period=3)
    trainer.train(0, 7)
    assert [i for _, i in trainer.storage.history("total_loss").values()] == [2, 5]


def test_a_model_may_return_one_loss():
    class One(Toy):
        def forward(self, x):
            return super().forward(x)["loss_a"]

    model = One()
    trainer = SimpleTrainer(model, batches(), sgd(model))
    trainer.train(0, 2)
    assert set(trainer.storage.latest()) == {"data_time", "rank_data_time", "total_loss"}


def test_losses_of_several_types_are_summed():
    class Mixed(Toy):
        def forward(self, x):
            losses = super().forward(x)
            return {"half": losses["loss_a"].bfloat16(), "double": losses["loss_b"].double()[None]}

    model = Mixed()
    trainer = SimpleTrainer(model, batches(), sgd(model))
    trainer.train(0, 1)
    latest = trainer.storage.latest()
    assert latest["total_loss"][0] == latest["half"][0] + latest["double"][0]


def test_the_end_of_the_data_is_a_clear_error():
    model = Toy()
    trainer = SimpleTrainer(model, batches(2), sgd(model))
    with pytest.raises(RuntimeError, match="after 2 batches, at iteration 12"):
        trainer.train(10, 20)


def test_the_model_must_be_in_training_mode():
    model = Toy()
    trainer = SimpleTrainer(model, batches(), sgd(model))
    model.eval()
    with pytest.raises(RuntimeError, match=r"model.train\(\)"):
        trainer.run_step()


def test_another_data_loader():
    model = Toy()
    trainer = SimpleTrainer(model, batches(2), sgd(model))
    trainer.train(0, 2)
    trainer.reset_data_loader(lambda: batches(3))
    trainer.train(2, 5)
    assert trainer.iter == 5


def test_state():
    class Hook(HookBase):
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state_dict):
            self.value = state_dict["value"]

    model = Toy()
    trainer = SimpleTrainer(model, batches(), sgd(model))
    trainer.register_hooks([Hook(1), Hook(2), HookBase()])
    trainer.train(0, 3)
    state = trainer.state_dict()
    assert set(state) == {"iteration", "hooks", "optimizer"}
    assert state["iteration"] == 3
    assert list(state["hooks"].values()) == [{"value": 1}]

    other = SimpleTrainer(model, batches(), sgd(model))
    first, second = Hook(5), Hook(6)
    other.register_hooks([first, second])
    other.load_state_dict(state)
    assert (other.iter, first.value, second.value) == (3, 1, 6)
    momentum = other.optimizer.state[model.fc.weight]["momentum_buffer"]
    assert torch.equal(momentum, trainer.optimizer.state[model.fc.weight]["momentum_buffer"])


def test_states_of_unknown_hooks_are_ignored_with_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    trainer = Counting()
    trainer.load_state_dict({"iteration": 4, "hooks": {"Gone": {"a": 1}}})
    assert trainer.iter == 4
    assert "Gone" in caplog.text


class Positioned:
    """A data loader that knows where it is."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def __iter__(self):
        while True:
            self.position += 1
            yield self.data[self.position - 1]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state_dict):
        self.position = state_dict["position"]


def test_data_loaders_with_a_state_go_on():
    data = batches()
    whole, part = Toy(), Toy()
    SimpleTrainer(whole, Positioned(data), sgd(whole)).train(0, 9)
    first = SimpleTrainer(part, Positioned(data), sgd(part))
    first.train(0, 4)
    second = SimpleTrainer(part, Positioned(data), sgd(part))
    second.load_state_dict(first.state_dict())
    second.train(4, 9)
    assert torch.equal(whole.fc.weight, part.fc.weight)


# Losses that are not finite


class Overflowing(nn.Linear):
    def forward(self, x):
        return super().forward(x).abs() * float("inf")


def images(*names):
    return [{"file_name": name, "image": torch.ones(3)} for name in names]


def train_to_error(model, data, **options):
    trainer = SimpleTrainer(model, data, sgd(model), **options)
    with pytest.raises(FloatingPointError) as raised:
        trainer.train(0, len(data))
    return str(raised.value)


@pytest.mark.parametrize("async_write_metrics", [False, True])
def test_report_names_images_iteration_and_losses(async_write_metrics):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, batch):
            value = self.scale * torch.stack([item["image"] for item in batch]).sum()
            return {"loss_log": torch.log(value.detach()).sum() + value.sum(), "loss_fine": value}

    negative = [{"file_name": "bad.jpg", "image": -torch.ones(3)}]
    data = [images("a.jpg"), images("b.jpg"), negative, images("c.jpg"), images("d.jpg")]
    text = train_to_error(Net(), data, async_write_metrics=async_write_metrics)
    assert "iteration=2" in text
    assert "'loss_log': nan" in text
    assert "images: bad.jpg" in text
    # An iteration later, the weights are others.
    if not async_write_metrics:
        assert "output['loss_log'] of the model" in text


def test_report_names_the_first_module():
    model = nn.Sequential(nn.Linear(3, 3), Overflowing(3, 3), nn.ReLU(), nn.Linear(3, 1))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, batch):
            return {"l": self.layers(torch.stack([item["image"] for item in batch])).sum()}

    text = train_to_error(Net(), [images("a.jpg", "b.jpg")])
    assert "output of layers.1, a Overflowing (shape (2, 3): 0 NaN, 6 infinite)" in text
    assert "images: a.jpg, b.jpg" in text


def test_report_names_the_input():
    data = [[{"file_name": "a.jpg", "image": torch.tensor([1.0, float("nan"), 2.0])}]]

    class Net(Toy):
        def forward(self, batch):
            return super().forward(batch[0]["image"][None])

    text = train_to_error(Net(), data)
    assert "batch[0]['image'] of the input (shape (3,): 1 NaN, 0 infinite)" in text


def test_report_names_the_parameter():
    model = Toy()
    with torch.no_grad():
        model.fc.bias.fill_(float("inf"))
    text = train_to_error(model, batches(1))
    assert "parameter fc.bias (shape (1,): 0 NaN, 1 infinite)" in text
    assert "the batch does not name them" in text


def test_report_of_a_trainer_with_a_step_of_its_own():
    class Own(SimpleTrainer):
        def run_step(self):
            next(self._data_loader_iter)
            self._write_metrics({"loss": torch.tensor(float("inf"))}, data_time=0.0)

    model = Toy()
    with pytest.raises(FloatingPointError, match="the batch is not known"):
        Own(model, batches(), sgd(model)).train(0, 1)


def test_report_is_of_the_precision_of_the_training():
    class Net(Toy):
        def forward(self, x):
            # Beyond float16, but not beyond float32.
            return {"loss": self.fc(x * 1e5 + 1e5).float().mean()}

    model = Net()
    trainer = AMPTrainer(model, batches(), sgd(model))
    with pytest.raises(FloatingPointError, match=r"output of fc, a Linear .* infinite"):
        trainer.train(0, 1)


def test_weights_are_still_good_when_the_loss_is_not():
    class Net(Toy):
        def forward(self, x):
            return {"loss": super().forward(x)["loss_a"] / x.sum().sub(x.sum())}

    model = Net()
    before = model.fc.weight.clone()
    train_to_error(model, batches(1))
    assert torch.equal(model.fc.weight, before)


# Mixed precision


class SeesType(Toy):
    def forward(self, x):
        self.seen = self.fc(x).dtype
        return {"loss": self.fc(x).float().square().mean()}


def test_bfloat16_needs_no_scaler():
    model = SeesType()
    trainer = AMPTrainer(model, batches(), sgd(model), precision=torch.bfloat16)
    before = model.fc.weight.clone()
    trainer.train(0, 3)
    assert model.seen == torch.bfloat16
    assert not trainer.grad_scaler.is_enabled()
    assert model.fc.weight.dtype == torch.float32
    assert not torch.equal(model.fc.weight, before)
    assert trainer.state_dict()["grad_scaler"] == {}


def test_float16_scales_the_loss():
    model = SeesType()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**7)
    trainer = AMPTrainer(model, batches(), sgd(model), grad_scaler=scaler, log_grad_scaler=True)
    gradients = []

    class Look(HookBase):
        def after_backward(self):
            gradients.append(model.fc.weight.grad.norm().item())

    trainer.register_hooks([Look()])
    trainer.train(0, 1)
    assert model.seen == torch.float16
    scale = trainer.storage.latest()["[metric]grad_scaler"][0]
    assert scale == 2**7
    plain = SeesType()
    plain(batches()[0])["loss"].backward()
    assert gradients[0] / scale == pytest.approx(plain.fc.weight.grad.norm().item(), rel=1e-2)


def test_amp_state():
    model = SeesType()
    trainer = AMPTrainer(model, batches(), sgd(model))
    trainer.train(0, 1)
    state = trainer.state_dict()
    state["grad_scaler"]["scale"] = 2.0**10
    other = AMPTrainer(model, batches(), sgd(model))
    other.load_state_dict(state)
    assert other.grad_scaler.get_scale() == 2**10
    # From there to a precision without a scaler, and back.
    bfloat = AMPTrainer(model, batches(), sgd(model), precision=torch.bfloat16)
    other.load_state_dict(bfloat.state_dict())


def test_amp_precision_is_checked():
    model = Toy()
    with pytest.raises(ValueError, match="float64"):
        AMPTrainer(model, batches(), sgd(model), precision=torch.float64)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_amp_on_cuda(precision):
    model = SeesType().cuda()
    data = [x.cuda() for x in batches()]
    trainer = AMPTrainer(model, data, sgd(model), precision=precision, async_write_metrics=True)
    trainer.train(0, 5)
    assert model.seen == precision
    assert len(trainer.storage.history("total_loss").values()) == 5
