import copy
import functools
import pickle

import numpy as np
import pytest

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.catalog import _DatasetCatalog
from detectron2.data.datasets import register_coco_instances


@pytest.fixture
def name():
    yield "test_of_catalogs"
    DatasetCatalog.pop("test_of_catalogs", None)
    MetadataCatalog.pop("test_of_catalogs", None)


def load_something():
    return [1]


def test_get_calls_the_function_each_time(name):
    calls = []
    DatasetCatalog.register(name, lambda: calls.append(None) or [len(calls)])
    assert [DatasetCatalog.get(name), DatasetCatalog.get(name)] == [[1], [2]]
    assert name in DatasetCatalog
    assert name in DatasetCatalog.list()
    DatasetCatalog.remove(name)
    assert name not in DatasetCatalog.list()


def test_a_taken_name_says_what_has_it(name):
    DatasetCatalog.register(name, load_something)
    with pytest.raises(AssertionError, match=r"load_something of .*test_dataset_catalog\.py:\d+"):
        DatasetCatalog.register(name, lambda: [2])
    assert DatasetCatalog.get(name) == [1]
    DatasetCatalog.register(name, lambda: [2], overwrite=True)
    assert DatasetCatalog.get(name) == [2]


def test_unknown_names():
    catalog = _DatasetCatalog()
    catalog.register("one", load_something)
    for call in (catalog.get, catalog.remove):
        with pytest.raises(KeyError, match="'two' is not registered; there are: one"):
            call("two")
    with pytest.raises(AssertionError, match="got 3"):
        catalog.register("two", 3)
    assert str(catalog) == "DatasetCatalog(registered datasets: one)"


def test_metadata_is_made_once(name):
    metadata = MetadataCatalog.get(name)
    assert MetadataCatalog.get(name) is metadata
    assert metadata.name == name
    assert name in MetadataCatalog.list()
    MetadataCatalog.remove(name)
    assert MetadataCatalog.get(name) is not metadata
    with pytest.raises(AssertionError, match="must not be empty"):
        MetadataCatalog.get("")
    with pytest.raises(KeyError, match="no metadata of 'not there'"):
        MetadataCatalog.remove("not there")


def test_metadata_attributes_are_set_once():
    metadata = Metadata(name="a").set(classes=["x"], weights=np.ones(2))
    metadata.set(classes=["x"], weights=np.ones(2))
    with pytest.raises(AssertionError, match=r"'a' has another 'classes' already: \['x'\]; got"):
        metadata.classes = ["y"]
    with pytest.raises(AssertionError, match="weights"):
        metadata.weights = np.zeros(2)
    assert metadata.overwrite(classes=["y"], new=1) is metadata
    assert metadata.as_dict().keys() == {"name", "classes", "weights", "new"}
    assert (metadata.classes, metadata.new) == (["y"], 1)
    metadata.as_dict()["new"] = 2
    assert metadata.new == 1


def test_metadata_attributes_that_are_missing():
    metadata = Metadata(name="a")
    with pytest.raises(AttributeError, match="'a' has no 'classes'; it is empty"):
        metadata.classes  # noqa: B018
    metadata.things = 1
    with pytest.raises(AttributeError, match="no 'classes'; it has things"):
        metadata.classes  # noqa: B018
    assert metadata.get("classes", 5) == 5
    assert not hasattr(metadata, "classes")


def test_old_names_of_metadata(caplog):
    metadata = Metadata(name="a")
    metadata.class_names = ["x"]
    assert metadata.thing_classes == metadata.class_names == ["x"]
    assert metadata.get("stuff_class_names") is None
    assert metadata.as_dict().keys() == {"name", "thing_classes"}
    metadata.overwrite(class_names=["y"])
    assert metadata.thing_classes == ["y"]


def test_metadata_can_be_copied_and_pickled():
    metadata = Metadata(name="a", thing_classes=["x"])
    for other in (copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert other == metadata
        assert other.thing_classes is not metadata.thing_classes


def test_registering_files_again(name):
    register_coco_instances(name, {"own": 1}, "a.json", "images")
    register_coco_instances(name, {"own": 1}, "a.json", "images")
    with pytest.raises(AssertionError, match=r"load_coco_json of .* with 'a\.json', 'images'"):
        register_coco_instances(name, {}, "b.json", "images")
    assert MetadataCatalog.get(name).json_file == "a.json"
    metadata = MetadataCatalog.get(name)
    register_coco_instances(name, {"other": 1}, "b.json", "images", overwrite=True)
    assert MetadataCatalog.get(name) is metadata
    assert metadata.as_dict() == {
        "name": name,
        "json_file": "b.json",
        "image_root": "images",
        "evaluator_type": "coco",
        "other": 1,
    }
    assert DatasetCatalog[name].args == ("b.json", "images", name)


def test_a_name_of_another_function_is_not_taken_silently(name):
    """Where metadata would then describe what another function loads."""
    DatasetCatalog.register(name, functools.partial(load_something))
    with pytest.raises(AssertionError, match="load_something"):
        register_coco_instances(name, {}, "a.json", "images")
    assert name not in MetadataCatalog


def test_metadata_that_conflict_undo_the_registration(name):
    MetadataCatalog.get(name).json_file = "b.json"
    with pytest.raises(AssertionError, match=r"b\.json"):
        register_coco_instances(name, {}, "a.json", "images")
    assert name not in DatasetCatalog
