"""One image of ``detectron2.data.shapes``, with what is in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from detectron2.data._shapes_geometry import SHAPE_CLASSES, Placement
from detectron2.data._shapes_outlines import trace_outlines

STUFF_CLASSES = ("stripes", "checks", "dots")

# Of the image's shorter side: a shape's longer side.
_SIZES = (0.1, 0.45)
# Of its own pixels: what must stay visible of a shape that others cover.
_VISIBLE = 0.5
_TRIALS = 8
_MIN_COLOR_DISTANCE = 60


@dataclass
class DrawnShape:
    """A shape in an image.

    Attributes:
        name: of its class.
        placement: of the whole shape, with what is covered.
        num_pixels: of the whole shape inside the image.
        window: ``(x0, y0, x1, y1)``, pixels that hold what is visible.
        polygons: outlines of what is visible.
    """

    name: str
    placement: Placement
    num_pixels: int
    window: tuple[int, int, int, int] = (0, 0, 0, 0)
    polygons: list[list[int]] = field(default_factory=list)


@dataclass
class Scene:
    """An image and its ground truth.

    Attributes:
        image: uint8 ``(H, W, 3)``, RGB.
        stuff: uint8 ``(H, W)``, indices of ``STUFF_CLASSES`` of the background.
        owners: uint8 ``(H, W)``, one more than the index in ``shapes``; 0: background.
        shapes: from back to front.
    """

    image: np.ndarray
    stuff: np.ndarray
    owners: np.ndarray
    shapes: list[DrawnShape]


def draw_scene(
    seed: int, index: int, size: tuple[int, int], classes: Sequence[str], max_shapes: int
) -> Scene:
    """Draw the image number ``index`` of a seed; ``size`` is ``(height, width)``.

    Arithmetic on pixels is in integers, and the random generator is one whose stream is frozen, so
    that everybody gets the same image.
    """
    rng = np.random.RandomState([seed, index])
    height, width = size
    x, y = np.arange(width, dtype=np.int32)[None], np.arange(height, dtype=np.int32)[:, None]
    image, stuff = _draw_background(rng, x, y)
    scene = Scene(image, stuff, np.zeros(size, np.uint8), [])
    for _ in range(rng.randint(1, max_shapes + 1)):
        for _ in range(_TRIALS):
            if _try_shape(scene, rng, classes):
                break
    _shade(image, rng, x, y)
    return scene


def _draw_background(
    rng: np.random.RandomState, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Up to three regions of different textures, and lines on them that mean nothing."""
    height, width = y.shape[0], x.shape[1]
    order = rng.permutation(len(STUFF_CLASSES))
    stuff = np.full((height, width), order[0], np.uint8)
    for label in order[1 : rng.randint(1, len(order) + 1)]:
        a, b = rng.randint(-8, 9, 2)
        through = a * rng.randint(width // 4, 3 * width // 4 + 1)
        through += b * rng.randint(height // 4, 3 * height // 4 + 1)
        stuff[a * x + b * y > through] = label
    on = np.empty((height, width), bool)
    for label in np.flatnonzero(np.bincount(stuff.ravel())).tolist():
        np.copyto(on, _pattern(rng, STUFF_CLASSES[label], x, y), where=stuff == label)
    colors = np.concatenate([_colors(rng) for _ in STUFF_CLASSES])
    image = colors.take(2 * stuff + on, axis=0)
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(0, 7)):
        ends = (rng.random_sample(4) * (width, height, width, height)).astype(int).tolist()
        draw.line(ends, tuple(rng.randint(0, 256, 3).tolist()), int(rng.randint(1, 4)))
    return np.array(canvas), stuff


def _colors(rng: np.random.RandomState, unlike: np.ndarray | None = None) -> np.ndarray:
    """Two similar colours ``(2, 3)``, the first not too near the colour ``unlike``."""
    while True:
        first = rng.randint(0, 256, 3)
        if unlike is None or np.abs(first - unlike).max() >= _MIN_COLOR_DISTANCE:
            break
    second = first + rng.randint(24, 56) * rng.choice([-1, 1], 3)
    return np.stack([first, second]).clip(0, 255).astype(np.uint8)


def _pattern(rng: np.random.RandomState, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bool ``(H, W)``: where a texture has its second colour."""
    period = int(rng.randint(4, 12))
    phase_x, phase_y = rng.randint(0, 64, 2)
    x, y = x + phase_x, y + phase_y
    if name == "stripes":
        a, b = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2))[rng.randint(6)]
        across = a * x + b * y
        first = across.min()
        is_odd = np.arange(first, across.max() + 1) // period % 2 == 1
        return is_odd[across - first]
    if name == "checks":
        return (x // period % 2) != (y // period % 2)
    from_x, from_y = x % (2 * period) - period, y % (2 * period) - period
    return from_x * from_x + from_y * from_y < period * period // 3


def _try_shape(scene: Scene, rng: np.random.RandomState, classes: Sequence[str]) -> bool:
    """Put a random shape on top, unless it leaves too little of another one."""
    height, width = scene.owners.shape
    name = classes[rng.randint(len(classes))]
    placement = _random_placement(rng, name, height, width)
    # Vertices are indices of pixels: whole numbers are drawn alike everywhere.
    vertices = np.rint(placement.apply(SHAPE_CLASSES[name].vertices) - 0.5).astype(int)
    x0, y0 = vertices.min(axis=0)
    x1, y1 = vertices.max(axis=0) + 1
    drawing = Image.new("1", (int(x1 - x0), int(y1 - y0)))
    ImageDraw.Draw(drawing).polygon([tuple(v) for v in (vertices - [x0, y0]).tolist()], fill=1)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    mask = np.array(drawing)[top - y0 : bottom - y0, left - x0 : right - x0]
    window = (int(left), int(top), int(right), int(bottom))

    uncovered = _uncovered(scene, mask, window)
    if uncovered is None:
        return False
    for index, polygons in uncovered.items():
        scene.shapes[index].polygons = polygons
    polygons, _ = trace_outlines(mask)
    shape = DrawnShape(name, placement, int(mask.sum()), window)
    shape.polygons = _moved(polygons, left, top)
    scene.shapes.append(shape)

    pixels = (slice(top, bottom), slice(left, right))
    scene.owners[pixels][mask] = len(scene.shapes)
    center = scene.image[(top + bottom) // 2, (left + right) // 2].astype(int)
    grid_x, grid_y = np.arange(left, right)[None], np.arange(top, bottom)[:, None]
    pattern = (*STUFF_CLASSES, "plain")[rng.randint(len(STUFF_CLASSES) + 1)]
    colors = _colors(rng, unlike=center)
    if pattern == "plain":
        scene.image[pixels][mask] = colors[0]
    else:
        on = _pattern(rng, pattern, grid_x, grid_y)[mask]
        scene.image[pixels][mask] = colors.take(on, axis=0)
    return True


def _random_placement(rng: np.random.RandomState, name: str, height: int, width: int) -> Placement:
    shape_class = SHAPE_CLASSES[name]
    low, high = _SIZES
    # As many small shapes as large ones: the logarithm is uniform.
    longer = low * min(height, width) * (high / low) ** rng.random_sample()
    least, greatest = shape_class.aspect_ratios
    aspect = least + (greatest - least) * rng.random_sample()
    angle = (rng.random_sample() - 0.5) * shape_class.period
    # At most a part of the shape is beyond the border.
    margin = longer / 4
    return Placement(
        center_x=margin + rng.random_sample() * (width - 2 * margin),
        center_y=margin + rng.random_sample() * (height - 2 * margin),
        width=longer * min(1.0, aspect),
        height=longer * min(1.0, 1 / aspect),
        angle=angle,
    )


def _uncovered(
    scene: Scene, mask: np.ndarray, window: tuple[int, int, int, int]
) -> dict[int, list[list[int]]] | None:
    """New polygons of the shapes under a mask, by index; None if one would show too little, or be
    an annulus, which polygons cannot tell from a disc."""
    left, top, right, bottom = window
    below = np.bincount(scene.owners[top:bottom, left:right][mask], minlength=1)
    result = {}
    for owner in (np.flatnonzero(below[1:]) + 1).tolist():
        shape = scene.shapes[owner - 1]
        x0, y0, x1, y1 = shape.window
        visible = scene.owners[y0:y1, x0:x1] == owner
        part = visible[max(top - y0, 0) : bottom - y0, max(left - x0, 0) : right - x0]
        over = mask[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left]
        part &= ~over
        if visible.sum() < _VISIBLE * shape.num_pixels:
            return None
        polygons, has_hole = trace_outlines(visible)
        if has_hole:
            return None
        result[owner - 1] = _moved(polygons, x0, y0)
    return result


def _moved(polygons: list[list[int]], dx: int, dy: int) -> list[list[int]]:
    moved = []
    for polygon in polygons:
        points = np.array(polygon).reshape(-1, 2) + np.array((dx, dy))
        moved.append(points.reshape(-1).tolist())
    return moved


def _shade(image: np.ndarray, rng: np.random.RandomState, x: np.ndarray, y: np.ndarray) -> None:
    """Light from one side, and noise."""
    slope_x, slope_y = rng.randint(-64, 65, 2)
    height, width = image.shape[:2]
    light = slope_x * (2 * x - width) // width + slope_y * (2 * y - height) // height
    light = light.astype(np.int16)
    amplitude = int(rng.randint(2, 20))
    noise = np.frombuffer(rng.bytes(height * width), np.uint8).astype(np.int16)
    noise = (noise.reshape(height, width) - 128) * amplitude // 128
    image[...] = (image + (noise + light)[..., None]).clip(0, 255)
