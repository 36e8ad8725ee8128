"""The summary of COCO evaluation for any number of detections."""

import contextlib
import io

import numpy as np
from pycocotools.cocoeval import COCOeval


class COCOevalMaxDets(COCOeval):
    """A COCOeval whose summary is for the largest of ``params.maxDets``, instead of for 100."""

    def summarize(self) -> None:
        """Print the summary and put it into ``self.stats``: for keypoints the API's ten numbers,
        otherwise its twelve, with average recall at each of the three ``params.maxDets``.

        Raises:
            RuntimeError: if :meth:`accumulate` was not called.
        """
        if not self.eval:
            raise RuntimeError("summarize() needs accumulate() to be called first")
        if self.params.iouType == "keypoints":
            super().summarize()
            return
        first, second, last = self.params.maxDets[:3]
        rows = [
            (True, None, "all", last),
            (True, 0.5, "all", last),
            (True, 0.75, "all", last),
            *((True, None, area, last) for area in ("small", "medium", "large")),
            *((False, None, "all", number) for number in (first, second, last)),
            *((False, None, area, last) for area in ("small", "medium", "large")),
        ]
        self.stats = np.array([self._summarize_row(*row) for row in rows])

    def _summarize_row(
        self, is_precision: bool, threshold: float | None, area: str, max_dets: int
    ) -> float:
        params = self.params
        values = self.eval["precision" if is_precision else "recall"]
        if threshold is not None:
            values = values[np.isclose(params.iouThrs, threshold)]
        values = values[..., params.areaRngLbl.index(area), params.maxDets.index(max_dets)]
        mean = mean_of_valid(values)
        mean = -1.0 if np.isnan(mean) else mean
        title = "Average Precision  (AP)" if is_precision else "Average Recall     (AR)"
        ious = f"{params.iouThrs[0]:0.2f}:{params.iouThrs[-1]:0.2f}"
        ious = ious if threshold is None else f"{threshold:0.2f}"
        print(
            f" {title} @[ IoU={ious:<9} | area={area:>6s} | maxDets={max_dets:>3d} ] = {mean:0.3f}"
        )
        return mean

    def __str__(self) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as summary:
            self.summarize()
        return summary.getvalue()


def mean_of_valid(values: np.ndarray) -> float:
    """The mean of what is not -1; NaN if all is."""
    valid = values[values > -1]
    return float(np.mean(valid)) if valid.size else float("nan")
