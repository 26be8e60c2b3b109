"""The option `--vllm`: how TRL samples completions with vLLM."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from safemed_eval import grammar
from safemed_eval.errors import SpecError, canonical, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Colocate:
    """vLLM in the training's own processes, on the same GPUs.

    Args:
        memory: share of a GPU's memory that vLLM may take.
        context: longest prompt and completion together, in tokens; None: what the model allows.
        tensor_parallel: number of processes that share one copy of vLLM's model.
    """

    memory: float = 0.3
    context: int | None = None
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.memory < 1:
            raise ValueError(f"memory is a share of a GPU's memory, in (0, 1), got {self.memory:g}")
        if self.tensor_parallel < 1 or (self.context is not None and self.context < 1):
            raise ValueError("context and tensor_parallel must be at least 1")

    @property
    def of_trl(self) -> dict[str, object]:
        """The same as arguments of TRL's GRPOConfig."""
        return {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": self.memory,
            "vllm_max_model_length": self.context,
            "vllm_tensor_parallel_size": self.tensor_parallel,
        }


@dataclass(frozen=True, kw_only=True)
class Server:
    """A vLLM server on GPUs of its own, whose memory, context and parallelism it was started with.

    Args:
        url: its address, such as http://host:8000; None: port 8000 of this machine.
    """

    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and not re.fullmatch(r"https?://\S+", self.url):
            raise ValueError(f"url: '{self.url}' is not an address like http://host:8000")

    @property
    def of_trl(self) -> dict[str, object]:
        """The same as arguments of TRL's GRPOConfig."""
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": self.url}


_MODES: dict[str, type[Colocate | Server]] = {"colocate": Colocate, "server": Server}


def read_vllm(text: str) -> Colocate | Server:
    """Parse `colocate:memory=0.3,context=4096,tensor_parallel=2` or `server:url=http://host:8000`."""
    name, pairs = grammar.split(text)
    mode = canonical(name, _MODES)
    if mode is None:
        raise SpecError(f"--vllm: '{name}' is not a mode; {did_you_mean(name, _MODES)}")
    return grammar.build(_MODES[mode], pairs, f"--vllm {mode}")


def canonical_vllm(text: str) -> str:
    """Return the text that stands for the same in every spelling."""
    vllm = read_vllm(text)
    return grammar.write("colocate" if isinstance(vllm, Colocate) else "server", vllm)


def refuse_vllm(text: str, processes: int) -> None:
    """Raise SpecError if vLLM is not installed, or cannot be split among the processes; TRL needs it in both modes."""
    vllm = read_vllm(text)
    if find_spec("vllm") is None:
        raise SpecError(f"--vllm {text}: vLLM is not installed; pip install vllm, or leave --vllm out")
    if isinstance(vllm, Colocate) and processes % vllm.tensor_parallel:
        raise SpecError(
            f"--vllm {text}: tensor_parallel={vllm.tensor_parallel} does not divide the {processes} processes of this "
            "training; choose a divisor"
        )
