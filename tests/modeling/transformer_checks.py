"""What the tests of vision transformers share: numbers, and checks that hold for each of them."""

import torch


def numbers(seed, *shape, dtype=torch.float32):
    """Normally distributed, the same for every dtype but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def randomize(module):
    """``module`` with weights that are none of its initial ones, in inference."""
    for i, parameter in enumerate(module.parameters()):
        parameter.data = numbers(i, *parameter.shape).to(parameter) * 0.3
    return module.eval()


def check_recomputation(make, images, name, times_less):
    """The same gradients, and far fewer tensors kept for them.

    Args:
        make: makes the network, called with whether activations are computed again.
        images: the input.
        name: of the output that is looked at.
        times_less: by how much fewer tensors there must be.
    """
    gradients, counts = [], []

    def count(tensor):
        counts[-1] += 1
        return tensor

    for again in (False, True):
        network = randomize(make(again))
        counts.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            y = network(images)[name]
        y.square().mean().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters() if p.grad is not None})
    assert counts[1] < counts[0] / times_less
    torch.testing.assert_close(gradients[1], gradients[0])


def check_half_precision(network, images, name, dtype):
    """Under autocast, and as a whole in ``dtype``: about the numbers of float32, and gradients."""
    expected = network(images)[name]
    with torch.autocast("cpu", dtype=dtype):
        y = network(images)[name]
    y.float().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    z = network.to(dtype)(images.to(dtype))[name]
    assert z.dtype == dtype
    for half in (y, z):
        assert (half.float() - expected).norm() < 0.1 * expected.norm()
