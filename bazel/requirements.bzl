"""What the library needs at run time."""

# Name on the package index, to the oldest release that is known to do, or "" for any. They are the
# wheel's requirements, and the Bazel target's dependencies in @detectron2_neo_pip.
REQUIREMENTS = {
    "fvcore": "",
    "iopath": "",
    "numpy": "",
    "omegaconf": "",
    # Its own scalable font, for labels.
    "pillow": ">=10.1",
    "pycocotools": "",
    # The stable ABI that the extensions are built against, and its torchvision.
    "torch": ">=2.10",
    "torchvision": ">=0.25",
}
