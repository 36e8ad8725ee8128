"""Saving and loading models, and all that a training needs to go on."""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import torch
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.checkpoint import _report as report
from detectron2.checkpoint._file_formats import from_pycls, from_torch, read_pickle, read_torch
from detectron2.checkpoint._torchvision_names import (
    are_of_torchvision,
    from_torchvision,
    is_torchvision_resnet,
)
from detectron2.checkpoint.c2_model_loading import align, align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils._atomic_file import replacing
from detectron2.utils.file_io import PathManager

__all__ = ["DetectionCheckpointer", "align_and_update_state_dicts"]

_TORCHVISION = (
    "The weights are those of a ResNet of torchvision. They are for RGB images with "
    "MODEL.PIXEL_MEAN [123.675, 116.28, 103.53] and MODEL.PIXEL_STD [58.395, 57.12, 57.375], and "
    "for MODEL.RESNETS.STRIDE_IN_1X1 False"
)


class DetectionCheckpointer(Checkpointer):
    """Saves and loads checkpoints, and loads weights of other sources into detectors.

    :meth:`load` takes ``.pth`` files, checkpoints or state dicts alone, those of torchvision's
    ResNets included; ``.pkl`` files of the model zoo, of conversion scripts and of Detectron; and
    ``.pyth`` files of pycls. They may come from anywhere: no file runs code. Names are those of
    the model, or, where the file says so or its path ends with ``?matching_heuristics=True``,
    their ends.

    A file takes its name only when it is complete and on the disk, and ``last_checkpoint`` names
    it only then. So a process may be killed at any moment and resume from the last good
    checkpoint.

    Args:
        model: wrapped by ``DistributedDataParallel`` or not; it is saved without the wrapper. With
            the wrapper, :meth:`load` and :meth:`resume_or_load` are for all processes together,
            and only rank 0 needs the file.
        save_dir: the folder to save to and resume from; ``""`` saves nothing.
        save_to_disk: whether :meth:`save` writes; None means in the main process only.
        **checkpointables: objects with ``state_dict()`` and ``load_state_dict()``, saved and
            loaded under these names.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(
            model,
            os.fspath(save_dir),
            save_to_disk=comm.is_main_process() if save_to_disk is None else save_to_disk,
            **checkpointables,
        )
        self.logger = logging.getLogger(__name__)
        self.path_manager = PathManager
        self._distributed = isinstance(model, DistributedDataParallel)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth``, and make it the last checkpoint.

        The file has ``"model"``, an entry for each checkpointable, and ``kwargs``. A file of this
        name is replaced once the new one is complete; an error leaves it.

        Args:
            name: without a folder.
            **kwargs: more to save, such as ``iteration``. To be loaded again, it should be made of
                tensors, NumPy arrays, numbers, strings and plain containers.

        Raises:
            ValueError: ``name`` has a folder.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        basename = f"{name}.pth"
        if os.path.basename(basename) != basename:
            raise ValueError(f"the name of a checkpoint cannot have a folder: {name!r}")
        data = {
            "model": self.model.state_dict(),
            **{key: obj.state_dict() for key, obj in self.checkpointables.items()},
            **kwargs,
        }
        path = os.path.join(self.save_dir, basename)
        self.logger.info(f"Saving checkpoint to {path}")
        with self._replacing(path, "wb") as file:
            torch.save(data, file)
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make a file in ``save_dir`` the one to resume from."""
        with self._replacing(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

    def _replacing(self, path: str, mode: str) -> Any:
        if re.match(r"[a-zA-Z][\w+.-]*://", path):
            # Remote stores have no temporary names; they make files visible when complete.
            return self.path_manager.open(path, mode)
        os.makedirs(self.save_dir, exist_ok=True)
        return replacing(path, mode)

    def load(
        self, path: str | os.PathLike[str] | None, checkpointables: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Load the model, and checkpointables, from a file.

        What the file and the model do not share, by name and shape, is left as it is and
        reported, except for what has no weight in the matter: ``pixel_mean`` and ``pixel_std``,
        and the anchors that old checkpoints have.

        Args:
            path: a local path, a URL, or ``catalog://...`` or ``detectron2://...``; with
                ``?matching_heuristics=True`` appended, names are matched by their ends. ``""``
                and None load nothing.
            checkpointables: names of those to load, as far as the file has them; None means all.

        Returns:
            What else is in the file, such as ``iteration``.

        Raises:
            ValueError: the query after ``?`` is another; the file holds no weights; or names do
                not tell where a tensor belongs.
            OSError: there is no such file, with ``DistributedDataParallel`` on rank 0.
            pickle.UnpicklingError: the file holds objects that are not admitted, or is damaged.
        """
        if not path:
            self.logger.info("No checkpoint to load: the model keeps its initial weights")
            return {}
        names = list(self.checkpointables if checkpointables is None else checkpointables)
        for name in names:
            if name not in self.checkpointables:
                raise KeyError(f"no checkpointable {name!r}, only {list(self.checkpointables)}")
        self.logger.info(f"Loading from {path} ...")
        path, match_ends = _split_query(os.fspath(path))
        checkpoint = self._read_together(path) if self._distributed else self._read(path)
        if match_ends:
            checkpoint["matching_heuristics"] = True
        incompatible = self._load_model(checkpoint)
        # Subclasses may return nothing.
        if incompatible is not None:
            self._log_incompatible_keys(incompatible)
        for name in names:
            if name in checkpoint:
                self.logger.info(f"Loading {name} from {path} ...")
                self.checkpointables[name].load_state_dict(checkpoint.pop(name))
        return checkpoint

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the last checkpoint in ``save_dir``, or else load a model from ``path``.

        Args:
            path: what to start from, as in :meth:`load`; of it, only the model is loaded.
            resume: whether to look for a last checkpoint; of that, everything is loaded.

        Returns:
            As :meth:`load`.
        """
        last = self.get_checkpoint_file() if resume and self.has_checkpoint() else ""
        if self._distributed:
            # A folder that not all machines share is rank 0's.
            last = comm.all_gather(last)[0]
        return self.load(last) if last else self.load(path, checkpointables=[])

    def _read(self, path: str) -> dict[str, Any]:
        local = path if os.path.isfile(path) else self.path_manager.get_local_path(path)
        if not os.path.isfile(local):
            raise FileNotFoundError(f"there is no checkpoint {path}")
        return self._load_file(local)

    def _read_together(self, path: str) -> dict[str, Any]:
        """As :meth:`_read`, in all processes, with what rank 0 reads for those without the file."""
        checkpoint, error = None, None
        try:
            checkpoint = self._read(path)
        except Exception as raised:
            # None may leave before all know: the others would wait for it for ever.
            error = raised
        errors = comm.all_gather(
            None if error is None else (isinstance(error, OSError), repr(error))
        )
        for rank, failure in enumerate(errors):
            if failure is None:
                continue
            is_absent, text = failure
            if rank == 0 and is_absent:
                raise OSError(f"rank 0 cannot read the checkpoint {path}: {text}") from error
            if not is_absent:
                raise RuntimeError(f"rank {rank} cannot load {path}: {text}") from error
        absent = [rank for rank, failure in enumerate(errors) if failure is not None]
        if not absent:
            return checkpoint
        self.logger.warning(f"Ranks {absent} do not have {path}: they get it from rank 0")
        shared = [checkpoint]
        dist.broadcast_object_list(shared, src=0, group=comm._group_for_objects())
        return shared[0]

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a local file.

        Returns:
            A dict with ``"model"``, the weights by name, and what else the file has. With
            ``"matching_heuristics": True``, :meth:`load` matches names by their ends.
        """
        if filename.endswith(".pkl"):
            return read_pickle(filename)
        data = self._torch_load(filename)
        read = from_pycls if filename.endswith(".pyth") else from_torch
        return read(data, filename)

    def _torch_load(self, f: str) -> Any:
        """Read a file of ``torch.save`` to the CPU, without running code that it may hold."""
        return read_torch(f)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Load ``checkpoint.pop("model")``.

        Returns:
            ``missing_keys``, ``unexpected_keys`` and ``incorrect_shapes``, the latter a list of
            (name in the model, shape in the checkpoint, shape in the model).
        """
        wrong_shape: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        own = self.model.state_dict()
        is_torchvision = is_torchvision_resnet(checkpoint["model"]) and not are_of_torchvision(own)
        if is_torchvision or checkpoint.get("matching_heuristics", False):
            weights = dict(checkpoint["model"])
            self._convert_ndarray_to_tensor(weights)
            # As of a model that was saved with the wrapper of DistributedDataParallel.
            if all(name.startswith("module.") for name in weights):
                weights = {name.removeprefix("module."): v for name, v in weights.items()}
            if is_torchvision:
                self.logger.info(_TORCHVISION)
                weights = from_torchvision(weights)
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            checkpoint["model"], match, shapes = align(own, weights, c2_conversion=is_caffe2)
            wrong_shape = match.wrong_shape
        incompatible = super()._load_model(checkpoint)
        incorrect = incompatible.incorrect_shapes + [
            (name, shapes[source], tuple(own[name].shape)) for name, source in wrong_shape.items()
        ]
        missing = set(incompatible.missing_keys) - {name for name, _, _ in incorrect}
        missing -= {"pixel_mean", "pixel_std"} & {name for name, _ in self.model.named_buffers()}
        unexpected = set(incompatible.unexpected_keys) - set(wrong_shape.values())
        return type(incompatible)(
            missing_keys=[name for name in incompatible.missing_keys if name in missing],
            unexpected_keys=[
                name
                for name in incompatible.unexpected_keys
                # Computed when a model is made, but once saved with it.
                if name in unexpected and "anchor_generator.cell_anchors" not in name
            ],
            incorrect_shapes=incorrect,
        )

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        for message in report.messages(self.model, incompatible):
            self.logger.warning(message)


def _split_query(path: str) -> tuple[str, bool]:
    """The path without its query, and whether that asks for names to be matched by their ends."""
    bare, _, query = path.partition("?")
    match_ends = False
    for key, values in parse_qs(query, keep_blank_values=True).items():
        if key != "matching_heuristics" or values[-1] not in ("True", "False"):
            raise ValueError(
                f"{path!r}: ?matching_heuristics=True is the only query, got {key}={values[-1]}"
            )
        match_ends = values[-1] == "True"
    return bare, match_ends
