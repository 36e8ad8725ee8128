"""Data loaders of trainings and evaluations."""

# ruff: noqa: F401  (some names are here for those who import them from here)

from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils import data

from detectron2.config import CfgNode, configurable
from detectron2.data._batch_loader import BatchLoader
from detectron2.data._filtering import (
    filter_datasets,
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
    warn_of_dropped_annotations,
)
from detectron2.data._inference_loader import InferenceLoader, OnDevice
from detectron2.data._proposal_files import load_proposals_into_dataset
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
)
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.structures import BoxMode
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import log_first_n

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
]


def get_detection_dataset_dicts(
    names: str | list[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: list[str] | None = None,
    check_consistency: bool = True,
) -> list[dict[str, Any]] | data.Dataset:
    """Load registered datasets, and leave out what a training has no use for.

    Args:
        names: of datasets, which are concatenated.
        filter_empty: leave out images without an annotation other than of crowds. Nothing is left
            out of datasets whose first record has no annotations at all.
        min_keypoints: leave out images with fewer visible keypoints; 0 leaves none out.
        proposal_files: of each dataset, see :func:`load_proposals_into_dataset`.
        check_consistency: make sure that the datasets have the same classes, and log how many
            instances of each there are.

    Returns:
        Records in the standard format. Datasets that are PyTorch's are returned as one, with
        nothing left out.

    Raises:
        KeyError: a name that is not registered.
        ValueError: no dataset, one that is empty, or of which nothing is left.
    """
    names = [names] if isinstance(names, str) else list(names)
    return _joined(
        _load_datasets(names, filter_empty, min_keypoints, proposal_files, check_consistency)
    )


def _load_datasets(
    names: list[str],
    filter_empty: bool,
    min_keypoints: int,
    proposal_files: list[str] | None = None,
    check_consistency: bool = True,
) -> list[Any]:
    """:func:`get_detection_dataset_dicts`, not yet concatenated."""
    if not names:
        raise ValueError("no dataset is named: is DATASETS.TRAIN or DATASETS.TEST empty?")
    unknown = sorted(set(names) - set(DatasetCatalog.list()))
    if unknown:
        logging.getLogger(__name__).warning(
            "These datasets are not registered: %s. Registered are: %s",
            *(", ".join(unknown), ", ".join(DatasetCatalog.list())),
        )
    datasets = [DatasetCatalog.get(name) for name in names]
    if any(isinstance(dataset, data.Dataset) for dataset in datasets):
        if not all(isinstance(dataset, data.Dataset) for dataset in datasets):
            raise ValueError(f"of the datasets {names} some are lists, some PyTorch's")
        return datasets
    for name, records in zip(names, datasets, strict=True):
        if len(records) == 0:
            raise ValueError(f"the dataset {name!r} is empty")
    if proposal_files is not None:
        if len(proposal_files) != len(names):
            raise ValueError(
                f"{len(names)} datasets {names} need as many files of proposals, "
                f"got {list(proposal_files)}"
            )
        for records, file_name in zip(datasets, proposal_files, strict=True):
            load_proposals_into_dataset(records, file_name)
    has_instances = "annotations" in datasets[0][0]
    if has_instances:
        datasets = filter_datasets(datasets, filter_empty, min_keypoints)
    if has_instances and check_consistency:
        _log_classes(names, datasets)
    if not any(datasets):
        raise ValueError(f"nothing is left of the datasets {names}: see the warning about images")
    return datasets


def _log_classes(names: list[str], datasets: list[list[dict[str, Any]]]) -> None:
    try:
        class_names = MetadataCatalog.get(names[0]).thing_classes
        check_metadata_consistency("thing_classes", names)
    except AttributeError:  # Datasets need not name their classes.
        return
    print_instances_class_histogram(list(itertools.chain.from_iterable(datasets)), class_names)


def build_batch_data_loader(
    dataset: data.Dataset,
    sampler: Iterable[int] | None,
    total_batch_size: int | None,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int = 2,
    persistent_workers: bool = False,
    pin_memory: bool | None = False,
    seed: int | None = None,
    threads: bool = False,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> Iterable[Any]:
    """Make batches of a dataset for training.

    Batches do not depend on the number of workers. Each sample has random numbers of its own,
    which follow from ``seed`` and its position in the order of all processes. What is returned for
    a map-style dataset has ``state_dict`` and ``load_state_dict``, by which a resumed training
    goes on with the same batches as one that was not interrupted.

    Args:
        dataset: map-style, or iterable; then it is iterated from its beginning, and shards itself
            among workers and processes.
        sampler: gives this process's indices; None for an iterable dataset.
        total_batch_size: samples of a batch over all processes.
        aspect_ratio_grouping: have a batch of wide images only, or of others only; samples then
            are dicts with "width" and "height". Needs ``drop_last``.
        num_workers: processes that load; 0 loads where the batches are taken.
        collate_fn: makes a batch of a list of samples; None leaves the list.
        drop_last: leave out a batch at the end that is not full.
        single_gpu_batch_size: samples of a batch of this process, in place of
            ``total_batch_size``, which must be None then.
        prefetch_factor: of each worker, how many parts of batches are made ahead.
        persistent_workers: keep the workers when an iteration ends.
        pin_memory: give tensors in pinned memory.
        seed: of the samples' random numbers; None takes the sampler's, or a new one.
        threads: have threads load, not processes. Files are read in parallel, but augmentation
            takes turns, and PyTorch's random numbers are not the sample's.
        device: give batches on this device. On CUDA the next batch is copied, from pinned memory
            on a stream of its own, while one is in use.
        **kwargs: of :class:`torch.utils.data.DataLoader`.

    Raises:
        ValueError: batch sizes that are both or neither given, or do not fit the number of
            processes; grouping without ``drop_last``; a sampler for an iterable dataset.
    """
    batch_size = _batch_size(total_batch_size, single_gpu_batch_size)
    if aspect_ratio_grouping and not drop_last:
        raise ValueError("aspect_ratio_grouping needs drop_last: it never fills the last batches")
    device = None if device is None else torch.device(device)
    options = {
        "worker_init_fn": worker_init_reset_seed,
        "persistent_workers": persistent_workers and num_workers > 0,
        "pin_memory": bool(pin_memory) or (device is not None and device.type == "cuda"),
        **kwargs,
    }
    if isinstance(dataset, data.IterableDataset):
        if sampler is not None:
            raise ValueError(f"the iterable dataset {dataset!r} takes no sampler")
        if threads and num_workers > 0:
            raise ValueError(f"threads cannot share the iterable dataset {dataset!r}")
        if num_workers > 0:
            options["prefetch_factor"] = prefetch_factor
        options["num_workers"] = num_workers
        return _iterable_loader(
            dataset, batch_size, aspect_ratio_grouping, drop_last, collate_fn, device, options
        )
    if sampler is None:
        raise ValueError("a map-style dataset needs a sampler")
    if collate_fn is trivial_batch_collator:
        collate_fn = None
    return BatchLoader(
        dataset,
        sampler,
        batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        drop_last=drop_last,
        collate_fn=collate_fn,
        num_workers=num_workers,
        threads=threads,
        prefetch_factor=prefetch_factor,
        device=device,
        seed=_seed_of_samples(seed, sampler),
        **options,
    )


def _batch_size(total: int | None, single: int | None) -> int:
    if single is not None:
        if total is not None:
            raise ValueError(
                f"give total_batch_size ({total}) or single_gpu_batch_size ({single}), not both"
            )
        if single < 1:
            raise ValueError(f"single_gpu_batch_size must be positive, got {single}")
        return single
    world_size = get_world_size()
    if not total or total < 1 or total % world_size:
        raise ValueError(
            f"total_batch_size must be a positive multiple of the {world_size} processes, "
            f"got {total}"
        )
    return total // world_size


def _seed_of_samples(seed: int | None, sampler: Any) -> int:
    if seed is not None:
        return int(seed)
    # The sampler's is the same in all processes, and positions keep their samples apart.
    sampler_seed = getattr(sampler, "_seed", None)
    return sampler_seed if isinstance(sampler_seed, int) else int(np.random.randint(2**31))


def _iterable_loader(
    dataset: data.IterableDataset,
    batch_size: int,
    aspect_ratio_grouping: bool,
    drop_last: bool,
    collate_fn: Callable[[list[Any]], Any] | None,
    device: torch.device | None,
    options: dict[str, Any],
) -> Iterable[Any]:
    if aspect_ratio_grouping:
        samples = data.DataLoader(dataset, collate_fn=operator.itemgetter(0), **options)
        loader: Any = AspectRatioGroupedDataset(samples, batch_size)
        if collate_fn is not None:
            loader = MapDataset(loader, collate_fn)
    else:
        loader = data.DataLoader(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=trivial_batch_collator if collate_fn is None else collate_fn,
            **options,
        )
    return loader if device is None else OnDevice(loader, device)


def _seed(cfg: CfgNode) -> int | None:
    # Negative means another one each time, and generators would take it as a number like any other.
    return cfg.SEED if cfg.SEED >= 0 else None


def _training_datasets(cfg: CfgNode) -> list[Any]:
    return _load_datasets(
        list(cfg.DATASETS.TRAIN),
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        if cfg.MODEL.KEYPOINT_ON
        else 0,
        proposal_files=list(cfg.DATASETS.PROPOSAL_FILES_TRAIN)
        if cfg.MODEL.LOAD_PROPOSALS
        else None,
    )


def _joined(datasets: list[Any]) -> Any:
    if isinstance(datasets[0], data.Dataset):
        return datasets[0] if len(datasets) == 1 else data.ConcatDataset(datasets)
    return list(itertools.chain.from_iterable(datasets))


def _training_sampler(cfg: CfgNode, dataset: Any, datasets: list[Any] | None) -> data.Sampler:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logging.getLogger(__name__).info("Using the training sampler %s", name)
    seed = _seed(cfg)
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=seed)
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.RANDOM_SUBSET_RATIO
        return RandomSubsetTrainingSampler(len(dataset), ratio, seed_shuffle=seed, seed_subset=seed)
    threshold, sqrt = cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.REPEAT_SQRT
    by_category = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    if name == "RepeatFactorTrainingSampler":
        return RepeatFactorTrainingSampler(by_category(dataset, threshold, sqrt=sqrt), seed=seed)
    if name not in ("WeightedTrainingSampler", "WeightedCategoryTrainingSampler"):
        raise ValueError(f"DATALOADER.SAMPLER_TRAIN: there is no training sampler {name!r}")
    if datasets is None:
        raise ValueError(f"{name} needs to know which records are of which dataset: give none")
    weights = dict(cfg.DATASETS.TRAIN_REPEAT_FACTOR)
    names = list(cfg.DATASETS.TRAIN)
    if unknown := sorted(set(weights) - set(names)):
        raise ValueError(f"DATASETS.TRAIN_REPEAT_FACTOR names {unknown}, but there are {names}")
    factors = []
    for name_of_one, records in zip(names, datasets, strict=True):
        factor = torch.full((len(records),), float(weights.get(name_of_one, 1.0)))
        if name == "WeightedCategoryTrainingSampler":
            factor *= by_category(records, threshold, sqrt=sqrt)
        factors.append(factor)
    return RepeatFactorTrainingSampler(torch.cat(factors), seed=seed)


def _mapped(dataset: Any, mapper: Callable[[dict[str, Any]], Any] | None) -> data.Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def _train_loader_from_config(
    cfg: CfgNode,
    mapper: Callable[[dict[str, Any]], Any] | None = None,
    *,
    dataset: Any = None,
    sampler: data.Sampler | None = None,
) -> dict[str, Any]:
    datasets = None
    if dataset is None:
        datasets = _training_datasets(cfg)
        dataset = _joined(datasets)
    if mapper is None:
        mapper = DatasetMapper(cfg, True)
    if sampler is None and not isinstance(dataset, data.IterableDataset):
        sampler = _training_sampler(cfg, dataset, datasets)
    options = cfg.DATALOADER
    return {
        "num_workers": options.NUM_WORKERS,
        "aspect_ratio_grouping": options.ASPECT_RATIO_GROUPING,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "mapper": mapper,
        "sampler": sampler,
        "dataset": dataset,
    }


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list[Any] | data.Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any],
    sampler: data.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Iterable[Any]:
    """Make the batches that a detector is trained with.

    It may be called with a config in place of these arguments; then ``DATASETS.TRAIN`` is loaded,
    ``DATALOADER.SAMPLER_TRAIN`` chooses the sampler, and a :class:`DatasetMapper` is made. Any of
    ``dataset``, ``mapper``, ``sampler`` and the other arguments can be given in place of the
    config's. With ``SEED`` set, order and augmentations are the same in each run.

    Args:
        dataset: records, which are kept serialized in memory that workers share; or a dataset,
            map-style or iterable.
        mapper: makes a sample of a record, or None if there is none to be made.
        sampler: gives this process's indices without end; None takes a :class:`TrainingSampler`.
            None for an iterable dataset.
        total_batch_size, aspect_ratio_grouping, num_workers, collate_fn, **kwargs: see
            :func:`build_batch_data_loader`.

    Returns:
        Gives batches, lists of samples, without end.

    Raises:
        ValueError: the dataset is empty, or see :func:`build_batch_data_loader`.
    """
    if isinstance(dataset, list):
        warn_of_dropped_annotations(dataset)
    dataset = _mapped(dataset, mapper)
    if not isinstance(dataset, data.IterableDataset):
        if sampler is None:
            sampler = TrainingSampler(len(dataset))
        if not isinstance(sampler, data.Sampler):
            raise TypeError(f"sampler must be a torch.utils.data.Sampler, got {sampler!r}")
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: CfgNode,
    dataset_name: str | list[str],
    mapper: Callable[[dict[str, Any]], Any] | None = None,
) -> dict[str, Any]:
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    proposal_files = None
    if cfg.MODEL.LOAD_PROPOSALS:
        file_of = dict(zip(cfg.DATASETS.TEST, cfg.DATASETS.PROPOSAL_FILES_TEST, strict=True))
        proposal_files = [file_of[name] for name in names]
    dataset = get_detection_dataset_dicts(names, filter_empty=False, proposal_files=proposal_files)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": None
        if isinstance(dataset, data.IterableDataset)
        else InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list[Any] | data.Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any],
    sampler: data.Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    prefetch_factor: int = 2,
    threads: bool = False,
    device: torch.device | str | None = None,
) -> data.DataLoader:
    """Make the batches that a detector is evaluated with: each image once, in order.

    It may be called with a config and a dataset's name in place of these arguments.

    Args:
        dataset: records, or a dataset, map-style or iterable.
        mapper: makes a sample of a record.
        sampler: gives this process's indices; None takes an :class:`InferenceSampler`. None for
            an iterable dataset.
        batch_size: samples of a batch; the last may have fewer.
        num_workers, collate_fn, prefetch_factor, threads, device: see
            :func:`build_batch_data_loader`.

    Returns:
        A ``DataLoader`` of lists of samples, or of what ``collate_fn`` makes of them.
    """
    dataset = _mapped(dataset, mapper)
    if isinstance(dataset, data.IterableDataset):
        if sampler is not None:
            raise ValueError(f"the iterable dataset {dataset!r} takes no sampler")
    elif sampler is None:
        sampler = InferenceSampler(len(dataset))
    return InferenceLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator if collate_fn is None else collate_fn,
        prefetch_factor=prefetch_factor if num_workers > 0 and not threads else None,
        threads=threads,
        device=None if device is None else torch.device(device),
    )


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """Leave a batch the list of samples that it is."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed the generators of a worker process, each worker's differently."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
