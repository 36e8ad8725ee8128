"""What a check of a data set has found."""

import dataclasses

from detectron2.data.datasets._findings import Findings

# Of longer histograms, the most frequent classes.
_MAX_CLASSES_SHOWN = 100


@dataclasses.dataclass
class DatasetReport:
    """What :func:`~detectron2.data.check.check_dataset` has found; as text, a report to read.

    Errors keep the data from being loaded or trained on, or make results wrong. Warnings are what
    is odd but works.
    """

    name: str
    num_images: int = 0
    num_annotations: int = 0
    histogram: dict[str, int] = dataclasses.field(default_factory=dict)
    """Class → number of annotations, crowds included, in the order of the classes."""
    errors: Findings = dataclasses.field(default_factory=Findings)
    """Kinds of errors with counts and examples."""
    warnings: Findings = dataclasses.field(default_factory=Findings)
    """Likewise."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What could not be checked."""

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors.counts

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.num_images} images, {self.num_annotations} annotations, "
            f"{len(self.histogram)} classes",
            *(f"note: {note}" for note in self.notes),
            *_describe("error", self.errors),
            *_describe("warning", self.warnings),
            *_describe_histogram(self.histogram),
        ]
        if not self.errors.counts and not self.warnings.counts:
            lines.append("nothing found")
        return "\n".join(lines)


def _describe(label: str, findings: Findings) -> list[str]:
    lines = []
    for kind, count in findings.counts.items():
        lines.append(f"{label}: {kind} ({count})")
        lines += [f"    {example}" for example in findings.examples[kind]]
    return lines


def _describe_histogram(histogram: dict[str, int]) -> list[str]:
    if not any(histogram.values()):
        return []
    ranked = sorted(histogram.items(), key=lambda item: -item[1])
    shown = ranked[:_MAX_CLASSES_SHOWN]
    digits = len(str(shown[0][1]))
    lines = ["annotations by class:", *(f"    {count:{digits}} {name}" for name, count in shown)]
    if len(ranked) > len(shown):
        lines.append(f"    … {len(ranked) - len(shown)} more")
    return lines
