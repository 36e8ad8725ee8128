import pytest

from detectron2.data.datasets import load_sem_seg


@pytest.fixture
def folders(tmp_path):
    """Makes folders of images and of ground truth with the given file names."""

    def make(images, truths):
        for folder, names in (("images", images), ("truth", truths)):
            (tmp_path / folder).mkdir()
            for name in names.split():
                (tmp_path / folder / name).touch()
        return str(tmp_path / "truth"), str(tmp_path / "images")

    return make


def names(records):
    return [tuple(path.rsplit("/", 1)[1] for path in record.values()) for record in records]


def test_pairs_by_name(folders):
    truth, images = folders("b.jpg a.jpg a.txt", "a.png b.png")
    records = load_sem_seg(truth, images)
    assert records[0] == {
        "file_name": f"{images}/a.jpg",
        "sem_seg_file_name": f"{truth}/a.png",
    }
    assert names(records) == [("a.jpg", "a.png"), ("b.jpg", "b.png")]


def test_what_has_no_partner_is_left_out(folders, caplog):
    records = load_sem_seg(*folders("a.jpg b.jpg c.jpg", "b.png"))
    assert names(records) == [("b.jpg", "b.png")]
    assert "2 files left out" in caplog.text
    assert "images/a.jpg" in caplog.text


def test_equal_numbers_of_other_files(folders):
    """Sorted lists of the same length are no pairs."""
    assert names(load_sem_seg(*folders("a.jpg b.jpg", "b.png c.png"))) == [("b.jpg", "b.png")]


def test_endings_may_be_more_than_the_type(folders):
    truth, images = folders("a_rgb.png b_rgb.png", "a_label.png b_label.png")
    records = load_sem_seg(truth, images, gt_ext="_label.png", image_ext="_rgb.png")
    assert names(records) == [("a_rgb.png", "a_label.png"), ("b_rgb.png", "b_label.png")]


def test_no_pairs(folders):
    with pytest.raises(ValueError, match=r"2 files, such as '[bc]'.*1 files, such as 'a'"):
        load_sem_seg(*folders("a.jpg", "b.png c.png"))
