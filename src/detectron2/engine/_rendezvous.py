"""Where the processes of a training find each other."""

import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist


def backend() -> str:
    """The backend of ``torch.distributed`` for this machine."""
    return "nccl" if torch.cuda.device_count() and dist.is_nccl_available() else "gloo"


@dataclass(frozen=True)
class World:
    """All processes, and their meeting point: a server, or a file."""

    size: int
    timeout: timedelta
    host: str = ""
    port: int = 0
    file: str = ""

    def join(self, rank: int) -> None:
        if self.file:
            store = dist.FileStore(self.file, self.size)
        else:
            store = dist.TCPStore(self.host, self.port, is_master=False, timeout=self.timeout)
        dist.init_process_group(
            backend(), store=store, rank=rank, world_size=self.size, timeout=self.timeout
        )


def meeting_point(
    dist_url: str | None, num_machines: int, machine_rank: int, world_size: int, timeout: timedelta
) -> tuple[World, Any]:
    """The world, and the server that the machine of rank 0 runs for it.

    The server is in this process, not in rank 0's: its port is taken from the moment it is chosen,
    and it outlives every rank.
    """
    if dist_url is None:
        dist_url = "env://" if "MASTER_ADDR" in os.environ else "auto"
    if dist_url == "env://":
        dist_url = _url_from_environment()
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                f"{num_machines} machines need a dist_url like 'tcp://host:port', with the host "
                "of machine rank 0"
            )
        dist_url = "tcp://localhost:0"
    url = urlsplit(dist_url)
    if url.scheme == "file" and url.path:
        _check_file(url.path, num_machines)
        return World(world_size, timeout, file=url.path), None
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if url.scheme != "tcp" or not host or port is None:
        raise ValueError(
            "dist_url must be 'tcp://host:port', 'file:///path', 'env://' or 'auto', got "
            f"{dist_url!r}"
        )
    if machine_rank != 0:
        return World(world_size, timeout, host, port), None
    try:
        server = dist.TCPStore(host, port, is_master=True, timeout=timeout, wait_for_workers=False)
    except RuntimeError as error:
        raise RuntimeError(
            f"cannot listen on the port of dist_url {dist_url!r}; if another training has it, give "
            "another port, or 'auto' on one machine"
        ) from error
    return World(world_size, timeout, host, server.port), server


def _url_from_environment() -> str:
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not host or not port:
        raise ValueError(
            "dist_url 'env://' needs the environment variables MASTER_ADDR and MASTER_PORT, got "
            f"{host!r} and {port!r}"
        )
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _check_file(path: str, num_machines: int) -> None:
    if num_machines > 1:
        logging.getLogger(__name__).warning(
            "dist_url is a file, %s: all %d machines must see it, on a file system whose locks "
            "work. 'tcp://host:port' needs neither.",
            path,
            num_machines,
        )
    elif Path(path).exists() and Path(path).stat().st_size:
        # What another run left in it would have this one wait for that one's processes.
        raise ValueError(f"the file of dist_url exists already: {path}")
