"""Every module of the checkout is in the wheel: none is forgotten in a BUILD file."""

import os
import zipfile
from pathlib import Path

# Runfiles are links into the checkout.
CHECKOUT = Path(os.path.realpath(__file__)).parents[2]


def test_wheel_holds_every_module(wheel: Path) -> None:
    sources = CHECKOUT / "src"
    expected = {str(path.relative_to(sources)) for path in sources.rglob("*.py")}
    assert expected, sources
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.endswith(".py")} == expected
