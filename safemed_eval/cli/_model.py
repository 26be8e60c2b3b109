"""From options to a model; the rules are in `models`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from safemed_eval import models
from safemed_eval.cli._options import FileOptions, LoadOptions, ModelOptions
from safemed_eval.cli._show import status, visible
from safemed_eval.errors import SpecError
from safemed_eval.models import model as rules

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
    """How a checkpoint is asked, by these options."""
    return rules.asking_of(
        readout=options.readout,
        template=options.template,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=seed,
    )


def asking_for(source: models.Source, asking: models.Asking, *, to_train: bool = False) -> models.Asking:
    """Complete how a checkpoint is asked; warns, once a command, if it was trained on another template."""
    with _warnings_shown():
        return rules.asking_for(source, asking, to_train=to_train)


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(visible(f"warning: {record.getMessage()}"), err=True)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    log, echo = logging.getLogger("safemed_eval"), _Echo(logging.WARNING)
    log.addHandler(echo)
    try:
        yield
    finally:
        log.removeHandler(echo)


def model_of(source: models.Source, options: LoadOptions, asking: models.Asking) -> models.Model:
    """The model that is loaded from a source by these options."""
    return models.Model(
        source=source,
        device=options.device,
        dtype=options.dtype,
        attn=options.attn,
        device_map=options.device_map,
        asking=asking,
    )


def load_model(source: models.Source, options: LoadOptions, seed: int = 0) -> Waist:
    """Import torch and load the model."""
    asking = asking_for(source, asking_of(options, seed))
    with status(f"loading {source.name}"):
        return model_of(source, options, asking).waist


def refuse_unusable(options: LoadOptions) -> None:
    """Refuse what no model can be loaded or asked with."""
    rules.refuse_device(options.device)
    asking_of(options, 0)


def refuse_senseless(options: ModelOptions) -> None:
    """Refuse model options that make no sense, whatever the model's files are."""
    rules.refuse_senseless(
        options.model,
        device=options.device,
        dtype=options.dtype,
        attn=options.attn,
        device_map=options.device_map,
        asking=asking_of(options, 0),
    )
