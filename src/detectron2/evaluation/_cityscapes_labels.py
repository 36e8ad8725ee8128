"""Labels of Cityscapes, as its benchmark scores them."""

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

NUM_LABELS = 34
"""Label ids are from 0 to 33."""

NAMES: dict[int, str] = {c["id"]: c["name"] for c in CITYSCAPES_CATEGORIES}
"""Names of the 19 labels that are scored, by id."""

INSTANCE_IDS: list[int] = [c["id"] for c in CITYSCAPES_CATEGORIES if c["isthing"]]
"""Those of them that have instances."""

TRAIN_ID_TO_ID: list[int] = [
    c["id"] for c in sorted(CITYSCAPES_CATEGORIES, key=lambda c: c["trainId"])
]
"""Ids of the labels that are scored, by the number that models give them."""

SUPER_CATEGORIES: dict[str, range] = {
    "flat": range(7, 11),
    "construction": range(11, 17),
    "object": range(17, 21),
    "nature": range(21, 23),
    "sky": range(23, 24),
    "human": range(24, 26),
    "vehicle": range(26, 34),
}
"""Ids of the labels, scored or not, of each super-category that is scored."""

MEAN_INSTANCE_SIZE: dict[int, float] = {
    24: 3462.4756337644,
    25: 3930.4788056518,
    26: 12794.0202738185,
    27: 27855.1264367816,
    28: 35732.1511111111,
    31: 67583.7075812274,
    32: 6298.7200839748,
    33: 4672.3249222261,
}
"""Mean number of pixels of the instances of a label, as the benchmark's iIoU has it."""

INSTANCE_DIVISOR = 1000
"""Instances have 1000 times their label's id plus a number; groups that could not be told apart
have the label's id."""
