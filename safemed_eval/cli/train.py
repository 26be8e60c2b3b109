"""The commands `safemed-eval train METHOD`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import typer

from safemed_eval.cli._options import DataOptions, grouped
from safemed_eval.cli._training import AdversaryOptions, DenoiserOptions, FitOptions, GroupOptions, TrainOptions

if TYPE_CHECKING:
    from safemed_eval.train import Method

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
def sft(train: TrainOptions, data: DataOptions) -> None:
    """Supervised fine-tuning on the gold answers."""
    _train("sft", train, data)


@app.command("at-sft", epilog=_EXAMPLE.format("at-sft", "at-sft"))
@grouped
def at_sft(train: TrainOptions, data: DataOptions, adversary: AdversaryOptions) -> None:
    """Supervised fine-tuning on images that PGD attacks before each step."""
    _train("at-sft", train, data, adversary)


@app.command("grpo", epilog=_EXAMPLE.format("grpo", "grpo"))
@grouped
def grpo(train: TrainOptions, data: DataOptions, groups: GroupOptions) -> None:
    """Group relative policy optimization: sampled answers, rewarded where right and well-formed."""
    _train("grpo", train, data, groups)


@app.command("at-grpo", epilog=_EXAMPLE.format("at-grpo", "at-grpo"))
@grouped
def at_grpo(train: TrainOptions, data: DataOptions, adversary: AdversaryOptions, groups: GroupOptions) -> None:
    """GRPO on images that PGD attacks before the answers are sampled."""
    _train("at-grpo", train, data, adversary, groups)


@app.command("denoiser", epilog=_DENOISER_EXAMPLE)
@grouped
def denoiser(train: DenoiserOptions, data: DataOptions) -> None:
    """Train a small network that removes noise before a frozen model sees the image: denoised smoothing."""
    _train("denoiser", train, data)


def _train(
    method: Method | Literal["denoiser"],
    train: FitOptions,
    data: DataOptions,
    *groups: AdversaryOptions | GroupOptions,
) -> None:
    from safemed_eval.train.make import train as make

    options: Any = train.recipe | {name: value for group in groups for name, value in vars(group).items()}
    trained = make(method, train.find(), data.chosen(train.seed), out=train.out, **options)
    typer.echo(
        f"{trained}: done{', for --denoiser' * (method == 'denoiser')}; its log and figure are in {trained}/training"
    )
