"""Images of every mode, turned, deep, broken and large."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data._image_files import read_sem_seg
from detectron2.data.detection_utils import (
    SizeMismatchError,
    check_image_size,
    convert_image_to_rgb,
    read_image,
)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def save(image, path, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return str(path)


def test_channel_orders(pixels, tmp_path):
    path = save(pixels, tmp_path / "a.png")
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(read_image(path, "RGB"), pixels)
    assert np.array_equal(read_image(path, "BGR"), pixels[:, :, ::-1])
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(read_image(path, "L"), grey[:, :, None])


def test_yuv_is_bt_601(pixels, tmp_path):
    yuv = read_image(save(pixels, tmp_path / "a.png"), "YUV-BT.601")
    red, green, blue = np.moveaxis(pixels / 255.0, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = np.stack([luma, 0.492 * (blue - luma), 0.877 * (red - luma)], axis=2)
    assert yuv.dtype == np.float64
    assert np.allclose(yuv, expected, atol=1e-3)
    assert np.array_equal(convert_image_to_rgb(yuv, "YUV-BT.601"), pixels)


@pytest.mark.parametrize("mode", ["RGB", "BGR", "L", "RGBA", "CMYK", "HSV", "YCbCr", "1"])
def test_back_to_rgb(mode, pixels, tmp_path):
    path = save(pixels, tmp_path / "a.png")
    image = read_image(path, mode)
    as_pillow_mode = Image.fromarray(pixels).convert("RGB" if mode == "BGR" else mode)
    expected = np.asarray(as_pillow_mode.convert("RGB"))
    assert np.array_equal(convert_image_to_rgb(image, mode), expected)
    if mode != "1":
        tensor = torch.from_numpy(image.copy())
        assert np.array_equal(convert_image_to_rgb(tensor, mode), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, pixels, tmp_path):
    # Where the first row and the first column of the stored image belong: CIPA DC-008, 4.6.4.
    turns = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x[::-1].transpose(1, 0, 2),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: x[:, ::-1].transpose(1, 0, 2),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(pixels, tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path, "RGB"), turns[orientation](pixels))


def test_orientation_that_is_none(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    path = save(pixels, tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path, "RGB"), pixels)


def test_broken_exif_leaves_the_pixels(pixels, tmp_path):
    path = save(pixels, tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08garbage", quality=95)
    plain = save(pixels, tmp_path / "b.jpg", quality=95)
    assert np.array_equal(read_image(path), read_image(plain))


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.arange(256).reshape(16, 16)
    path = save((levels * 257).astype(np.uint16), tmp_path / "a.png")
    assert np.array_equal(read_image(path, "L")[:, :, 0], levels)
    assert np.array_equal(read_image(path, "BGR"), np.repeat(levels[:, :, None], 3, axis=2))
    assert read_image(path).max() == 65535


def test_grey_values_beyond_sixteen_bits(tmp_path):
    path = save(np.full((2, 2), 100_000, np.int32), tmp_path / "a.tiff")
    with pytest.raises(OSError, match=r"a\.tiff.*100000"):
        read_image(path, "RGB")


def test_palette_and_cmyk(pixels, tmp_path):
    palette = Image.fromarray(pixels).quantize(16)
    path = save(palette, tmp_path / "a.png")
    assert np.array_equal(read_image(path, "RGB"), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(pixels).convert("CMYK")
    path = save(cmyk, tmp_path / "b.tiff")
    assert np.array_equal(read_image(path, "RGB"), np.asarray(cmyk.convert("RGB")))


def test_wide_image(tmp_path):
    row = np.random.default_rng(0).integers(0, 256, (2, 30_000, 3), dtype=np.uint8)
    path = save(row, tmp_path / "a.png")
    assert np.array_equal(read_image(path, "BGR"), row[:, :, ::-1])


def test_image_too_large_to_be_true(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(np.zeros((5, 5), np.uint8), tmp_path / "huge.png")
    with pytest.raises(OSError, match=r"huge\.png.*DecompressionBombError"):
        read_image(path)


def test_files_cut_off_anywhere(pixels, tmp_path):
    """Each gives an error that names the file, never half an image."""
    for suffix in ("png", "jpg"):
        whole = io.BytesIO()
        Image.fromarray(pixels).save(whole, "JPEG" if suffix == "jpg" else "PNG")
        data = whole.getvalue()
        path = tmp_path / f"cut.{suffix}"
        for length in range(0, len(data) - 30, 23):
            path.write_bytes(data[:length])
            with pytest.raises(OSError, match=f"cut.{suffix}"):
                read_image(str(path), "BGR")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image(str(tmp_path / "nowhere.jpg"))


def test_unknown_format(pixels, tmp_path):
    with pytest.raises(OSError, match=r"a\.png.*GBR"):
        read_image(save(pixels, tmp_path / "a.png"), "GBR")


def test_size_of_the_record(pixels):
    record = {"file_name": "x.jpg"}
    check_image_size(record, pixels)
    assert (record["width"], record["height"]) == (17, 12)
    with pytest.raises(SizeMismatchError, match=r"x\.jpg.*image_id 7.*17 x 12.*12 x 17"):
        check_image_size({"file_name": "x.jpg", "image_id": 7, "width": 12, "height": 17}, pixels)


def test_labels_are_not_colours(tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (6, 7), dtype=np.uint8)
    indexed = Image.fromarray(labels, mode="P")
    indexed.putpalette([200, 10, 30] * 100)
    deep = (labels.astype(np.uint16) + 1) * 1000
    for image, expected in [
        (labels, labels),
        (indexed, labels),
        (deep, deep),
        (labels > 2, labels > 2),
        (np.repeat(labels[:, :, None], 3, axis=2), labels),
    ]:
        assert np.array_equal(read_sem_seg(save(image, tmp_path / "a.png")), expected)
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0, 1] = 9
    with pytest.raises(OSError, match=r"c\.png.*colours"):
        read_sem_seg(save(colours, tmp_path / "c.png"))
