"""Test targets."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, srcs, deps = [], data = [], env = {}, args = [], **kwargs):
    """Runs pytest over files; the same files run under a plain `pytest` against an installed wheel.

    Args:
      name: of the test.
      srcs: the test files, and what they import from beside them.
      deps: Python targets; pytest, hypothesis and the library's own dependencies are added.
      data: files that the tests read.
      env: environment variables.
      args: arguments of pytest.
      **kwargs: other attributes of py_test.
    """
    config = Label("//:pyproject.toml")
    runner = Label("//bazel:pytest_main.py")
    tests = [src for src in srcs if src.split("/")[-1].startswith("test_")]
    py_test(
        name = name,
        srcs = srcs + [runner],
        args = ["-c", "$(rootpath {})".format(config)] + args + ["$(rootpath {})".format(test) for test in tests],
        data = data + [config],
        env = env,
        legacy_create_init = 0,
        main = runner,
        deps = deps + ["@detectron2_neo_pip//:site_packages"],
        **kwargs
    )
