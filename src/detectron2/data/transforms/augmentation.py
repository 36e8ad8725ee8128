"""What augmentations are, how they get their arguments, and what they are applied to."""

import inspect
import pprint
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]


class Augmentation:
    """Draws what is random and makes the `Transform` that does the rest.

    A subclass defines ``get_transform``. Its arguments are taken from the attributes of the input
    (`AugInput` or alike) that have the names of its parameters: ``get_transform(self, image,
    sem_seg)`` is called with ``aug_input.image`` and ``aug_input.sem_seg``. A sole parameter
    always means the image, whatever it is called. It returns a transform and leaves its arguments
    as they are. Random numbers come from NumPy's global generator.
    """

    input_args: tuple[str, ...] | None = None
    """The attributes that ``get_transform`` is called with; None: found from its signature."""

    def _init(self, params: Mapping[str, Any] | None = None) -> None:
        """Set attributes from ``locals()``, except ``self`` and names with an underscore first."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Make a transform for an input; see the class."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform")

    def __call__(self, aug_input: Any) -> Transform:
        """Make a transform for ``aug_input`` and apply it there, in place.

        Returns:
            The transform, for what else belongs to the input.

        Raises:
            AttributeError: ``aug_input`` lacks an attribute that ``get_transform`` asks for.
            TypeError: ``get_transform`` returned something else than a transform.
        """
        transform = self.get_transform(*_arguments(self, aug_input))
        if not isinstance(transform, Transform):
            raise TypeError(
                f"{type(self).__name__}.get_transform must return a Transform, "
                f"got {type(transform).__name__}"
            )
        aug_input.transform(transform)
        return transform

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: int | Sequence[int] | None = None
    ) -> float | np.ndarray:
        """Draw from the uniform distribution over ``[low, high)``, or ``[0, low)`` without high."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, size)

    def __repr__(self) -> str:
        """The constructor's call, with the arguments that differ from its defaults."""
        arguments = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if variadic or not hasattr(self, name):
                return super().__repr__()
            value = getattr(self, name)
            if value is parameter.default:
                continue
            text = pprint.pformat(value)
            arguments.append(f"{name}={'...' if chr(10) in text else text}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    __str__ = __repr__


def _arguments(augmentation: Augmentation, aug_input: Any) -> list[Any]:
    if augmentation.input_args is None:
        augmentation.input_args = _parameter_names(augmentation.get_transform)
    arguments = []
    for name in augmentation.input_args:
        try:
            arguments.append(getattr(aug_input, name))
        except AttributeError:
            raise AttributeError(
                f"{type(augmentation).__name__}.get_transform asks for {name!r}, which the input "
                f"of type {type(aug_input).__name__} lacks"
            ) from None
    return arguments


def _parameter_names(function: Callable) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    if len(parameters) == 1:
        return ("image",)
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"the arguments of {function.__qualname__} are found by their names: it cannot "
                f"have *args or **kwargs, got {parameter}"
            )
    return tuple(parameter.name for parameter in parameters)


class _Always(Augmentation):
    """An augmentation that always gives the same transform."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def get_transform(self, *args: Any) -> Transform:
        return self.transform

    def __repr__(self) -> str:
        return repr(self.transform)

    __str__ = __repr__


def as_augmentation(transform_or_augmentation: Augmentation | Transform) -> Augmentation:
    """An augmentation, also for a transform.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(transform_or_augmentation, Augmentation):
        return transform_or_augmentation
    if isinstance(transform_or_augmentation, Transform):
        return _Always(transform_or_augmentation)
    raise TypeError(f"expected an Augmentation or a Transform, got {transform_or_augmentation!r}")


class AugmentationList(Augmentation):
    """Augmentations one after the other, each of which sees what the one before it has left.

    Args:
        augs: augmentations and transforms.

    Raises:
        TypeError: one of ``augs`` is something else.
    """

    def __init__(self, augs: Iterable[Augmentation | Transform]) -> None:
        super().__init__()
        self.augs = [as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: Any) -> TransformList:
        """Apply all to ``aug_input``, in place, and return their transforms, flattened."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(str, self.augs))}]"

    __str__ = __repr__


class AugInput:
    """An image and what is transformed together with it, to be augmented in place.

    Subclass it for more attributes, or use anything with the attributes that the augmentations ask
    for and a method ``transform``.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``, uint8 in ``[0, 255]`` or floating point numbers in
            ``[0, 1]`` or ``[0, 255]``. Other integers are taken too; each transform here rounds
            and saturates them at the range of their dtype.
        boxes: ``(N, 4)`` xyxy in absolute pixels.
        sem_seg: ``(H, W)``, labels of any integer dtype.

    Raises:
        TypeError: ``image`` is no array of real numbers.
        ValueError: ``image`` has another number of axes.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        self.boxes, self.sem_seg = boxes, sem_seg
        self.image = _checked_image(image)

    def transform(self, tfm: Transform) -> None:
        """Replace image, boxes and segmentation by the transformed ones.

        Transforms may overwrite the arrays that they are given.
        """
        self.image = tfm.apply_image(self.image)
        boxes, sem_seg = self.boxes, self.sem_seg
        self.boxes = None if boxes is None else tfm.apply_box(boxes)
        self.sem_seg = None if sem_seg is None else tfm.apply_segmentation(sem_seg)

    def apply_augmentations(
        self, augmentations: Iterable[Augmentation | Transform]
    ) -> TransformList:
        """Apply augmentations in place, and return their transforms."""
        return AugmentationList(augmentations)(self)


def _checked_image(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be an ndarray, got {type(image).__name__}")
    if image.dtype.kind not in "uif":
        raise TypeError(f"an image holds real numbers, got the dtype {image.dtype}")
    if image.ndim not in (2, 3):
        raise ValueError(f"an image is (H, W) or (H, W, C), got the shape {image.shape}")
    return image


def apply_augmentations(
    augmentations: Iterable[Augmentation | Transform], inputs: np.ndarray | AugInput
) -> tuple[Any, TransformList]:
    """Apply augmentations and transforms, one after the other.

    Args:
        augmentations: what to apply.
        inputs: an image array, or an `AugInput` or alike, which is augmented in place.

    Returns:
        The augmented image or ``inputs`` itself, and the transforms that were applied.
    """
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


apply_transform_gens = apply_augmentations
TransformGen = Augmentation
StandardAugInput = AugInput
