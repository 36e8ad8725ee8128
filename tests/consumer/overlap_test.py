"""The library runs from another workspace, with that workspace's torch."""

import math
import unittest

import torch
from overlap import overlap_of_rotated_squares


class OverlapTest(unittest.TestCase):
    def test_op(self):
        # Two unit squares at 45 degrees share a regular octagon of area 2 (sqrt(2) - 1).
        octagon = 2 * (math.sqrt(2) - 1)
        expected = octagon / (2 - octagon)
        assert math.isclose(overlap_of_rotated_squares(45.0), expected, rel_tol=1e-5)
        assert math.isclose(overlap_of_rotated_squares(90.0), 1.0, rel_tol=1e-5)

    def test_torch_is_this_workspaces(self):
        assert torch.__version__.split("+")[0] == "2.14.0"


if __name__ == "__main__":
    unittest.main()
