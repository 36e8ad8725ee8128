"""Tables of results for the log."""

import logging
from collections.abc import Mapping

_MOST_COLUMNS = 6


def log_per_category_table(
    logger: logging.Logger, iou_type: str, per_category: Mapping[str, float]
) -> None:
    """Log the AP of each category, up to three categories a line.

    Args:
        logger: gets the table.
        iou_type: the task, for the title.
        per_category: AP in percent by name.
    """
    cells = [cell for name, ap in per_category.items() for cell in (name, f"{ap:.3f}")]
    columns = min(_MOST_COLUMNS, len(cells))
    headers = ["category", "AP"] * (columns // 2)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    rows = [row + [""] * (columns - len(row)) for row in rows]
    logger.info("Per-category %s AP: \n%s", iou_type, _pipe_table(headers, rows))


def _pipe_table(headers: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(":" + "-" * (width + 1) for width in widths) + "|"
    return "\n".join([line(headers), rule, *map(line, rows)])
