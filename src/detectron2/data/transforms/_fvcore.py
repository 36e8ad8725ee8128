"""Extending a class of ``fvcore.transforms`` under its own name."""

from typing import ClassVar


class Extends:
    """Base of a transform that takes the place of the one of fvcore that it derives from.

    Code that builds the original is thereby served by ``isinstance`` checks against the extension.
    """

    original: ClassVar[type]
    """The class of fvcore; set by the extension itself, and not meant for its subclasses."""

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        if "original" in vars(cls) and cls.original in subclass.__mro__:
            return True
        return NotImplemented
