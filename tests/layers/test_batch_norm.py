"""Norms, against their formulas in float64; the synchronised one in two processes, too."""

import copy
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from detectron2.layers import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    get_norm,
)
from detectron2.layers.batch_norm import LayerNorm, joint_affine_maps

CHANNELS = 5
FORMATS = [torch.contiguous_format, torch.channels_last]


def features(seed, *shape, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) + offset


def disturb(module, seed=0):
    """Give every parameter and statistic a value of its own; variances stay positive."""
    for i, (name, tensor) in enumerate(module.state_dict().items()):
        if tensor.dtype.is_floating_point:
            values = features(seed + i, *tensor.shape)
            tensor.copy_(values.abs() + 0.5 if name.endswith("var") else values)
    return module


def per_channel(values):
    return np.asarray(values, dtype=np.float64).reshape(-1, 1, 1)


def normalize(x, mean, var, weight, bias, eps):
    x = (x.detach().double().numpy() - per_channel(mean)) / np.sqrt(per_channel(var) + eps)
    return torch.from_numpy(x * per_channel(weight) + per_channel(bias))


def frozen_reference(module, x):
    buffers = {name: b.double().numpy() for name, b in module.state_dict().items()}
    return normalize(
        x,
        buffers["running_mean"],
        buffers["running_var"],
        buffers["weight"],
        buffers["bias"],
        module.eps,
    )


# FrozenBatchNorm2d


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-6),
        (torch.float32, 1e-5),
        (torch.float16, 1e-2),
        (torch.bfloat16, 6e-2),
    ],
)
def test_frozen_batch_norm(dtype, tolerance, requires_grad, memory_format):
    module = disturb(FrozenBatchNorm2d(CHANNELS, eps=1e-3))
    if dtype == torch.float64:
        module.double()
    x = features(9, 2, CHANNELS, 4, 6).to(dtype).contiguous(memory_format=memory_format)
    x.requires_grad_(requires_grad)
    y = module(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(
        y.double(), frozen_reference(module, x), rtol=tolerance, atol=tolerance
    )
    module.train()
    assert torch.equal(module(x), y)  # no mode trains it
    if requires_grad:
        grad = features(10, *x.shape).to(dtype)
        y.backward(grad)
        scale = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
        expected = grad.double() * scale[:, None, None]
        torch.testing.assert_close(x.grad.double(), expected, rtol=tolerance, atol=tolerance)


def test_frozen_batch_norm_keeps_no_features_for_the_backward_pass():
    kept = []
    x = torch.randn(2, CHANNELS, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        disturb(FrozenBatchNorm2d(CHANNELS))(x)
    assert max(kept) == CHANNELS


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_in_half_precision_rounds_once(requires_grad):
    """The shift, -0.35, is a difference of numbers that have steps of 0.5 in float16."""
    module = FrozenBatchNorm2d(1).half()
    module.running_mean.fill_(1000)
    module.running_var.fill_(3)
    module.bias.fill_(577)
    x = torch.zeros(1, 1, 2, 2).half().requires_grad_(requires_grad)
    expected = frozen_reference(module, x)
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(0, CHANNELS, 3, 4), (3, CHANNELS), (3, CHANNELS, 7)])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_takes_any_shape(shape, requires_grad):
    module = disturb(FrozenBatchNorm2d(CHANNELS))
    x = features(11, *shape).float().requires_grad_(requires_grad)
    y = module(x)
    assert y.shape == shape
    wide = x.reshape(shape + (1,) * (4 - len(shape)))
    torch.testing.assert_close(
        y.double().reshape(wide.shape), frozen_reference(module, wide), rtol=1e-5, atol=1e-5
    )


