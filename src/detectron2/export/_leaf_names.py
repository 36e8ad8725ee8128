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


def leaf_names(schema: Schema, unnamed: str) -> tuple[str, ...]:
    """A name for each leaf: its key, after the indices and keys on the way to it if another leaf
    has the same key; such as "pred_boxes", or "0.instances.pred_boxes" of two images.

    Args:
        schema: of all leaves.
        unnamed: what the names of leaves without a key begin with, as in "input.0".
    """
    paths = list(_paths(schema))
    counts = Counter(path[-1] for path in paths if path)
    names = []
    for path in paths:
        if all(key.isdecimal() for key in path):
            path = (unnamed, *path)
        elif counts[path[-1]] == 1:
            path = path[-1:]
        names.append(".".join(path))
    return tuple(names)
