"""An image to run a model on, where what it shows does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from detectron2.config import CfgNode

_DEFAULT_SIDE = 800


def noise_image(
    cfg: CfgNode | DictConfig, size: tuple[int, int] | None, device: str
) -> dict[str, Any]:
    """A model's input of random pixels, always the same.

    Args:
        cfg: decides on the shorter side where there is no size.
        size: height and width.
        device: of the image.
    """
    import torch

    from detectron2.cli._errors import UsageError

    side = _side(cfg)
    height, width = (side, side * 4 // 3) if size is None else size
    if min(height, width) < 1:
        raise UsageError(f"--size must be positive, got {height} {width}")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator)
    return {"image": pixels.float().to(device), "height": height, "width": width}


def _side(cfg: CfgNode | DictConfig) -> int:
    from detectron2.cli._config import is_lazy

    if not is_lazy(cfg):
        return cfg.INPUT.MIN_SIZE_TEST or _DEFAULT_SIDE
    from omegaconf import OmegaConf

    side = OmegaConf.select(
        cfg, "dataloader.test.mapper.augmentations[0].short_edge_length", default=_DEFAULT_SIDE
    )
    return side if isinstance(side, int) else max(side)


def image_size(record: dict[str, Any]) -> str:
    """``800 x 1066``, of the image."""
    height, width = record["image"].shape[1:]
    return f"{height} x {width}"
