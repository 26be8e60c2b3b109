"""Check that a model can be attacked and certified as it is; each check passes, warns or fails, with a figure.

`models check` prints all of them; `evaluate` and `certify` run them at load and refuse a model that fails one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from safemed_eval.core import MODALITIES, Need, Question
from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.models.checks.answers import check_outputs, check_texts
from safemed_eval.models.checks.common import IMAGE_MATTERS, OTHER, REACHES, Finding
from safemed_eval.models.checks.gradients import check_gradient, check_precision
from safemed_eval.models.checks.paths import check_official, list_shortcuts
from safemed_eval.models.waist import Waist

Check = Callable[[Waist, torch.Tensor, Question], Iterator[Finding]]
"""A model, three images (see `_images`) and a question -> findings."""


def check(
    model: Waist,
    size: tuple[int, int],
    *,
    options: int = 4,
    questions: Sequence[Question] = (),
    gradients: bool = True,
) -> list[Finding]:
    """Run every check on synthetic images.

    Args:
        size: height and width of the images.
        options: the largest number of options that a question of the run has.
        questions: some of the run, the shortest and the longest among them.
        gradients: also run the checks that only an attack needs.
    """
    images = _images(size).to(model.device)
    names = (*MODALITIES, *(f"no. {i}" for i in range(len(MODALITIES), options)))
    question = Question(text="Which imaging modality is this?", options=names[:options])
    ends = _ends(_askable(model, questions) or (OTHER, question))
    checks: list[Check] = [
        check_texts,
        partial(check_outputs, ends=ends),
        check_official,
    ]
    if gradients:
        checks += [check_gradient, check_precision]
    findings: list[Finding] = []
    for run in (*checks, list_shortcuts):
        try:
            findings.extend(run(model if run is check_texts else _unthinking(model), images, question))
        except (ModelOutputError, CheckpointError) as error:
            findings.append(Finding("answers", "fail", str(error)))
            break
    return findings


def without_blindness(findings: Sequence[Finding]) -> list[Finding]:
    """Turn the failures of a model that ignores its images into warnings, for runs that measure just that.

    A zero gradient is forgiven only to a model whose answers do not depend on the image: to others it is a broken one.
    """
    blind = any(finding.name == IMAGE_MATTERS and finding.status == "fail" for finding in findings)
    names = (IMAGE_MATTERS, REACHES) if blind else ()
    return [
        replace(finding, status="warn") if finding.name in names and finding.status == "fail" else finding
        for finding in findings
    ]


def refuse_failures(findings: list[Finding], name: str) -> None:
    """Raise CheckpointError that names every failed check."""
    failed = [f"{finding.name}: {finding.detail}" for finding in findings if finding.status == "fail"]
    if failed:
        raise CheckpointError(f"--model {name}: {'; '.join(failed)} (safemed-eval models check shows all)")


_ASKED: dict[Need, str] = {
    "scores": "the scores of the options",
    "gradients": "gradients of the scores of the options",
    "texts": "texts that the model writes, and their log-probabilities",
}


def refuse_lacking(model: Waist, needs: Mapping[Need, str], name: str) -> None:
    """Raise CheckpointError if the model lacks what a run asks of it; `needs` says which option asks for it."""
    for need, option in needs.items():
        if why := model.lacks(need):
            raise CheckpointError(
                f"{option}: needs {_ASKED[need]}, and {name} {why}; leave it out (noise, corrupt and transfer "
                "need answers only)"
            )


def _images(size: tuple[int, int]) -> torch.Tensor:
    """(3, 3, H, W) on 8-bit grey levels: a smooth anatomy-like scene, its negative, and seeded noise."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    disc = torch.exp(-((rows - 0.45) ** 2 + (columns - 0.55) ** 2) / 0.08)
    scene = torch.stack([0.15 + 0.6 * disc, 0.1 + 0.5 * disc * columns, 0.2 + 0.4 * disc * rows])
    noise = torch.rand(scene.shape, generator=torch.Generator().manual_seed(0))
    return (torch.stack([scene, 1 - scene, noise]) * 255).round() / 255


def _askable(model: Waist, questions: Sequence[Question]) -> Sequence[Question]:
    """Return those that a checkpoint can be asked; of a model of the user's own none: an item that it refuses fails."""
    return () if model.offers.checkpoint is None else model.offers.checkpoint.askable(questions)


def _ends(questions: Sequence[Question]) -> tuple[Question, Question]:
    """The shortest and the longest question, in characters."""
    by_length = sorted(questions, key=lambda question: question.characters)
    return by_length[0], by_length[-1]


def _unthinking(model: Waist) -> Waist:
    """The model without the thought that it writes before an answer: two thoughts differ by more than rounding."""
    checkpoint = model.offers.checkpoint
    if checkpoint is None or checkpoint.unthinking is checkpoint:
        return model
    return Waist(checkpoint.unthinking, model.device, model.denoiser)
