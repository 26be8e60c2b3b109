"""The options of `train`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from safemed_eval.cli._options import Dtype, FileOptions, option
from safemed_eval.models import Model, find_model
from safemed_eval.threat import Norm


@dataclass(frozen=True, kw_only=True)
class FitOptions(FileOptions):
    """Where a training runs, and how it goes on."""

    device: Annotated[
        str,
        option(
            panel="Model",
            help="auto or cpu. Choose a GPU with CUDA_VISIBLE_DEVICES, several with accelerate launch.",
        ),
    ] = "auto"
    model: str
    template: str | None = None
    save_every: Annotated[int, option(panel="Run", help="Steps between checkpoints to go on from.")] = 200
    seed: Annotated[int, option(panel="Run", help="Seed of the order, of samples, of the adversary and of noise.")] = 0
    out: Path

    def found(self) -> Model:
        """The model that these options name, found but not loaded."""
        return find_model(**{name: getattr(self, name) for name in _OF_MODEL})

    @property
    def recipe(self) -> dict[str, Any]:
        """The options of the training itself."""
        return {name: value for name, value in vars(self).items() if name not in (*_OF_MODEL, "out")}


_OF_MODEL = ("model", "template", *(one.name for one in fields(FileOptions)))


@dataclass(frozen=True, kw_only=True)
class TrainOptions(FitOptions):
    """What every method needs."""

    model: Annotated[
        str,
        option(
            panel="Model",
            help="The checkpoint to start from: a folder, a PEFT adapter's folder (which is trained on), builtin:NAME, "
            "or org/name@revision on the hub.",
        ),
    ]
    template: Annotated[
        str | None,
        option(
            panel="Model",
            help="How it is asked: instruct, think, letter, or a text file. Default: as --model was trained, else "
            "instruct. The new checkpoint remembers it.",
        ),
    ] = None
    dtype: Annotated[
        Dtype,
        option(
            panel="Model",
            help="Of the weights. auto: float32, or under an adapter the checkpoint's own; half precision is for "
            "adapters only: small steps would round away.",
        ),
    ] = "auto"
    lora: Annotated[
        str | None, option(panel="Training", help="Train an adapter, such as r=16 or r=16,alpha=32,dropout=0.05.")
    ] = None
    steps: Annotated[
        int | None, option(panel="Training", help="Optimizer steps. Default: as many as --epochs take.")
    ] = None
    epochs: Annotated[float, option(panel="Training", help="Passes over the data.")] = 1.0
    batch_size: Annotated[int, option(panel="Training", help="Rows per device and step; of GRPO, completions.")] = 16
    accumulate: Annotated[int, option(panel="Training", help="Steps that make one update.")] = 1
    learning_rate: Annotated[
        float | None,
        option(panel="Training", help="The highest. Default: 1e-5, 1e-6 for GRPO; ten times as much for an adapter."),
    ] = None
    weight_decay: Annotated[float, option(panel="Training", help="Of AdamW.")] = 0.0
    noise_sigma: Annotated[
        str, option(panel="Training", help="Gaussian noise on every image, for a model that will be smoothed.")
    ] = "0"
    bf16: Annotated[bool, option("--bf16", panel="Training", help="Compute in bfloat16.")] = False
    gradient_checkpointing: Annotated[
        bool, option("--gradient-checkpointing", panel="Training", help="Less memory, more time.")
    ] = False
    out: Annotated[
        Path, option(panel="Run", help="The new checkpoint. The same command again goes on where it stopped.")
    ]


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions(FitOptions):
    """What the training of a denoiser needs."""

    model: Annotated[
        str,
        option(
            panel="Model", help="The model that it is for, which stays as it is. As --model of evaluate and certify."
        ),
    ]
    template: Annotated[
        str | None,
        option(
            panel="Model", help="How it is asked: letter, instruct, think, or a text file. Default: as evaluate does."
        ),
    ] = None
    sigma: Annotated[
        str,
        option(panel="Training", help="Of the noise to remove: the one to certify with, 0.25, or a fraction."),
    ]
    steps: Annotated[int, option(panel="Training", help="Optimizer steps.")] = 5000
    mse_share: Annotated[
        float,
        option(
            panel="Training",
            help="Of the steps, from the first: it learns to denoise (MSE). In the rest it learns that the model's "
            "answer stays (stability). 1: MSE alone; 0: stability alone.",
        ),
    ] = 0.5
    batch_size: Annotated[int, option(panel="Training", help="Rows per device and step.")] = 32
    learning_rate: Annotated[float, option(panel="Training", help="The highest while it learns to denoise.")] = 1e-3
    stability_learning_rate: Annotated[
        float, option(panel="Training", help="The highest in the rest; it has to be much lower.")
    ] = 3e-5
    width: Annotated[int, option(panel="Training", help="Channels of its inner layers.")] = 64
    blocks: Annotated[int, option(panel="Training", help="Its residual blocks, of two convolutions each.")] = 4
    out: Annotated[
        Path, option(panel="Run", help="The denoiser's folder. The same command again goes on where it stopped.")
    ]


@dataclass(frozen=True, kw_only=True)
class AdversaryOptions:
    """The attack inside training."""

    eps: Annotated[
        str | None, option(panel="Adversary", help="Size of the attack's ball. Default: 4/255; L2 has no default.")
    ] = None
    attack_steps: Annotated[int, option(panel="Adversary", help="Gradient steps of the inner loop.")] = 5
    attack_step: Annotated[
        float | None,
        option(panel="Adversary", help="Size of one, as a fraction of eps. Default: 2.5 / steps, in L2 4 / steps."),
    ] = None
    norm: Annotated[Norm, option(panel="Adversary", help="linf or l2.")] = "linf"
    attack_share: Annotated[
        float, option(panel="Adversary", help="Share of the rows that are attacked; the rest keeps clean accuracy.")
    ] = 0.75
    eps_warm_up: Annotated[
        float, option(panel="Adversary", help="Share of the training over which eps grows from 0.")
    ] = 0.2


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """What GRPO samples and rewards."""

    group_size: Annotated[int, option(panel="GRPO", help="Completions per question.")] = 8
    beta: Annotated[
        float, option(panel="GRPO", help="Weight of the KL divergence from --model on the clean image.")
    ] = 0.04
    temperature: Annotated[float, option(panel="GRPO", help="Of sampling; hotter where groups agree too often.")] = 1.0
    max_new_tokens: Annotated[int, option(panel="GRPO", help="Where a completion is cut off.")] = 256
    reward_correct: Annotated[float, option(panel="GRPO", help="Weight of a right answer.")] = 1.0
    reward_kept: Annotated[
        float, option(panel="GRPO", help="Weight of keeping the form that the template asks for.")
    ] = 0.2
    readout: Annotated[
        Literal["generate", "think-choice"],
        option(
            panel="GRPO",
            help="How the answer of a completion is read: as it is written, or the likeliest letter after its thought.",
        ),
    ] = "generate"
    vllm: Annotated[
        Literal["server", "colocate"] | None,
        option(panel="GRPO", help="Have completions written by vLLM, as TRL does it (see TRL's documentation)."),
    ] = None
