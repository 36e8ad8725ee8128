"""Normalisation layers, and the names that configurations give them.

They take feature maps ``(N, C, H, W)`` and keep their memory format.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F  # noqa: N812

from detectron2.utils import comm

__all__ = [
    "CycleBatchNormList",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "NaiveSyncBatchNorm",
    "get_norm",
]


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``values`` ``(C,)`` in the form that broadcasts over ``x`` ``(N, C, ...)``, in its dtype."""
    return values.to(x.dtype).reshape([-1] + [1] * (x.dim() - 2))


def _affine(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """``x * scale + shift``, channel by channel; keeps nothing of ``x`` for a frozen ``scale``."""
    scale, shift = _per_channel(scale, x), _per_channel(shift, x)
    # In one pass. PyTorch's CPU kernel for it takes a third to five times as long as two passes.
    return torch.addcmul(shift, x, scale) if x.is_cuda else x * scale + shift


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants.

    Nothing in it is trained, in any mode. The four tensors are buffers, and without a change they
    make it the identity (but for rounding). A pre-trained network whose batch norms were folded
    into an affine map has only ``weight`` and ``bias`` in its checkpoint, which fits, too.

    Args:
        num_features: channels C.
        eps: added to the variance.
    """

    # 2: running_mean and running_var exist. 3: eps is added to the variance.
    _version = 3
    _affine_map = None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        initial = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - eps}
        for name, value in initial.items():
            self.register_buffer(name, torch.full((num_features,), value))
        # For code that treats this like a BatchNorm2d; None is not in the state dict.
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, H, W)``; the result has the dtype of ``x``."""
        if torch.jit.is_tracing() or not x.requires_grad:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        # F.batch_norm would keep x for the backward pass, which here needs the scale only.
        return _affine(x, *self._scale_and_shift())

    def _scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(C,)`` each, in float32 at least: the shift is a difference, often of large numbers."""
        return _scale_and_shift(
            self.weight, self.bias, self.running_mean, self.running_var, self.eps
        )

    @torch.jit.unused
    def scale_and_shift(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Give what the layer amounts to, for those who fold it into a convolution.

        It is kept until the buffers change, and must not be written to. A change through
        ``buffer.data`` goes unseen until the next call of `train` or `eval`.

        Args:
            dtype: of the shift.

        Returns:
            What a weight ``(C, ...)`` is to be multiplied with, ``(C, 1, 1, 1)`` in float32 at
            least, and what is to be added to the output, ``(C,)``; None if a gradient is asked
            for, which neither has.
        """
        buffers = self._buffers
        tensors = (buffers.get("weight"), buffers.get("bias"))
        tensors += (buffers.get("running_mean"), buffers.get("running_var"))
        if any(tensor is None or tensor.requires_grad for tensor in tensors):
            return None
        # Tensors of inference mode do not count their changes, and what a CUDA graph reads must
        # not go away before it does.
        graph = self.weight.is_cuda and torch.cuda.is_current_stream_capturing()
        if graph or any(tensor.is_inference() for tensor in tensors):
            if _joint.maps is not None and self in _joint.maps:
                return _joint.maps.get(self, dtype)
            scale, shift = self._scale_and_shift()
            return scale[:, None, None, None], shift.to(dtype)
        known = self._affine_map
        state = [(id(tensor), tensor._version, tensor.data_ptr()) for tensor in tensors]
        if known is None or known[0] != state or dtype not in known[2]:
            # Also in the next backward pass, and outside of inference mode, if this is within.
            with torch.inference_mode(False), torch.no_grad():
                scale, shift = self._scale_and_shift()
                shifts = {} if known is None or known[0] != state else known[2]
                shifts[dtype] = shift.to(dtype)
                # With the tensors, so that no others get their ids.
                known = self._affine_map = (state, scale[:, None, None, None], shifts, tensors)
        return known[1], known[2][dtype]

    def train(self, mode: bool = True) -> Self:
        """As of any module; nothing in this one is trained, though."""
        self._affine_map = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_affine_map"}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        version = local_metadata.get("version")
        if version is None or version < 2:
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace each ``BatchNorm2d`` and ``SyncBatchNorm`` in ``module`` by a frozen one.

        Frozen ones share the running statistics' memory with what they replace, and have copies
        of the affine parameters.

        Returns:
            ``module``, changed in place, or the frozen layer if it was a batch norm itself.

        Raises:
            ValueError: a batch norm has no running statistics to freeze.
        """
        return _replace(module, (nn.BatchNorm2d, nn.SyncBatchNorm), cls._from_batch_norm, {})

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Replace each ``FrozenBatchNorm2d`` in ``module`` by a trainable ``BatchNorm2d``.

        Returns:
            ``module``, changed in place, or the new layer if it was a frozen one itself.
        """
        return _replace(module, (FrozenBatchNorm2d,), cls._to_batch_norm, {})

    @classmethod
    def _from_batch_norm(cls, module: Any) -> nn.Module:
        if module.running_mean is None:
            raise ValueError(f"{module} has no running statistics to freeze")
        frozen = cls(module.num_features, module.eps).to(module.running_mean)
        if module.affine:
            frozen.weight = module.weight.detach().clone()
            frozen.bias = module.bias.detach().clone()
        frozen.running_mean = module.running_mean.detach()
        frozen.running_var = module.running_var.detach()
        # So that freezing leaves the names in the state dict as they are.
        frozen.num_batches_tracked = module.num_batches_tracked
        return frozen.train(module.training)

    @staticmethod
    def _to_batch_norm(module: Any) -> nn.Module:
        batch_norm = nn.BatchNorm2d(module.num_features, module.eps).to(module.weight.device)
        batch_norm.weight.data = module.weight.clone()
        batch_norm.bias.data = module.bias.clone()
        batch_norm.running_mean = module.running_mean.clone()
        batch_norm.running_var = module.running_var.clone()
        if module.num_batches_tracked is not None:
            batch_norm.num_batches_tracked = module.num_batches_tracked.clone()
        return batch_norm.train(module.training)


def _scale_and_shift(
    weight: torch.Tensor,
    bias: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    var = running_var.to(torch.promote_types(running_var.dtype, torch.float32))
    scale = weight * torch.rsqrt(var + eps)
    return scale, torch.addcmul(bias, running_mean, scale, value=-1)


class _JointMaps:
    """The affine maps of many frozen norms with equal ``eps``, computed at once."""

    def __init__(self, norms: Sequence[FrozenBatchNorm2d]) -> None:
        sizes = [norm.num_features for norm in norms]
        buffers = [
            torch.cat([norm._buffers[name] for norm in norms])
            for name in ("weight", "bias", "running_mean", "running_var")
        ]
        scale, shift = _scale_and_shift(*buffers, norms[0].eps)
        self._places = {norm: i for i, norm in enumerate(norms)}
        self._sizes = sizes
        self._scales = scale[:, None, None, None].split(sizes)
        self._shift = shift
        self._shifts: dict[torch.dtype, Sequence[torch.Tensor]] = {}

    def __contains__(self, norm: FrozenBatchNorm2d) -> bool:
        return norm in self._places

    def get(self, norm: FrozenBatchNorm2d, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`FrozenBatchNorm2d.scale_and_shift`."""
        if dtype not in self._shifts:
            self._shifts[dtype] = self._shift.to(dtype).split(self._sizes)
        place = self._places[norm]
        return self._scales[place], self._shifts[dtype][place]


class _Joint(threading.local):
    maps: _JointMaps | None = None


_joint = _Joint()


@contextmanager
def joint_affine_maps(norms: Sequence[FrozenBatchNorm2d]) -> Iterator[None]:
    """Within it, what a CUDA graph records of the affine maps of ``norms`` is a few kernels, and
    not a few for each of them."""
    kinds = {(x.eps, *(b.dtype for b in x._buffers.values() if b is not None)) for x in norms}
    _joint.maps = _JointMaps(norms) if len(kinds) == 1 else None
    try:
        yield
    finally:
        _joint.maps = None


def _replace(
    module: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    make: Callable[[nn.Module], nn.Module],
    made: dict[nn.Module, nn.Module],
) -> nn.Module:
    """Put ``make(m)`` in the place of every ``m`` of ``kinds``, once for one that recurs."""
    if isinstance(module, kinds):
        if module not in made:
            made[module] = make(module)
        return made[module]
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _replace(child, kinds, make, made)
    return module


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Make a normalisation layer.

    Args:
        norm: None or ``""`` for no layer; a callable, which is called with ``out_channels``; or a
            name: ``BN``, ``SyncBN`` (and ``nnSyncBN``, the same), ``FrozenBN``, ``GN`` (in 32
            groups), ``naiveSyncBN``, ``naiveSyncBN_N`` (weighted by batch size) or ``LN``
            (:class:`LayerNorm` below).
        out_channels: channels of what will be normalised.

    Raises:
        KeyError: there is no norm of that name.
    """
    if norm is None or norm == "":
        return None
    if not isinstance(norm, str):
        return norm(out_channels)
    if norm not in _NORMS:
        raise KeyError(f"unknown norm {norm!r}, known are {', '.join(sorted(_NORMS))}")
    return _NORMS[norm](out_channels)


class _GatherRows(torch.autograd.Function):
    """One vector from every process, ``(D,)`` to ``(processes, D)``, by rank."""

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor) -> torch.Tensor:
        rows = row.new_empty(comm.get_world_size() * row.numel())
        dist.all_gather_into_tensor(rows, row.contiguous())
        return rows.view(-1, row.numel())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        # Each process has a loss, all of which depend on this one's row.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[comm.get_rank()]


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes.

    Unlike ``torch.nn.SyncBatchNorm`` it works on the CPU, too, and with batches of different
    sizes or none. Outside training, and with a single process, it is an ordinary ``BatchNorm2d``.
    In training the mean and the variance are those of all processes together, and the biased
    variance is what enters ``running_var``.

    Half-precision input is normalised in float32 and the result cast back.

    Args:
        *args: as for ``torch.nn.BatchNorm2d``.
        stats_mode: ``""`` gives every process the same weight, and none may have an empty batch;
            ``"N"`` weights by batch size, 0 included.
        **kwargs: as for ``torch.nn.BatchNorm2d``.

    Raises:
        ValueError: ``stats_mode`` is another.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stats_mode not in ("", "N"):
            raise ValueError(f"stats_mode must be '' or 'N', got {stats_mode!r}")
        self._stats_mode = stats_mode

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, H, W)``.

        Raises:
            ValueError: N is 0 in training with several processes and ``stats_mode=""``.
        """
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        if self._stats_mode == "" and input.numel() == 0:
            raise ValueError(
                "NaiveSyncBatchNorm takes an empty batch with stats_mode='N' only, "
                f"got an input of {list(input.shape)}"
            )
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, var, total = self._joint_statistics(x)
        self._update_running_statistics(mean.detach(), var.detach(), total)
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return _affine(x, scale, shift).to(input.dtype)

    def _joint_statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean and variance ``(C,)`` over all processes, and the sum of their weights."""
        if x.numel() > 0:
            var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            weight = mean.new_full((1,), x.size(0) if self._stats_mode == "N" else 1)
        else:
            # On the graph, so that the backward pass communicates here as it does elsewhere.
            mean = var = x.sum(dim=(0, 2, 3))
            weight = mean.new_zeros(1)
        rows = _GatherRows.apply(torch.cat([mean, var, weight]))
        means, variances, weights = rows.split([mean.numel(), mean.numel(), 1], dim=1)
        total = weights.sum()
        shares = weights / total.clamp(min=1)
        mean = (means * shares).sum(dim=0)
        # Not from the mean of squares, which loses the digits of a variance beside a large mean.
        var = ((variances + (means - mean).square()) * shares).sum(dim=0)
        return mean, var, total

    @torch.no_grad()
    def _update_running_statistics(
        self, mean: torch.Tensor, var: torch.Tensor, total: torch.Tensor
    ) -> None:
        if self.running_mean is None:
            return
        # Nothing was seen if all batches are empty.
        seen = total.clamp(max=1)
        self.num_batches_tracked.add_(seen.to(self.num_batches_tracked.dtype))
        if self.momentum is None:
            step = seen / self.num_batches_tracked.clamp(min=1)
        else:
            step = seen * self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, var)):
            running.lerp_(value.to(running.dtype), step.to(running.dtype))


