"""What is odd about a data set, counted by kind."""

import logging

# More would hide one kind of finding behind the examples of another.
_MAX_EXAMPLES = 3


class Findings:
    """Kinds of findings → how many there are, and the first few.

    Attributes:
        counts: kind → number of findings.
        examples: kind → descriptions of the first ones.
    """

    def __init__(self, max_examples: int = _MAX_EXAMPLES) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self._max_examples = max_examples

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count something, ``example`` being (the first of) what was found."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < self._max_examples:
            examples.append(example)

    def log(self, logger: logging.Logger, source: str) -> None:
        """Warn of each kind in one message, which names ``source``."""
        for kind, count in self.counts.items():
            logger.warning(f"{source}: {kind} ({count}), such as {self.examples[kind][0]}")
