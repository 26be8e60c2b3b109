"""Connection to Ray, on this machine or on a cluster, and the resources of its workers."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from safemed_eval.codec import Json
from safemed_eval.errors import RunError, SpecError

_REACH_S = 10.0
_OBJECTS_BYTES = 2**28
"""Size of Ray's object store, which large results pass through; Ray's default is a third of the memory."""


def refuse_without_ray() -> None:
    """Raise SpecError if Ray is not installed, before anything is loaded."""
    if find_spec("ray") is None:
        raise SpecError("--ray needs Ray, which is not installed; pip install 'safemed-eval[ray]'")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Start or join Ray; an existing connection of this process is used, and left open."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    try:
        _connect(address)
        yield ray
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    import ray

    settings: Json = {}
    if address == "local":
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # keep other users of this machine out
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        settings = {"include_dashboard": False, "object_store_memory": _OBJECTS_BYTES}
    else:
        _refuse_silence(address)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
    except SystemExit:  # raised by Ray on SIGTERM
        raise KeyboardInterrupt from None
    except Exception as error:  # Ray raises bare exceptions, too, such as for a start that times out
        raise RunError(f"--ray {address}: {one_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)
    # Ray reports the end of its processes on stdout, where --json is. `Crew` reports what matters.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def _refuse_silence(address: str) -> None:
    """Raise RunError if nothing answers at the address, which Ray itself would try to reach for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(f"--ray {address}: nobody answers there: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Places:
    """Number of workers, and the resources that each requests from Ray."""

    address: str
    workers: int
    threads: int | None
    """Threads of torch per worker; None leaves the choice to torch."""
    gpu: bool

    @property
    def options(self) -> Json:
        """Ray's options for the actor of a worker."""
        # On this machine threads divide the cores. On a cluster Ray must know what a worker uses.
        cores = 0 if self.address == "local" else 1 if self.gpu else self.threads
        return {"num_cpus": cores, "num_gpus": int(self.gpu), "max_restarts": 0, "max_task_retries": 0}


def places(address: str, workers: int | None, device: str, there: Mapping[str, float]) -> Places:
    """Decide number and resources of the workers. A cluster may grow, so more workers than now fit are allowed."""
    gpus, cores = int(there.get("GPU", 0)), max(1, int(there.get("CPU", 1)))
    local = address == "local"
    if device == "cuda" and not gpus and (local or not workers):
        wait = "" if local else "; --workers N waits until there are N"
        raise SpecError(f"--device cuda: Ray ({address}) has no GPU{wait}")
    if device == "cuda" or (device == "auto" and gpus):
        count = workers or gpus
        if local and count > gpus:
            raise SpecError(f"--workers {count}: this machine has {gpus} GPUs, and each worker needs one of its own")
        return Places(address=address, workers=count, threads=max(1, cores // gpus) if gpus else None, gpu=True)
    count = workers or max(1, cores // 2)
    return Places(address=address, workers=count, threads=max(1, cores // count), gpu=False)


def one_line(error: BaseException) -> str:
    """Format type and message of an error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
