"""Conversion of configs between versions of the keys' names."""

import copy
import logging
from typing import Any, ClassVar

from detectron2.config.config import CfgNode
from detectron2.config.config import CfgNode as CN  # noqa: N817 (a public name)

__all__ = ["downgrade_config", "upgrade_config"]


def upgrade_config(cfg: CfgNode, to_version: int | None = None) -> CfgNode:
    """Convert a config to a later version.

    Args:
        cfg: a config with all keys of its version.
        to_version: the version wanted; by default the latest one.

    Returns:
        A converted copy.

    Raises:
        ValueError: if the config's version is later than the one wanted, or none is known as that.
    """
    from detectron2.config.defaults import _C

    target = _C.VERSION if to_version is None else to_version
    if not cfg.VERSION <= target <= _C.VERSION:
        raise ValueError(
            f"Cannot upgrade a config from version {cfg.VERSION} to {target}; {_C.VERSION} is the "
            "latest"
        )
    converted = cfg.clone()
    for version in range(cfg.VERSION, target):
        _CONVERTERS[version].upgrade(converted)
        converted["VERSION"] = version + 1
    return converted


def downgrade_config(cfg: CfgNode, to_version: int) -> CfgNode:
    """Convert a config to an earlier version.

    Args:
        cfg: a config with all keys of its version.
        to_version: the version wanted, from 0 to the config's.

    Returns:
        A converted copy.

    Raises:
        ValueError: if the config's version is earlier than the one wanted, or that is negative.
    """
    if not 0 <= to_version <= cfg.VERSION:
        raise ValueError(f"Cannot downgrade a config from version {cfg.VERSION} to {to_version}")
    converted = cfg.clone()
    for version in range(cfg.VERSION, to_version, -1):
        _CONVERTERS[version - 1].downgrade(converted)
        converted["VERSION"] = version - 1
    return converted


def guess_version(cfg: CfgNode, filename: str) -> int:
    """Tell the version of a partial config that does not name it, from the keys that it has.

    Args:
        cfg: the config.
        filename: where it is from, for the warning.

    Returns:
        1 if it has a key that only version 1 has, otherwise the latest version.
    """
    from detectron2.config.defaults import _C

    old = any(_has(cfg, name) for name in ("MODEL.WEIGHT", "TEST.AUG_ON"))
    version = 1 if old else _C.VERSION
    logging.getLogger(__name__).warning(
        f"{filename} has no VERSION: taking it as version {version}"
        + ("" if old else ", the latest one")
    )
    return version


def _has(cfg: CfgNode, name: str) -> bool:
    node: Any = cfg
    for key in name.split("."):
        if not isinstance(node, CfgNode) or key not in node:
            return False
        node = node[key]
    return True


def _take(cfg: CfgNode, name: str) -> Any:
    """Remove a key, and the sections that are empty without it; return its value."""
    *sections, key = name.split(".")
    nodes = [cfg]
    for section in sections:
        nodes.append(nodes[-1][section])
    value = nodes[-1].pop(key)
    for parent, child, section in zip(nodes[-2::-1], nodes[:0:-1], sections[::-1], strict=True):
        if not child:
            del parent[section]
    return value


def _put(cfg: CfgNode, name: str, value: Any) -> None:
    *sections, key = name.split(".")
    node = cfg
    for section in sections:
        node = node.setdefault(section, CN())
    node[key] = value


class _RenameConverter:
    """Conversion that moves values from one key to another."""

    RENAME: ClassVar[list[tuple[str, str]]] = []
    """Pairs of the key in the earlier and in the later version, in the order of upgrading."""

    @classmethod
    def upgrade(cls, cfg: CfgNode) -> None:
        """Rename the keys of a config in place, all of which it has to have."""
        for old, new in cls.RENAME:
            _put(cfg, new, _take(cfg, old))

    @classmethod
    def downgrade(cls, cfg: CfgNode) -> None:
        """Undo :meth:`upgrade`."""
        for old, new in reversed(cls.RENAME):
            _put(cfg, old, _take(cfg, new))


