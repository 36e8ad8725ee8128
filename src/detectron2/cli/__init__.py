"""The command line: ``detectron2 COMMAND``, or ``python -m detectron2 COMMAND``.

The exit status is 0 if all went well; 1 if something failed, or a check found an error; 2 for wrong
arguments, configurations included; and 130 after an interruption by the user.

A command is a module of this package with a line ``HELP``, a text ``EXAMPLES``, and functions
``add_arguments(parser)`` and ``run(args)``, which returns the exit status. These modules import
little: the library itself is imported by what they run.
"""

from detectron2.cli._main import main

__all__ = ["main"]
