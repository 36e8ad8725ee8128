"""``python -m detectron2``: the command line, see :mod:`detectron2.cli`."""

import sys

from detectron2.cli import main

# Processes of a training import this module, too.
if __name__ == "__main__":
    sys.exit(main())
