import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_voc_instances, register_pascal_voc
from detectron2.structures import BoxMode

OBJECT = """<object><name>{name}</name><difficult>1</difficult><bndbox>
<xmin>3</xmin><ymin>{ymin}</ymin><xmax>10.5</xmax><ymax>20</ymax></bndbox></object>"""
SIZE = "<size><width>90</width><height>70</height></size>"


@pytest.fixture
def voc(tmp_path):
    """Makes a folder with one image, and returns its path."""

    def make(name="dog", ymin=4, size=SIZE, end="</annotation>"):
        for folder in ("Annotations", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True)
        # As in the lists of one class.
        (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("2008_000001 -1\n\n")
        text = f"<annotation>{size}{OBJECT.format(name=name, ymin=ymin)}{end}"
        (tmp_path / "Annotations" / "2008_000001.xml").write_text(text)
        return str(tmp_path)

    return make


def test_records(voc):
    folder = voc()
    assert load_voc_instances(folder, "val", ["cat", "dog"]) == [
        {
            "file_name": f"{folder}/JPEGImages/2008_000001.jpg",
            "image_id": "2008_000001",
            "height": 70,
            "width": 90,
            "annotations": [
                {
                    "category_id": 1,
                    "bbox": [2.0, 3.0, 10.5, 20.0],
                    "bbox_mode": BoxMode.XYXY_ABS,
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cow"}, r"there is no class 'cow'; there are \['cat', 'dog'\]"),
        ({"size": ""}, "<annotation> has no <size/height>"),
        ({"ymin": "x"}, "could not convert string to float: 'x'"),
        ({"end": ""}, "no element found"),
    ],
)
def test_errors_name_the_file(voc, options, message):
    with pytest.raises(ValueError, match=rf"2008_000001\.xml: {message}"):
        load_voc_instances(voc(**options), "val", ["cat", "dog"])


def test_boxes_without_area_are_told(voc, caplog):
    assert load_voc_instances(voc(ymin=21), "val", ["dog"])[0]["annotations"]
    assert "boxes without area (1), such as [2.0, 20.0, 10.5, 20.0]" in caplog.text


def test_registration(voc):
    name = "test_of_voc"
    try:
        register_pascal_voc(name, voc(), "val", 2012, ("cat", "dog"))
        assert len(DatasetCatalog.get(name)) == 1
        metadata = MetadataCatalog.get(name)
        assert (metadata.year, metadata.split) == (2012, "val")
        assert metadata.thing_classes == ["cat", "dog"]
    finally:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
