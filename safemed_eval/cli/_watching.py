"""Options of `safemed-eval train` for watching a training: validation, samples, what is kept and reported."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

from safemed_eval.cli._options import DataOptions, option
from safemed_eval.codec import Json
from safemed_eval.data import choose_data
from safemed_eval.errors import SpecError

_validation = functools.partial(option, panel="Validation")
_run = functools.partial(option, panel="Run")


@dataclass(frozen=True, kw_only=True)
class KeepOptions:
    """What every training keeps and reports, that of a denoiser included."""

    keep: Annotated[
        int, _run(help="Intermediate checkpoints that are kept at a time; the newest and the best are among them.")
    ] = 2
    keep_checkpoints: Annotated[
        bool,
        _run("--keep-checkpoints", help="Keep the intermediate checkpoints when the training is complete, too."),
    ] = False
    report_to: Annotated[
        list[str] | None,
        _run(
            metavar="TRACKER",
            help="Send the log to wandb, tensorboard, mlflow or trackio, too, which reads its keys and addresses from "
            "its own environment variables. May be repeated. Default: none.",
        ),
    ] = None

    def passed(self, data: DataOptions, seed: int) -> Json:
        """The options in the form that `train` takes."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class WatchOptions(KeepOptions):
    """What is measured while a checkpoint is trained, and which weights are saved."""

    eval_data: Annotated[
        str | None,
        _validation(
            help="Validation data, as --data, such as phantom:split=validation,images=192; read with the same "
            "--data-root, --canvas, --fit, --modality, --question-type and --skip-bad. Accuracy on them, clean and "
            "under attack, is measured during the training, and chooses the weights that are saved.",
        ),
    ] = None
    eval_limit: Annotated[int | None, _validation(help="Take at most this many validation items, drawn by --seed.")] = (
        None
    )
    eval_every: Annotated[
        int | None,
        _validation(
            help="Steps between evaluations. Default: 100, or a tenth of --steps where that is less. The last step is "
            "evaluated, too.",
        ),
    ] = None
    eval_attack: Annotated[
        str | None,
        _validation(
            metavar="SPEC",
            help="The attack of the evaluations and samples, as --attack of evaluate. Default: pgd in the ball of the "
            "training's own adversary, or 4/255 without one, with 10 steps and 1 restart. It climbs on the scores of "
            "the letters; answers are the likeliest letters, or, under a template that asks for a thought first, what "
            "the model writes. There pgd is weak: adaptive:eps=4/255 is stronger, and slow.",
        ),
    ] = None
    best: Annotated[
        str | None,
        _validation(
            metavar="robust|clean|last",
            help="Save the weights with the best accuracy under attack (robust), or on clean images, or the last ones. "
            "Of equal ones the earliest is the best. Default: robust.",
        ),
    ] = None
    patience: Annotated[
        int | None,
        _validation(help="End the training after this many evaluations in a row without a new best one."),
    ] = None
    samples: Annotated[
        int,
        _run(
            help="Items that are attacked, and that the model is let write about, at each evaluation, or without "
            "validation data at each --save-every; for `report` on the training's folder. 0: none."
        ),
    ] = 4

    def passed(self, data: DataOptions, seed: int) -> Json:
        passed = super().passed(data, seed)
        limit = passed.pop("eval_limit")
        if self.eval_data is None:
            if limit is not None:
                raise SpecError("--eval-limit: has no effect without --eval-data")
            return passed
        shared = {name: getattr(data, name) for name in ("canvas", "fit", "skip_bad")}
        shared |= {name: getattr(data, name) or () for name in ("modality", "question_type")}
        chosen = functools.partial(choose_data, self.eval_data, root=data.data_root, limit=limit, seed=seed, **shared)
        return passed | {"eval_data": chosen}
