"""Makes one site-packages tree out of locked packages; the program behind the pip repository rule.

    wheel_tree.py --lock requirements_lock.txt --tree OUT --cache DIR [--package NAME ...]

OUT holds hard links into DIR, where each wheel is unpacked once (copies, where OUT lies on another
file system). It appears by one rename, when it is complete. Exit status 1 goes with one line on
standard error that says what to do.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lock_file import LockedPackage, LockError, canonical_name, read_lock
from wheel_cache import CacheError, WheelCache, report
from wheel_unpack import WheelError


class TreeError(Exception):
    """Why the tree cannot be made, as one line."""


def select_packages(
    lock: Mapping[str, LockedPackage], names: Sequence[str], lock_path: Path
) -> list[LockedPackage]:
    """Returns the named packages, or all of them where no name is given. Follows no dependency."""
    wanted = list(dict.fromkeys(map(canonical_name, names))) or list(lock)
    unknown = [name for name in wanted if name not in lock]
    if unknown:
        raise TreeError(f"not in {lock_path} for this Python: {', '.join(unknown)}")
    return [lock[name] for name in wanted]


def merge_trees(trees: Mapping[str, Path], destination: Path) -> None:
    """Links the files of all trees, by package name, into the new folder `destination`.

    A file that several packages bring is fine when its contents are the same everywhere, and a
    TreeError otherwise. The folder appears complete or not at all.
    """
    if os.path.lexists(destination):
        raise TreeError(f"{destination} exists already")
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(
        tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent)
    )
    try:
        owners: dict[Path, str] = {}
        for name, tree in trees.items():
            _link_tree(name, tree, unfinished, owners)
        unfinished.chmod(0o755)
        unfinished.rename(destination)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _link_tree(name: str, tree: Path, destination: Path, owners: dict[Path, str]) -> None:
    for folder, folder_names, file_names in os.walk(tree):
        folder_names.sort()
        relative = Path(folder).relative_to(tree)
        target_folder = destination / relative
        if relative in owners:
            raise TreeError(f"{relative} is a file of {owners[relative]} and a folder of {name}")
        target_folder.mkdir(exist_ok=True)
        for file_name in file_names:
            source, target = Path(folder, file_name), target_folder / file_name
            if target.exists():
                owner = owners.get(relative / file_name, "another package")
                if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
                    raise TreeError(f"{relative / file_name} differs between {owner} and {name}")
                continue
            _link(source, target)
            owners[relative / file_name] = name


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without (further) hard links.
        shutil.copy2(source, target)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", type=Path, required=True, help="name==version and hashes")
    parser.add_argument("--tree", type=Path, required=True, help="the folder to make")
    parser.add_argument("--cache", type=Path, required=True, help="folder of unpacked wheels")
    parser.add_argument("--package", action="append", default=[], help="default: all of the lock")
    parser.add_argument("--bytecode", action="store_true", help="with .pyc files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse_arguments(arguments)
    # A polite end runs the clean-up that a crash would run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if os.path.lexists(options.tree):
            raise TreeError(f"{options.tree} exists already")
        lock = read_lock(options.lock)
        packages = select_packages(lock, options.package, options.lock)
        cache = WheelCache(options.cache, lock)
        trees = cache.trees(packages, bytecode=options.bytecode)
        merge_trees(trees, options.tree.absolute())
    except (LockError, CacheError, TreeError, WheelError) as error:
        report(f"wheel_tree: {error}")
        return 1
    except OSError as error:
        report(f"wheel_tree: {error.filename or ''}: {error.strerror or error}")
        return 1
    report(f"{options.tree}: {len(trees)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
