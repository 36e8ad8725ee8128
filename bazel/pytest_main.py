"""Entry point of the pytest_test targets."""

import os
import sys

import pytest

if __name__ == "__main__":
    arguments = ["-p", "no:cacheprovider", "-ra"]
    # `bazel test --test_filter=EXPRESSION` is pytest's -k.
    if os.environ.get("TESTBRIDGE_TEST_ONLY"):
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    if os.environ.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    sys.exit(pytest.main(arguments + sys.argv[1:]))
