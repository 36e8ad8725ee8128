"""Pairs of images and semantic masks in two folders."""

import logging
import os

from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, str]]:
    """Pair images with their ground truth by name.

    Args:
        gt_root: the folder of the ground truth, images of one class a pixel.
        image_root: the folder of the images.
        gt_ext: how the names of the ground truth's files end; what is before must be as in the
            image's name.
        image_ext: how the images' names end.

    Returns:
        ``file_name`` and ``sem_seg_file_name`` of the pairs, by name. What has no partner is left
        out, and logged.

    Raises:
        ValueError: there are no pairs.
    """
    images = _files_by_stem(image_root, image_ext)
    truths = _files_by_stem(gt_root, gt_ext)
    pairs = sorted(images.keys() & truths.keys())
    if not pairs:
        raise ValueError(
            f"no ground truth *{gt_ext} in {gt_root} ({len(truths)} files, such as "
            f"{next(iter(truths), None)!r}) has the name of an image *{image_ext} in {image_root} "
            f"({len(images)} files, such as {next(iter(images), None)!r})"
        )
    for files, others, missing in ((images, truths, gt_root), (truths, images, image_root)):
        alone = sorted(files.keys() - others.keys())
        if alone:
            logger.warning(
                f"{len(alone)} files left out, as nothing in {missing} has their name, such as "
                f"{os.path.join(*files[alone[0]])}"
            )
    logger.info(f"{len(pairs)} images with semantic masks from {image_root}")
    return [
        {
            "file_name": os.path.join(*images[stem]),
            "sem_seg_file_name": os.path.join(*truths[stem]),
        }
        for stem in pairs
    ]


def _files_by_stem(folder: str, ending: str) -> dict[str, tuple[str, str]]:
    """Names of files less ``ending`` → (folder, name)."""
    names = (name for name in PathManager.ls(folder) if name.endswith(ending))
    return {name.removesuffix(ending).rstrip("."): (folder, name) for name in names}
