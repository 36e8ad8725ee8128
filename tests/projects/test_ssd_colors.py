"""The colour augmentation of SSD, against colorsys."""

import colorsys

import numpy as np
import pytest

from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.projects.point_rend import color_augmentation as module

# Greys, primary colours, and others, in BGR order.
IMAGE = np.concatenate(
    [
        np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8),
        np.random.default_rng(0).integers(0, 256, (40, 5, 3)).astype(np.uint8),
    ]
)


def changed_in_hsv(image, change):
    """Each pixel of a BGR image, changed as (hue, saturation, value) in [0, 1]."""
    result = np.empty(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        blue, green, red = image[y, x] / 255
        hsv = change(*colorsys.rgb_to_hsv(red, green, blue))
        result[y, x] = np.multiply(colorsys.hsv_to_rgb(*hsv)[::-1], 255)
    return result


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(module, "_coin", lambda: True)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation(always, factor):
    transform = ColorAugSSDTransform("BGR", saturation_low=factor, saturation_high=factor)
    expected = changed_in_hsv(IMAGE, lambda h, s, v: (h, min(s * factor, 1), v))
    assert np.abs(transform.saturation(IMAGE) - expected).max() <= 0.51


@pytest.mark.parametrize("degrees", [-36, -10, 0, 24, 90])
def test_hue(always, monkeypatch, degrees):
    monkeypatch.setattr(np.random, "randint", lambda low, high: degrees // 2)
    transform = ColorAugSSDTransform("BGR")
    expected = changed_in_hsv(IMAGE, lambda h, s, v: ((h + degrees / 360) % 1, s, v))
    assert np.abs(transform.hue(IMAGE) - expected).max() <= 0.51


def test_contrast_and_brightness(always):
    transform = ColorAugSSDTransform("BGR", contrast_low=1.3, contrast_high=1.3)
    expected = np.clip(IMAGE * np.float32(1.3), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(transform.contrast(IMAGE), expected)
    difference = transform.brightness(IMAGE).astype(int) - IMAGE
    assert np.abs(difference).max() <= 32
    np.testing.assert_array_equal(
        transform.convert(IMAGE, 0.5, -10), transform.convert(IMAGE.astype(np.float64), 0.5, -10)
    )


def test_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(module, "_coin", lambda: False)
    np.testing.assert_array_equal(ColorAugSSDTransform("RGB").apply_image(IMAGE), IMAGE)


def test_formats_differ_in_order_only():
    for seed in range(10):
        np.random.seed(seed)
        bgr = ColorAugSSDTransform("BGR").apply_image(IMAGE)
        np.random.seed(seed)
        rgb = ColorAugSSDTransform("RGB").apply_image(IMAGE[:, :, ::-1])
        np.testing.assert_array_equal(rgb[:, :, ::-1], bgr)
        assert rgb.dtype == np.uint8


def test_many_colors_come_out():
    transform = ColorAugSSDTransform("BGR")
    outputs = {transform.apply_image(IMAGE).tobytes() for _ in range(40)}
    assert len(outputs) > 30


def test_only_images_change():
    transform = ColorAugSSDTransform("BGR")
    coords, labels = np.random.rand(4, 2), np.arange(6).reshape(2, 3)
    assert transform.apply_coords(coords) is coords
    assert transform.apply_segmentation(labels) is labels


def test_bad_images():
    with pytest.raises(ValueError, match="'HSV'"):
        ColorAugSSDTransform("HSV")
    with pytest.raises(ValueError, match="float32"):
        ColorAugSSDTransform("BGR").apply_image(IMAGE.astype(np.float32))
