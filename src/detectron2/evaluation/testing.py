"""Results of evaluations: printed for spreadsheets, compared with what is expected, flattened."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from pprint import pformat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["flatten_results_dict", "print_csv_format", "verify_results"]


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics of each task as lines of comma-separated values.

    Metrics with a "-" in their names, those of single classes, are left out.

    Args:
        results: ``{task: {metric: number}}``, as :meth:`DatasetEvaluator.evaluate` returns. What
            is no dict in it is logged as ``task=value``.
    """
    if not isinstance(results, Mapping):
        raise TypeError(f"results must be a dict, not {results!r}")
    logger = logging.getLogger(__name__)
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(main))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Any]) -> bool:
    """Compare results with ``cfg.TEST.EXPECTED_RESULTS``, and end the program if they differ.

    Args:
        cfg: its list has ``[task, metric, value, tolerance]`` for each metric that is verified.
        results: ``{task: {metric: number}}``. A metric that is missing or not finite differs.

    Returns:
        True. Otherwise the program ends with status 1, by SystemExit, and the log tells why.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not expected:
        return True
    logger = logging.getLogger(__name__)
    failures = []
    for task, metric, value, tolerance in expected:
        metrics = results.get(task)
        actual = metrics.get(metric) if isinstance(metrics, Mapping) else None
        if actual is None:
            failures.append(f"{task}/{metric} is missing")
        elif not math.isfinite(actual) or abs(actual - value) > tolerance:
            failures.append(f"{task}/{metric} is {actual}, not {value} ± {tolerance}")
    if failures:
        logger.error("The results are not as expected: %s", "; ".join(failures))
        logger.error("All results:\n%s", pformat(results))
        sys.exit(1)
    logger.info("The results are as expected")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Make one dict of nested ones, with keys joined by "/".

    Args:
        results: for instance ``{"bbox": {"AP": 1}}``, which gives ``{"bbox/AP": 1}``.
    """
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat.update({f"{key}/{name}": inner_value for name, inner_value in inner.items()})
        else:
            flat[key] = value
    return flat
