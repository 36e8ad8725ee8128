"""Inputs of layers for the tests of graphs; the same for the same arguments."""

import torch


def images(count, height=12, width=16, channels=6):
    generator = torch.Generator().manual_seed(count + height)
    return torch.randn(count, channels, height, width, generator=generator)


def boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 20
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 10], 1)


def rotated_boxes(count, seed=0):
    return torch.cat([boxes(count, seed), torch.arange(count)[:, None] * 30.0], dim=1)


def scores(count):
    return torch.rand(count, generator=torch.Generator().manual_seed(count))


def classes(count):
    return torch.arange(count) % 3


def rois(count, make_boxes=boxes):
    """Of two images, by turns."""
    return torch.cat([torch.arange(count)[:, None] % 2.0, make_boxes(count)], dim=1)