def test_frozen_batch_norm_state():
    module = FrozenBatchNorm2d(CHANNELS)
    assert list(module.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(module.parameters()) == []
    assert module.num_batches_tracked is None
    assert repr(module) == "FrozenBatchNorm2d(num_features=5, eps=1e-05)"
    x = features(12, 2, CHANNELS, 3, 3).float()
    torch.testing.assert_close(module(x), x)
    assert module.state_dict()._metadata[""]["version"] == 3


@pytest.mark.parametrize("version", [None, 1])
def test_frozen_batch_norm_completes_old_checkpoints(version):
    module = disturb(FrozenBatchNorm2d(2))
    state = torch.nn.Module.state_dict(FrozenBatchNorm2d(2))
    del state["running_mean"], state["running_var"]
    state["weight"] = torch.tensor([2.0, 3])
    if version is None:
        state = dict(state)
    else:
        state._metadata[""]["version"] = version
    module.load_state_dict(state)
    assert module.weight.tolist() == [2, 3]
    assert module.running_mean.tolist() == [0, 0]
    assert module.running_var.tolist() == [1, 1]
    assert "running_mean" not in state  # the caller's

    current = FrozenBatchNorm2d(2).state_dict()
    del current["running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        module.load_state_dict(current)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(CHANNELS)
        self.second = self.first
        self.none = None


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm])
@pytest.mark.parametrize("affine", [True, False])
def test_conversion_to_frozen(kind, affine):
    norm = disturb(kind(CHANNELS, eps=1e-2, affine=affine)).eval()
    x = features(13, 2, CHANNELS, 4, 4).float()
    expected = norm(x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert type(frozen) is FrozenBatchNorm2d
    assert frozen.eps == 1e-2
    assert not frozen.training
    torch.testing.assert_close(frozen(x), expected)
    assert frozen.running_var.data_ptr() == norm.running_var.data_ptr()
    if affine:
        norm.weight.data.zero_()
        torch.testing.assert_close(frozen(x), expected)  # a copy


def test_conversion_of_nested_modules_and_back():
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), Twice(), nn.GroupNorm(1, CHANNELS))
    disturb(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(model) is model
    frozen = model[1].first
    assert model.state_dict().keys() == state.keys()
    assert type(model[1].first) is FrozenBatchNorm2d
    assert model[1].second is model[1].first
    assert type(model[2]) is nn.GroupNorm

    assert FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(model) is model
    assert type(model[1].first) is nn.BatchNorm2d
    assert model[1].second is model[1].first
    assert model[1].first.weight.requires_grad
    assert list(state) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    model[1].first(torch.rand(2, CHANNELS, 4, 4))  # in training, where statistics move
    assert torch.equal(frozen.running_mean, state["1.first.running_mean"])


@pytest.mark.parametrize("affine", [False, True])
def test_conversion_keeps_the_dtype(affine):
    half = FrozenBatchNorm2d.convert_frozen_batchnorm(
        nn.BatchNorm2d(CHANNELS, affine=affine).half()
    )
    kept = {name: buffer.dtype for name, buffer in half.named_buffers()}
    assert kept.pop("num_batches_tracked") == torch.int64
    assert set(kept.values()) == {torch.float16}
    back = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(half)
    assert {p.dtype for p in back.parameters()} == {torch.float16}


def test_there_is_nothing_to_freeze_without_running_statistics():
    norm = nn.BatchNorm2d(CHANNELS, track_running_stats=False)
    with pytest.raises(ValueError, match=r"BatchNorm2d\(5.* has no running statistics"):
        FrozenBatchNorm2d.convert_frozen_batchnorm(norm)


# get_norm


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        ("LN", LayerNorm),
    ],
)
def test_get_norm(name, kind):
    norm = get_norm(name, 64)
    assert type(norm) is kind
    if kind is not FrozenBatchNorm2d:
        assert norm.weight.shape == (64,)


def test_get_norm_of_nothing_callables_and_unknown_names():
    assert get_norm("", 4) is None
    assert get_norm(None, 4) is None
    assert get_norm(nn.InstanceNorm2d, 4).num_features == 4
    assert get_norm("GN", 64).num_groups == 32
    with pytest.raises(KeyError, match=r"unknown norm 'bn', known are BN, "):
        get_norm("bn", 4)


# CycleBatchNormList


