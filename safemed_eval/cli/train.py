"""The commands `safemed-eval train METHOD`, and their groups of options."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safemed_eval.cli._options import DataOptions, FileOptions, grouped, option
from safemed_eval.cli._watching import KeepOptions, WatchOptions
from safemed_eval.core import Dtype
from safemed_eval.models import Model, find_model
from safemed_eval.threat import Norm

if TYPE_CHECKING:
    from safemed_eval.train import Method


@dataclass(frozen=True, kw_only=True)
class FitOptions(FileOptions):
    """Options that all trainings share, denoisers included."""

    device: Annotated[
        str,
        option(
            panel="Model",
            help="auto or cpu. Choose a GPU with CUDA_VISIBLE_DEVICES, several with accelerate launch.",
        ),
    ] = "auto"
    model: str
    template: str | None = None
    save_every: Annotated[
        int, option(panel="Run", help="Steps between intermediate checkpoints, from which a stopped training resumes.")
    ] = 200
    seed: Annotated[int, option(panel="Run", help="Seed of the order of items, samples, adversary and noise.")] = 0
    out: Path

    def find(self) -> Model:
        """Find the model that these options name, without loading it."""
        return find_model(**{name: getattr(self, name) for name in _OF_MODEL})

    @property
    def recipe(self) -> dict[str, Any]:
        """The options of the training itself, by name."""
        return {name: value for name, value in vars(self).items() if name not in (*_OF_MODEL, "out")}


_OF_MODEL = ("model", "template", *(f.name for f in fields(FileOptions)))


@dataclass(frozen=True, kw_only=True)
class TrainOptions(FitOptions):
    """Options of every method that trains a checkpoint."""

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
            help="Prompt template: instruct, think, think-after, letter, or a text file. Default: that of --model's "
            "training, else instruct. The new checkpoint keeps it.",
        ),
    ] = None
    dtype: Annotated[
        Dtype,
        option(
            panel="Model",
            help="Data type of the weights. auto: float32, or under an adapter the checkpoint's own. Half precision is "
            "for adapters only: small updates would be rounded to nothing.",
        ),
    ] = "auto"
    lora: Annotated[
        str | None,
        option(
            panel="Training",
            help="Train an adapter, such as r=16 or r=16,alpha=32,dropout=0.05,targets=language. targets: all, vision, "
            "language, projector, or a regular expression for whole names of linear layers.",
        ),
    ] = None
    freeze: Annotated[
        list[str] | None,
        option(
            panel="Training",
            help="Do not train this part, vision, language or projector; not with --lora. May be repeated.",
        ),
    ] = None
    steps: Annotated[
        int | None, option(panel="Training", help="Optimizer steps. Default: as many as --epochs take.")
    ] = None
    epochs: Annotated[float, option(panel="Training", help="Passes over the data.")] = 1.0
    batch_size: Annotated[int, option(panel="Training", help="Rows per device and step; for GRPO, completions.")] = 16
    accumulate: Annotated[int, option(panel="Training", help="Steps that make one update.")] = 1
    learning_rate: Annotated[
        float | None,
        option(panel="Training", help="Highest rate. Default: 1e-5, 1e-6 for GRPO; ten times as much for an adapter."),
    ] = None
    weight_decay: Annotated[float, option(panel="Training", help="Weight decay of AdamW.")] = 0.0
    noise_sigma: Annotated[
        str, option(panel="Training", help="Gaussian noise added to every image, for a model that will be smoothed.")
    ] = "0"
    ablate: Annotated[
        str | None,
        option(
            panel="Training",
            help="Show only a band of each image's columns, the rest in the mean colour, for certificates against "
            "patches: band=48, or band=48,share=0.5 (of the rows; the others stay whole).",
        ),
    ] = None
    bf16: Annotated[bool, option("--bf16", panel="Training", help="Compute in bfloat16.")] = False
    gradient_checkpointing: Annotated[
        bool, option("--gradient-checkpointing", panel="Training", help="Less memory, more time.")
    ] = False
    loader_workers: Annotated[
        int, option(panel="Run", help="Processes that decode images beside the training. 0: the training does it.")
    ] = 0
    out: Annotated[
        Path,
        option(panel="Run", help="Folder of the new checkpoint. The same command again resumes a stopped training."),
    ]


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions(FitOptions):
    """Options of the training of a denoiser."""

    model: Annotated[
        str,
        option(panel="Model", help="The frozen model that the denoiser is for, as --model of evaluate and certify."),
    ]
    template: Annotated[
        str | None,
        option(
            panel="Model",
            help="Prompt template: letter, instruct, think, think-after, or a text file. Default: as evaluate does.",
        ),
    ] = None
    sigma: Annotated[
        str,
        option(panel="Training", help="Standard deviation of the noise to remove, as in certify: 0.25, or a fraction."),
    ]
    steps: Annotated[int, option(panel="Training", help="Optimizer steps.")] = 5000
    mse_share: Annotated[
        float,
        option(
            panel="Training",
            help="Share of the steps, from the first, that train denoising (MSE). The rest trains the denoiser to "
            "preserve the model's answer (stability). 1: MSE alone; 0: stability alone.",
        ),
    ] = 0.5
    batch_size: Annotated[int, option(panel="Training", help="Rows per device and step.")] = 32
    learning_rate: Annotated[float, option(panel="Training", help="Highest rate of the MSE steps.")] = 1e-3
    stability_learning_rate: Annotated[
        float, option(panel="Training", help="Highest rate of the stability steps; it has to be much lower.")
    ] = 3e-5
    width: Annotated[int, option(panel="Training", help="Channels of the inner layers.")] = 64
    blocks: Annotated[int, option(panel="Training", help="Residual blocks, of two convolutions each.")] = 4
    out: Annotated[
        Path, option(panel="Run", help="Folder of the denoiser. The same command again resumes a stopped training.")
    ]


@dataclass(frozen=True, kw_only=True)
class AdversaryOptions:
    """Options of the attack inside training."""

    eps: Annotated[
        str | None,
        option(panel="Adversary", help="Attack bound in [0, 1] pixel units. Default: 4/255; L2 has no default."),
    ] = None
    attack_steps: Annotated[int, option(panel="Adversary", help="Gradient steps of the inner loop.")] = 5
    attack_step: Annotated[
        float | None,
        option(panel="Adversary", help="Step size as a fraction of eps. Default: 2.5 / steps, in L2 4 / steps."),
    ] = None
    norm: Annotated[Norm, option(panel="Adversary", help="linf or l2.")] = "linf"
    attack_share: Annotated[
        float,
        option(panel="Adversary", help="Share of the rows that are attacked; the clean rest keeps clean accuracy."),
    ] = 0.75
    eps_warm_up: Annotated[
        float, option(panel="Adversary", help="Share of the training over which eps grows from 0.")
    ] = 0.2


@dataclass(frozen=True, kw_only=True)
class PolicyAdversaryOptions(AdversaryOptions):
    """Options of the attack inside AT-GRPO, which can aim at what the policy writes."""

    adversary: Annotated[
        Literal["letter", "answer", "reward", "kl"] | None,
        option(
            panel="Adversary",
            help="What it attacks. letter: the letter after the bare cue; answer: the letter after the policy's own "
            "thought; reward: the expected reward; kl: what the policy goes on to say, of right answers on the clean "
            "image. Default: letter, or reward for templates that think.",
        ),
    ] = None
    kl_weight: Annotated[
        float, option(panel="Adversary", help="Weight of the divergence on attacked images, with --adversary kl.")
    ] = 1.0
    gain_weight: Annotated[
        float, option(panel="Adversary", help="Weight of GRPO's gain on attacked images, with --adversary kl.")
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class GroupOptions:
    """Options of the sampling and rewards of GRPO."""

    group_size: Annotated[int, option(panel="GRPO", help="Completions per question.")] = 8
    beta: Annotated[
        float, option(panel="GRPO", help="Weight of the KL divergence from --model on the clean image.")
    ] = 0.04
    temperature: Annotated[
        float,
        option(panel="GRPO", help="Sampling temperature; raise it if the completions of a group agree too often."),
    ] = 1.0
    max_new_tokens: Annotated[
        int | None,
        option(
            panel="GRPO",
            help="Longest completion, in tokens; one that is cut off is left out of the loss. Default: 256, or 512 for "
            "a template that asks for a thought.",
        ),
    ] = None
    reward_correct: Annotated[float, option(panel="GRPO", help="Weight of the reward for a right answer.")] = 1.0
    reward_kept: Annotated[
        float, option(panel="GRPO", help="Weight of the reward for the format that the template asks for.")
    ] = 0.2
    readout: Annotated[
        Literal["generate", "think-choice"],
        option(
            panel="GRPO",
            help="generate: the answer is parsed from the completion; think-choice: the likeliest letter after its "
            "thought.",
        ),
    ] = "generate"
    vllm: Annotated[
        str | None,
        option(
            panel="GRPO",
            help="Sample with vLLM on the same GPUs, colocate or colocate:memory=0.3,context=4096,tensor_parallel=2, "
            "or on a server's, server or server:url=http://host:8000. Needs pip install vllm.",
        ),
    ] = None
    loss: Annotated[
        Literal["grpo", "dr-grpo", "dapo", "bnpo"],
        option(
            panel="GRPO",
            help="How the losses of tokens are summed up, as TRL names it: grpo, a mean over each completion; dapo, "
            "over all tokens of a step; bnpo, over those of a batch; dr-grpo, a sum over --max-new-tokens, with "
            "advantages that are not divided by their standard deviation.",
        ),
    ] = "grpo"
    resample_agreeing: Annotated[
        int,
        option(
            panel="GRPO",
            help="How often, at most, groups whose completions all earn the same are drawn again: they teach nothing.",
        ),
    ] = 0
    reward: Annotated[
        list[str] | None,
        option(
            panel="GRPO",
            metavar="python:MODULE:FUNCTION",
            help="A further reward: a function of yours, called with (text, question, label), that returns a number or "
            "None. With a weight: python:module:function,weight=0.5. May be repeated.",
        ),
    ] = None


app = typer.Typer(
    help="Train a robust checkpoint, a baseline to compare it with, or a denoiser. Needs pip install "
    "'safemed-eval\\[train]'; several GPUs: accelerate launch -m safemed_eval train ...",
    no_args_is_help=True,
)
_EXAMPLE = (
    "Example: safemed-eval train {} --model org/name --data medr1:Splits/modality/train --data-root OmniMedVQA "
    "--lora r=16 --out ckpt-{}"
)
_DENOISER_EXAMPLE = (
    "Example: safemed-eval train denoiser --model ckpt --data medr1:Splits/modality/train --data-root OmniMedVQA "
    "--sigma 0.25 --out denoiser; then certify --model ckpt --denoiser denoiser --sigma 0.25"
)


@app.callback()
def _group() -> None:
    pass


@app.command("sft", epilog=_EXAMPLE.format("sft", "sft"))
@grouped
def sft(train: TrainOptions, data: DataOptions, watch: WatchOptions) -> None:
    """Supervised fine-tuning on the gold answers."""
    _train("sft", train, data, watch)


@app.command("at-sft", epilog=_EXAMPLE.format("at-sft", "at-sft"))
@grouped
def at_sft(train: TrainOptions, data: DataOptions, watch: WatchOptions, adversary: AdversaryOptions) -> None:
    """Supervised fine-tuning on images that PGD attacks before each step."""
    _train("at-sft", train, data, watch, adversary)


@app.command("grpo", epilog=_EXAMPLE.format("grpo", "grpo"))
@grouped
def grpo(train: TrainOptions, data: DataOptions, watch: WatchOptions, groups: GroupOptions) -> None:
    """Group relative policy optimization: sampled answers, rewarded where right and well-formed."""
    _train("grpo", train, data, watch, groups)


@app.command("at-grpo", epilog=_EXAMPLE.format("at-grpo", "at-grpo"))
@grouped
def at_grpo(
    train: TrainOptions, data: DataOptions, watch: WatchOptions, adversary: PolicyAdversaryOptions, groups: GroupOptions
) -> None:
    """GRPO on images that PGD attacks before the answers are sampled."""
    _train("at-grpo", train, data, watch, adversary, groups)


@app.command("denoiser", epilog=_DENOISER_EXAMPLE)
@grouped
def denoiser(train: DenoiserOptions, data: DataOptions, watch: KeepOptions) -> None:
    """Train a small network that removes noise before a frozen model sees the image: denoised smoothing."""
    _train("denoiser", train, data, watch)


def _train(
    method: Method | Literal["denoiser"],
    train: FitOptions,
    data: DataOptions,
    watch: KeepOptions,
    *groups: AdversaryOptions | GroupOptions,
) -> None:
    from safemed_eval.train.make import train as make

    options: Any = train.recipe | {name: value for group in groups for name, value in vars(group).items()}
    options |= watch.passed(data, train.seed)
    trained = make(method, train.find(), data.chosen(train.seed), out=train.out, **options)
    if os.environ.get("RANK", "0") != "0":
        return
    typer.echo(
        f"{trained}: done{', for --denoiser' * (method == 'denoiser')}; its log and figure are in {trained}/training"
    )
