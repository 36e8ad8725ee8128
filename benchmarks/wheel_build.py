"""What a clean build of the wheel costs, in CPU seconds, with everything downloaded.

    python3.11 benchmarks/wheel_build.py [--archs sm_80,sm_86,sm_90]

Bazel runs as one process (--batch) in a new output base without the cache of actions, so that its
own start, analysis and every compilation count. Compare with, on the same machine and for the same
architectures, a build of the original's setup.py.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def bazel(output_base: Path, *arguments: str) -> None:
    launcher = [PROJECT / "bazelw", f"--output_base={output_base}", "--batch"]
    options = ["--disk_cache=", "--experimental_convenience_symlinks=ignore", "--curses=no"]
    subprocess.run(
        [*launcher, *arguments, *options, "//:wheel"], cwd=PROJECT, check=True, capture_output=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archs", default="sm_80,sm_86,sm_90")
    archs = f"--//:cuda_archs={parser.parse_args().archs}"
    # Beside Bazel's own output, not under /tmp, which sandboxed actions see empty.
    scratch = Path(tempfile.mkdtemp(prefix="wheel_build.", dir=Path.home() / ".cache"))
    try:
        bazel(scratch, "build", "--nobuild", archs)  # downloads and unpacks
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        bazel(scratch, "build", archs)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    finally:
        subprocess.run(["chmod", "-R", "u+w", scratch], check=False)
        shutil.rmtree(scratch, ignore_errors=True)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    result = {"cpu_s": user + system, "user_s": user, "system_s": system, "wall_s": wall}
    for name, seconds in result.items():
        print(f"{name:>8}  {seconds:7.1f}")
    print(json.dumps({"name": "wheel_build", "archs": archs} | result))


if __name__ == "__main__":
    main()