def test_cycle_batch_norm_list():
    norms = disturb(CycleBatchNormList(3, num_features=CHANNELS, eps=1e-2)).eval()
    assert [n for n in norms.state_dict() if not n.endswith("tracked")] == [
        "weight",
        "bias",
        *(f"{i}.running_{kind}" for i in range(3) for kind in ("mean", "var")),
    ]
    x = features(14, 2, CHANNELS, 3, 4).float()
    weight, bias = norms.weight.detach(), norms.bias.detach()
    for i in (0, 1, 2, 0):
        expected = normalize(x, norms[i].running_mean, norms[i].running_var, weight, bias, 1e-2)
        torch.testing.assert_close(norms(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert norms(x.bfloat16()).dtype == torch.bfloat16
    assert norms.extra_repr() == "affine=True"


def test_cycle_batch_norm_list_without_affine_parameters():
    norms = CycleBatchNormList(2, nn.SyncBatchNorm, num_features=CHANNELS, affine=False).eval()
    assert [type(norm) for norm in norms] == [nn.SyncBatchNorm] * 2
    assert list(norms.parameters()) == []
    x = torch.ones(1, CHANNELS, 2, 2)
    torch.testing.assert_close(norms(x), x)
    assert norms.extra_repr() == "affine=False"


# LayerNorm


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(2, CHANNELS, 3, 4), (0, CHANNELS, 3, 4)])
def test_layer_norm(shape, memory_format):
    module = disturb(LayerNorm(CHANNELS)).double()
    x = features(15, *shape, offset=3.0).contiguous(memory_format=memory_format)
    x.requires_grad_(True)
    a = x.detach().numpy()
    mean, var = a.mean(1, keepdims=True), a.var(1, keepdims=True)
    expected = (a - mean) / np.sqrt(var + 1e-6) * per_channel(module.weight.detach())
    expected += per_channel(module.bias.detach())
    y = module(x)
    torch.testing.assert_close(y.detach(), torch.from_numpy(expected))
    assert y.is_contiguous(memory_format=memory_format)
    if len(x):
        assert torch.autograd.gradcheck(module, x)


def test_layer_norm_attributes_and_dtypes():
    module = LayerNorm(CHANNELS, eps=1e-3)
    assert (module.eps, module.normalized_shape) == (1e-3, (CHANNELS,))
    assert list(module.state_dict()) == ["weight", "bias"]
    x = features(16, 1, CHANNELS, 2, 2)
    assert module(x.bfloat16()).dtype == torch.float32
    assert module.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert module(x).dtype == torch.float64
    # Squares of these overflow float16.
    assert LayerNorm(CHANNELS).half()(x.half() * 1000).isfinite().all()


# NaiveSyncBatchNorm


def test_naive_sync_batch_norm_of_one_process_is_batch_norm():
    for mode in ("", "N"):
        ours, plain = NaiveSyncBatchNorm(CHANNELS, stats_mode=mode), nn.BatchNorm2d(CHANNELS)
        assert list(ours.state_dict()) == list(plain.state_dict())
        x = features(17, 3, CHANNELS, 4, 4).float()
        for _ in range(2):
            assert torch.equal(ours(x), plain(x))
            assert all(map(torch.equal, ours.buffers(), plain.buffers()))
            ours.eval(), plain.eval()
    with pytest.raises(ValueError, match="got 'M'"):
        NaiveSyncBatchNorm(CHANNELS, stats_mode="M")


MOMENTUM = 0.3

# What the two processes feed to one norm after another: stats_mode, and calls with the sizes of
# the two batches.
SYNCHRONIZED = {
    "equal": ("", [(2, 2), (2, 2)]),
    "average of unequal": ("", [(3, 1)]),
    "unequal": ("N", [(3, 1), (1, 2)]),
    "one empty": ("N", [(2, 0), (0, 3), (1, 1)]),
    "all empty": ("N", [(0, 0), (2, 1)]),
}


def batches(case, call, dtype=torch.float64, offset=0.0):
    """The inputs and the output gradients of both processes."""
    sizes = SYNCHRONIZED[case][1][call]
    # A mean of its own for each process, so that local statistics would be wrong.
    x = [
        features(31 + 7 * call + i, n, CHANNELS, 3, 4, offset=offset + i)
        for i, n in enumerate(sizes)
    ]
    grads = [features(41 + 7 * call + i, n, CHANNELS, 3, 4) for i, n in enumerate(sizes)]
    return [t.to(dtype) for t in x], [t.to(dtype) for t in grads]


