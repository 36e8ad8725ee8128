"""Images that the command line names: files, folders, and the frames of videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detectron2.cli._errors import UsageError

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True)
class NamedImage:
    """An image and the relative path, without an ending, of what is made of it.

    Attributes:
        pixels: (H, W, 3) uint8, BGR.
    """

    source: str
    name: str
    pixels: np.ndarray


def find_inputs(paths: Sequence[str]) -> list[str]:
    """The files that paths stand for: a folder for its images, in the order of their names.

    Raises:
        UsageError: a path is not there, has an unknown ending, or is a folder without images.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            names = sorted(n for n in os.listdir(path) if n.lower().endswith(IMAGE_ENDINGS))
            if not names:
                raise UsageError(f"there are no images in {path}")
            found += [os.path.join(path, name) for name in names]
        elif not os.path.exists(path):
            raise UsageError(f"there is no {path}")
        elif not path.lower().endswith(IMAGE_ENDINGS + VIDEO_ENDINGS):
            raise UsageError(f"{path} ends like neither an image nor a video")
        else:
            found.append(path)
    return found


def is_video(path: str) -> bool:
    """Whether a file is a video, by its name."""
    return path.lower().endswith(VIDEO_ENDINGS)


def read_inputs(files: Sequence[str], unreadable: list[str]) -> Iterator[NamedImage]:
    """Read images, and the frames of videos; names that repeat get a number.

    Args:
        files: of :func:`find_inputs`.
        unreadable: gets a message for each file that cannot be read.
    """
    from detectron2.data.detection_utils import read_image

    taken: set[str] = set()
    for file in files:
        stem = _unused(Path(file).stem, taken)
        try:
            if is_video(file):
                for index, frame in enumerate(_frames(file)):
                    yield NamedImage(f"{file}#{index}", f"{stem}_{index:06d}", frame)
            else:
                yield NamedImage(file, stem, read_image(file, format="BGR"))
        except OSError as error:
            unreadable.append(str(error))


def count_images(files: Sequence[str]) -> int | None:
    """The number of images to be read; None if there are videos among the files."""
    return None if any(map(is_video, files)) else len(files)


def _unused(stem: str, taken: set[str]) -> str:
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _frames(file: str) -> Iterator[np.ndarray]:
    # Decoders would say in their words, too, what is told here.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise UsageError(
            f"{file}: reading videos needs the package opencv-python; a folder of frames does not"
        ) from error
    video = cv2.VideoCapture(file)
    try:
        found, frame = video.read()
        if not found:
            raise OSError(f"{file} cannot be read as a video")
        while found:
            yield frame
            found, frame = video.read()
    finally:
        video.release()