class ConverterV1(_RenameConverter):
    """Between the versions 0 and 1."""

    RENAME: ClassVar[list[tuple[str, str]]] = [("MODEL.RPN_HEAD.NAME", "MODEL.RPN.HEAD_NAME")]


def _in_section(section: str, *renames: tuple[str, str]) -> list[tuple[str, str]]:
    return [(f"{section}.{old}", f"{section}.{new}") for old, new in renames]


class ConverterV2(_RenameConverter):
    """Between the versions 1 and 2.

    Version 1 has anchors for the RPN and for RetinaNet, version 2 only one kind: of the two the
    meta-architecture decides which is kept.
    """

    RENAME: ClassVar[list[tuple[str, str]]] = [
        ("MODEL.WEIGHT", "MODEL.WEIGHTS"),
        ("MODEL.PANOPTIC_FPN.SEMANTIC_LOSS_SCALE", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT"),
        ("MODEL.PANOPTIC_FPN.RPN_LOSS_SCALE", "MODEL.RPN.LOSS_WEIGHT"),
        *_in_section(
            "MODEL.PANOPTIC_FPN",
            ("INSTANCE_LOSS_SCALE", "INSTANCE_LOSS_WEIGHT"),
            ("COMBINE_ON", "COMBINE.ENABLED"),
            ("COMBINE_OVERLAP_THRESHOLD", "COMBINE.OVERLAP_THRESH"),
            ("COMBINE_STUFF_AREA_LIMIT", "COMBINE.STUFF_AREA_LIMIT"),
            ("COMBINE_INSTANCES_CONFIDENCE_THRESHOLD", "COMBINE.INSTANCES_CONFIDENCE_THRESH"),
        ),
        *_in_section(
            "MODEL.ROI_HEADS",
            ("SCORE_THRESH", "SCORE_THRESH_TEST"),
            ("NMS", "NMS_THRESH_TEST"),
        ),
        *_in_section(
            "MODEL.RETINANET",
            ("INFERENCE_SCORE_THRESHOLD", "SCORE_THRESH_TEST"),
            ("INFERENCE_TOPK_CANDIDATES", "TOPK_CANDIDATES_TEST"),
            ("INFERENCE_NMS_THRESHOLD", "NMS_THRESH_TEST"),
        ),
        *_in_section(
            "TEST",
            ("DETECTIONS_PER_IMG", "DETECTIONS_PER_IMAGE"),
            ("AUG_ON", "AUG.ENABLED"),
            ("AUG_MIN_SIZES", "AUG.MIN_SIZES"),
            ("AUG_MAX_SIZE", "AUG.MAX_SIZE"),
            ("AUG_FLIP", "AUG.FLIP"),
        ),
    ]

    @classmethod
    def upgrade(cls, cfg: CfgNode) -> None:
        """Rename the keys of a config in place, and choose its anchors."""
        super().upgrade(cfg)
        retinanet = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
        for shape in ("ASPECT_RATIOS", "SIZES"):
            of_rpn = _take(cfg, f"MODEL.RPN.ANCHOR_{shape}")
            of_retinanet = _take(cfg, f"MODEL.RETINANET.ANCHOR_{shape}")
            _put(cfg, f"MODEL.ANCHOR_GENERATOR.{shape}", of_retinanet if retinanet else of_rpn)
        _take(cfg, "MODEL.RETINANET.ANCHOR_STRIDES")

    @classmethod
    def downgrade(cls, cfg: CfgNode) -> None:
        """Undo :meth:`upgrade`: both kinds of anchors are those of version 2."""
        super().downgrade(cfg)
        for shape in ("ASPECT_RATIOS", "SIZES"):
            value = _take(cfg, f"MODEL.ANCHOR_GENERATOR.{shape}")
            _put(cfg, f"MODEL.RPN.ANCHOR_{shape}", value)
            _put(cfg, f"MODEL.RETINANET.ANCHOR_{shape}", copy.deepcopy(value))
        # Nobody reads the strides.
        _put(cfg, "MODEL.RETINANET.ANCHOR_STRIDES", [])


_CONVERTERS: list[type[_RenameConverter]] = [ConverterV1, ConverterV2]
