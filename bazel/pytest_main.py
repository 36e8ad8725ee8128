"""Entry point of the pytest_test targets."""

import os
import site
import sys

# The packages of the lock, not what else the machine's Python has installed.
HOST_PACKAGES = {*site.getsitepackages(), site.getusersitepackages()}
sys.path = [path for path in sys.path if path not in HOST_PACKAGES]

import pytest  # noqa: E402

if __name__ == "__main__":
    # Scratch folders beside Bazel's own: /tmp may be small, or memory.
    scratch = os.path.join(os.environ["TEST_TMPDIR"], "pytest")
    arguments = ["-p", "no:cacheprovider", "-ra", f"--basetemp={scratch}"]
    # `bazel test --test_filter=EXPRESSION` is pytest's -k.
    if os.environ.get("TESTBRIDGE_TEST_ONLY"):
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    if os.environ.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    sys.exit(pytest.main(arguments + sys.argv[1:]))