class CycleBatchNormList(nn.ModuleList):
    """Several batch norms that take turns, one a call, and share their affine parameters.

    For a head that is applied to a fixed sequence of feature levels, each with statistics of its
    own.

    Args:
        length: number of batch norms.
        bn_class: their class, called with ``affine=False`` and ``kwargs``.
        **kwargs: arguments of ``bn_class``, ``num_features`` among them. ``affine=False`` leaves
            out the shared ``weight`` and ``bias``.
    """

    def __init__(
        self, length: int, bn_class: Callable[..., nn.Module] = nn.BatchNorm2d, **kwargs: Any
    ) -> None:
        affine = kwargs.pop("affine", True)
        super().__init__([bn_class(**kwargs, affine=False) for _ in range(length)])
        self._affine = affine
        if affine:
            self.weight = nn.Parameter(torch.ones(kwargs["num_features"]))
            self.bias = nn.Parameter(torch.zeros(kwargs["num_features"]))
        self._next = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(N, C, H, W)`` by the next batch norm."""
        x = self[self._next](x)
        self._next = (self._next + 1) % len(self)
        return _affine(x, self.weight, self.bias) if self._affine else x

    def extra_repr(self) -> str:
        return f"affine={self._affine}"


class LayerNorm(nn.Module):
    """Layer norm over the channels of each pixel of ``(N, C, H, W)``.

    Args:
        normalized_shape: channels C.
        eps: added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.normalized_shape))
        self.bias = nn.Parameter(torch.zeros(self.normalized_shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each pixel; the result has the wider dtype of ``x`` and the parameters."""
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        # PyTorch's kernel wants channels last. It is one pass, and sums half precision in float32.
        y = F.layer_norm(
            x.permute(0, 2, 3, 1).to(dtype),
            self.normalized_shape,
            self.weight.to(dtype),
            self.bias.to(dtype),
            self.eps,
        ).permute(0, 3, 1, 2)
        return y.contiguous() if x.is_contiguous() else y


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": LayerNorm,
}
