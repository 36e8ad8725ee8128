"""What a module tells about the tensors it puts out."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map, as far as it is known before the data are.

    Attributes:
        channels: number of channels.
        height: rows; None where it depends on the input.
        width: columns; None where it depends on the input.
        stride: input pixels a feature pixel, along each side.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
