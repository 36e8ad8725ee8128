"""Names of the leaves of a schema: the inputs and outputs of exported models."""

from collections import Counter
from collections.abc import Iterator

from detectron2.export.flatten import DictSchema, InstancesSchema, ListSchema, Schema


def _paths(schema: Schema) -> Iterator[tuple[str, ...]]:
    if not isinstance(schema, ListSchema):
        yield ()
        return
    is_dict = isinstance(schema, DictSchema)
    keys = schema.keys if is_dict else [str(i) for i in range(len(schema.schemas))]
    for key, of_element in zip(keys, schema.schemas, strict=True):
        # An index says nothing where there is but one element.
        start = (key,) if is_dict or len(keys) > 1 else ()
        for path in _paths(of_element):
            yield (*start, *path)
    if isinstance(schema, InstancesSchema):
        yield ("image_size",)


def leaf_names(schema: Schema) -> tuple[str, ...]:
    """A name for each leaf: its key, after the indices and keys on the way to it if another leaf
    has the same key; such as "pred_boxes", or "0.instances.pred_boxes" of two images."""
    paths = [path or ("value",) for path in _paths(schema)]
    counts = Counter(path[-1] for path in paths)
    return tuple(path[-1] if counts[path[-1]] == 1 else ".".join(path) for path in paths)
