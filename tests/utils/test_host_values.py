"""Values that are known on the CPU. Tensors on "meta" have none, so that they must be known."""

import pytest
import torch

from detectron2.utils._host_values import on_host, remember_on_host, to_device


def test_remembered_until_changed() -> None:
    tensor, values = torch.empty(3, device="meta"), torch.tensor([1.0, 2, 3])
    remember_on_host(tensor, values)
    assert on_host([tensor])[0] is values
    for other in (tensor.view(3), tensor.clone(), torch.empty(3, device="meta")):
        with pytest.raises(NotImplementedError):  # Nothing to fetch.
            on_host([other])
    tensor.add_(1)
    with pytest.raises(NotImplementedError):
        on_host([tensor])


def test_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        tensor = torch.empty(3, device="meta")
        remember_on_host(tensor, torch.zeros(3))
        tensor.add_(1)
        with pytest.raises(NotImplementedError):
            on_host([tensor])


def test_forgotten_with_the_tensor() -> None:
    from detectron2.utils import _host_values

    before = len(_host_values._known)
    tensor = torch.empty(3, device="meta")
    remember_on_host(tensor, torch.zeros(3))
    assert len(_host_values._known) == before + 1
    del tensor
    assert len(_host_values._known) == before


def test_on_the_cpu() -> None:
    tensors = [torch.rand(2, requires_grad=True), torch.rand(0)]
    remember_on_host(tensors[1], torch.ones(7))
    got = on_host(tensors)
    assert torch.equal(got[0], tensors[0])
    assert not got[0].requires_grad
    assert len(got[1]) == 0
    assert torch.equal(to_device(tensors[0], torch.device("cpu")), tensors[0])


@pytest.mark.gpu
def test_known_values_do_not_wait() -> None:
    tensors = [torch.rand(n, 2, device="cuda") for n in (3, 0, 4)]
    wanted = [t.cpu() for t in tensors]
    remember_on_host(tensors[0], wanted[0])
    got = on_host(tensors)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = on_host(tensors)
        moved = to_device(wanted[2], torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(got + again, wanted * 2, strict=True))
    assert torch.equal(moved, tensors[2])
