"""What the engine's tests train: a model of a few weights, and the data for it."""

import torch
from torch import nn


class Toy(nn.Module):
    """Two losses of a linear layer; takes (N, 3)."""

    def __init__(self, seed=0):
        super().__init__()
        self.fc = nn.Linear(3, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.fc.weight.copy_(torch.randn(1, 3, generator=generator))
            self.fc.bias.zero_()

    def forward(self, x):
        y = self.fc(x)
        return {"loss_a": (y**2).mean(), "loss_b": y.abs().mean() * 0.5}


def batches(count=50, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=generator) for _ in range(count)]


def sgd(model, lr=0.05, momentum=0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
