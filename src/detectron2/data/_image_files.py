"""Images from files, in the channel orders and colour spaces that models take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.utils.file_io import PathManager

# BT.601, rows Y, U, V: see https://en.wikipedia.org/wiki/YUV#SDTV_with_BT.601
_M_RGB2YUV = [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
_M_YUV2RGB = [[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]]

_EXIF_ORIENTATION = 0x0112
# How to bring an image of each orientation upright: CIPA DC-008, 4.6.4.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """The image as its EXIF data say that it is to be looked at; unchanged if they say nothing."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:
        # Whatever broken EXIF data raise; the pixels may be fine.
        return image
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits in 8, where Pillow's own conversion cuts off at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(
            f"grey values from {values.min()} to {values.max()} are not those of 16 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:  # noqa: N802
    """The pixels of an image in a format.

    Args:
        image: of any mode. 16 bits are scaled to 8 where ``format`` has 8.
        format: a mode of Pillow, or "BGR", or "YUV-BT.601"; None keeps the image's own mode.

    Returns:
        ``(H, W, C)``, or ``(H, W)`` for grey images with None; uint8, but for "YUV-BT.601", which
        is float64 with Y in [0, 1], and modes of other types. "L" has C = 1.
    """
    if format is not None:
        mode = "RGB" if format in ("BGR", "YUV-BT.601") else format
        if image.mode in _DEEP_MODES and mode not in (*_DEEP_MODES, "F"):
            image = _to_8_bits(image)
        if image.mode != mode:
            try:
                image = image.convert(mode)
            except ValueError as error:
                raise ValueError(
                    f"a {image.mode} image has no conversion to the format {format!r}"
                ) from error
    if format == "BGR":
        # Several times as fast as to reverse an array's channels.
        reversed_bytes = image.tobytes("raw", "BGR")
        return np.frombuffer(reversed_bytes, np.uint8).reshape(image.height, image.width, 3)
    pixels = np.asarray(image)
    if format == "L":
        return pixels[:, :, None]
    if format == "YUV-BT.601":
        return np.dot(pixels / 255.0, np.array(_M_RGB2YUV).T)
    return pixels


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """The inverse of :func:`convert_PIL_to_numpy`.

    Args:
        image: ``(H, W, C)``; with "L" and other modes of one channel ``(H, W)``, too.
        format: what ``image`` is.

    Returns:
        ``(H, W, 3)``, RGB, in [0, 255]; uint8, but of BGR what ``image`` was.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if format == "BGR":
        return image[:, :, [2, 1, 0]]
    if format == "YUV-BT.601":
        rgb = np.dot(image, np.array(_M_YUV2RGB).T) * 255.0
        return np.rint(rgb).clip(0, 255).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype == np.bool_:  # Pillow's mode "1"
        image, format = image * np.uint8(255), "L"
    image = image.astype(np.uint8, copy=False)
    if format == "RGB":
        return image
    pillow_image = Image.frombytes(format, image.shape[1::-1], np.ascontiguousarray(image))
    return np.asarray(pillow_image.convert("RGB"))


def _open(file_name: str, convert: Any) -> np.ndarray:
    """``convert`` of the upright image in a file."""
    with PathManager.open(file_name, "rb") as file:
        try:
            with Image.open(file) as image:
                return convert(_apply_exif_orientation(image))
        except MemoryError:
            raise
        except Exception as error:
            # Decoders raise much: OSError, SyntaxError, struct.error, DecompressionBombError, ...
            raise OSError(
                f"cannot read the image {file_name!r}: {type(error).__name__}: {error}"
            ) from error


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file, turned upright by its EXIF orientation.

    Args:
        file_name: path or URL.
        format: see :func:`convert_PIL_to_numpy`.

    Returns:
        ``(H, W, C)``, or ``(H, W)`` for grey images with None. May be a read-only view.

    Raises:
        OSError: the file cannot be opened, or is broken; it is named.
    """
    return _open(file_name, lambda image: convert_PIL_to_numpy(image, format))


def _labels(image: Image.Image) -> np.ndarray:
    if image.mode in ("L", "P", "1"):
        # Not converted: a palette tells colours, and the labels are the indices into it.
        return np.asarray(image).astype(np.uint8, copy=False)
    if image.mode in _DEEP_MODES:
        return np.asarray(image).astype(np.int32, copy=False)
    channels = np.asarray(image.convert("RGB"))
    if (channels == channels[:, :, :1]).all():
        return channels[:, :, 0]
    raise ValueError(f"a {image.mode} image in several colours is not one of category numbers")


def read_sem_seg(file_name: str) -> np.ndarray:
    """Read an image of category numbers, one a pixel.

    Args:
        file_name: path or URL of a grey image of 8 or 16 bits, or of one with a palette, whose
            indices are the category numbers.

    Returns:
        ``(H, W)``, uint8, or int32 for more than 8 bits.

    Raises:
        OSError: the file cannot be opened, is broken, or has colours; it is named.
    """
    return _open(file_name, _labels)