def worker(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for case, (mode, calls) in SYNCHRONIZED.items():
        norm = disturb(NaiveSyncBatchNorm(CHANNELS, momentum=MOMENTUM, stats_mode=mode).double())
        results[case] = []
        for call in range(len(calls)):
            inputs, grads = batches(case, call)
            x = inputs[rank].requires_grad_(True)
            norm.zero_grad()
            y = norm(x)
            y.backward(grads[rank])
            results[case].append(
                {
                    "y": y.detach(),
                    "grad": x.grad,
                    "weight_grad": norm.weight.grad,
                    "bias_grad": norm.bias.grad,
                    "mean": norm.running_mean.clone(),
                    "var": norm.running_var.clone(),
                    "count": norm.num_batches_tracked.clone(),
                }
            )

    for dtype in (torch.float16, torch.bfloat16):
        half = batches("equal", 0, dtype)[0][rank].contiguous(memory_format=torch.channels_last)
        results[dtype] = NaiveSyncBatchNorm(CHANNELS)(half)
    far = batches("equal", 0, torch.float32, offset=1e4)[0][rank]
    results["far"] = NaiveSyncBatchNorm(CHANNELS)(far).detach()
    plain = NaiveSyncBatchNorm(CHANNELS, affine=False, track_running_stats=False)
    results["plain"] = plain(batches("equal", 0)[0][rank].float())
    average = NaiveSyncBatchNorm(CHANNELS, momentum=None).double()
    for call in range(2):
        average(batches("equal", call)[0][rank])
    results["average"] = average.running_mean
    norm.eval()
    results["eval"] = norm(torch.ones(2, CHANNELS, 3, 4).double()).detach()
    try:
        NaiveSyncBatchNorm(CHANNELS)(torch.zeros(0, CHANNELS, 3, 4))
    except ValueError as error:
        results["error"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def synchronized(run_in_two_processes):
    """What two processes saw, by rank."""
    return run_in_two_processes(__file__)


def joint_statistics(x, mode):
    """Of the joined batch, or in mode "" of batches that count alike."""
    parts = [part.numpy() for part in x if len(part)]
    weights = [len(part) if mode == "N" else 1 for part in parts]
    mean = np.average([p.mean((0, 2, 3)) for p in parts], axis=0, weights=weights)
    spread = [((p - per_channel(mean)) ** 2).mean((0, 2, 3)) for p in parts]
    return mean, np.average(spread, axis=0, weights=weights)


@pytest.mark.parametrize("case", SYNCHRONIZED)
def test_naive_sync_batch_norm_in_two_processes(synchronized, case):
    mode, calls = SYNCHRONIZED[case]
    module = disturb(nn.BatchNorm2d(CHANNELS).double())
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    running_mean, running_var = module.running_mean.numpy(), module.running_var.numpy()
    count = 0
    for call in range(len(calls)):
        x, grads = batches(case, call)
        seen = [rank[case][call] for rank in synchronized]
        if any(calls[call]):
            mean, var = joint_statistics(x, mode)
            running_mean = (1 - MOMENTUM) * running_mean + MOMENTUM * mean
            running_var = (1 - MOMENTUM) * running_var + MOMENTUM * var
            count += 1
        for rank in range(2):
            assert seen[rank]["y"].shape == x[rank].shape
            np.testing.assert_allclose(seen[rank]["mean"], running_mean, rtol=1e-10)
            np.testing.assert_allclose(seen[rank]["var"], running_var, rtol=1e-10)
            assert seen[rank]["count"] == count
            if len(x[rank]):
                expected = normalize(x[rank], mean, var, weight, bias, 1e-5)
                torch.testing.assert_close(seen[rank]["y"], expected)
        if not any(calls[call]) or case == "average of unequal":
            continue
        # Ioffe and Szegedy, "Batch Normalization", 2015, section 3, over the joined batch.
        joined, grad = torch.cat(x).numpy(), torch.cat(grads).numpy()
        scale = per_channel(1 / np.sqrt(var + 1e-5))
        x_hat = (joined - per_channel(mean)) * scale
        expected = (
            per_channel(weight)
            * scale
            * (
                grad
                - grad.mean((0, 2, 3), keepdims=True)
                - x_hat * (grad * x_hat).mean((0, 2, 3), keepdims=True)
            )
        )
        np.testing.assert_allclose(torch.cat([s["grad"] for s in seen]), expected, atol=1e-10)
        weight_grad, bias_grad = (
            sum(s[name] for s in seen) for name in ("weight_grad", "bias_grad")
        )
        np.testing.assert_allclose(weight_grad, (grad * x_hat).sum((0, 2, 3)), atol=1e-10)
        np.testing.assert_allclose(bias_grad, grad.sum((0, 2, 3)), atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_naive_sync_batch_norm_computes_half_precision_in_float32(synchronized, dtype, tolerance):
    x, _ = batches("equal", 0, dtype)
    mean, var = joint_statistics([t.double() for t in x], "")
    for rank in range(2):
        y = synchronized[rank][dtype]
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        expected = normalize(x[rank], mean, var, np.ones(CHANNELS), np.zeros(CHANNELS), 1e-5)
        torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


def test_naive_sync_batch_norm_far_from_zero(synchronized):
    """The mean of squares, 1e8, has a unit in the last place of 8 in float32."""
    x, _ = batches("equal", 0, torch.float32, offset=1e4)
    mean, var = joint_statistics([t.double() for t in x], "")
    for rank in range(2):
        expected = normalize(x[rank], mean, var, np.ones(CHANNELS), np.zeros(CHANNELS), 1e-5)
        torch.testing.assert_close(synchronized[rank]["far"].double(), expected, rtol=0, atol=5e-3)


def test_naive_sync_batch_norm_options(synchronized):
    x, _ = batches("equal", 0)
    mean, var = joint_statistics(x, "")
    later, _ = joint_statistics(batches("equal", 1)[0], "")
    for rank, results in enumerate(synchronized):
        expected = normalize(x[rank], mean, var, np.ones(CHANNELS), np.zeros(CHANNELS), 1e-5)
        torch.testing.assert_close(results["plain"].double(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(results["average"], (mean + later) / 2, rtol=1e-10)
        last = results["all empty"][-1]
        weight, bias = disturb(nn.BatchNorm2d(CHANNELS).double()).parameters()
        expected = normalize(
            torch.ones(2, CHANNELS, 3, 4),
            last["mean"],
            last["var"],
            weight.detach(),
            bias.detach(),
            1e-5,
        )
        torch.testing.assert_close(results["eval"], expected)
        assert results["error"].endswith("got an input of [0, 5, 3, 4]")


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_gives_what_the_cpu_gives(dtype, memory_format):
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]
    x = features(18, 2, CHANNELS, 6, 7).to(dtype).contiguous(memory_format=memory_format)
    for module in (FrozenBatchNorm2d(CHANNELS), LayerNorm(CHANNELS)):
        disturb(module)
        on_cuda = copy.deepcopy(module).cuda()
        for requires_grad in (False, True):
            expected = module(x.clone().requires_grad_(requires_grad))
            y = on_cuda(x.cuda().requires_grad_(requires_grad))
            assert y.dtype == expected.dtype
            assert y.is_contiguous(memory_format=memory_format)
            torch.testing.assert_close(y.cpu(), expected, rtol=tolerance, atol=tolerance)
            if requires_grad:
                y.sum().backward()


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2])


@pytest.mark.parametrize("differ", [False, True])
def test_joint_affine_maps(differ):
    """They are those of each norm, bit by bit."""
    norms = []
    with torch.inference_mode():  # whose norms keep no maps, as while a graph is recorded
        for channels in (3, 1, 8):
            norm = FrozenBatchNorm2d(channels, eps=0.5 if differ and channels == 8 else 1e-5)
            for x in norm.buffers():
                x.uniform_(0.5, 2)
            norms.append(norm)
    dtypes = (torch.float32, torch.float16)
    expected = [norm.scale_and_shift(dtype) for norm in norms for dtype in dtypes]
    with joint_affine_maps(norms):
        actual = [norm.scale_and_shift(dtype) for norm in norms for dtype in dtypes]
    for a, b in zip(actual, expected, strict=True):
        assert a[0].shape == b[0].shape
        assert a[1].dtype == b[1].dtype
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    shares = actual[0][0].untyped_storage().data_ptr() == actual[2][0].untyped_storage().data_ptr()
    assert shares == (not differ)
