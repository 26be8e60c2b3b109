"""From options to a model: what cannot be asked for is refused, its files are found, and it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from safemed_eval import models
from safemed_eval.cli._options import FileOptions, LoadOptions, ModelOptions
from safemed_eval.cli._show import status, visible
from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.prompts import Template, read_template

if TYPE_CHECKING:
    from safemed_eval.models.waist import Waist


def resolve_model(name: str, options: FileOptions, denoiser: str | None = None) -> models.Source:
    """Find the model's files, and those of the denoiser before it; no torch yet."""
    return models.resolve(
        name,
        denoiser=denoiser,
        trust_remote_code=options.trust_remote_code,
        allow_pickle=options.allow_pickle,
        offline=options.offline,
    )


def surrogate_of(name: str, options: ModelOptions) -> models.Source:
    """The files of a model that a transfer attack searches."""
    if name == options.model:
        raise SpecError(f"--attack transfer:from={name}: is the model that is judged; name another, or use pgd")
    return resolve_model(name, options)


def asking_of(options: LoadOptions, seed: int) -> models.Asking:
    """What these options say about how a checkpoint is asked."""
    try:
        return models.Asking(
            readout=options.readout,
            template=template_of(options.template),
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=seed,
        )
    except ValueError as error:
        raise SpecError(f"--readout {options.readout}: {error}") from None


def template_of(option: str | None) -> Template | None:
    """What --template says; None leaves it to the checkpoint."""
    return read_template(option) if option else None


def asking_for(source: models.Source, asking: models.Asking, *, to_train: bool = False) -> models.Asking:
    """How a checkpoint is asked then; warns, once a command, where it was trained on other words than --template's."""
    if asking.template and source.template and asking.template != source.template:
        typer.echo(
            visible(
                f"warning: --template: {source.name} was trained on other words, and is asked in these; without "
                "--template it is asked as it was trained"
            ),
            err=True,
        )
    return source.asked(asking, to_train=to_train)


def load_model(source: models.Source, options: LoadOptions, seed: int = 0) -> Waist:
    """Import torch and load the model."""
    asking = asking_for(source, asking_of(options, seed))
    with status(f"loading {source.name}"):
        quiet_transformers()
        return models.load(
            source,
            device=options.device,
            dtype=options.dtype,
            attn=options.attn,
            device_map=options.device_map,
            asking=asking,
        )


def quiet_transformers() -> None:
    """Our own progress and errors are enough."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def refuse_unusable(options: LoadOptions) -> None:
    """Refuse what no model can be loaded or asked with."""
    if not re.fullmatch(r"[a-z]+(:[0-9]+)?", options.device):
        raise SpecError(f"--device {options.device}: not a device; write auto, cpu, cuda or cuda:1")
    asking_of(options, 0)


def refuse_senseless(options: ModelOptions) -> None:
    """Refuse model options that make no sense, whatever the model's files are."""
    refuse_unusable(options)
    given = {
        "--dtype": options.dtype != "auto",
        "--attn": options.attn,
        "--device-map": options.device_map,
        "--readout": options.readout != "choice",
        "--template": options.template,
    }
    refuse_no_effect(options.model, given)


def refuse_no_effect(model: str, given: Mapping[str, Any]) -> None:
    """Refuse options, by name, that are given to a model from Python, which cannot obey them."""
    for name in (name for name, value in given.items() if value and model.startswith("python:")):
        raise SpecError(f"{name} has no effect on a python: model; let its factory decide")
