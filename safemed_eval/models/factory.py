"""`python:module:factory`: your own model, CLIP-like or in-house, or denoiser, behind the same waist."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from safemed_eval.errors import CheckpointError, did_you_mean
from safemed_eval.faults import place_of
from safemed_eval.models.files.contents import look_here_for_modules
from safemed_eval.models.files.source import Source
from safemed_eval.models.finite import refuse_not_finite

ANSWERING = ("scores", "vote", "write")
"""Methods that answer a question, each of them alone; see `waist.Scorer`."""


def load_factory(source: Source, device: torch.device) -> Any:
    """Call the factory of a model, and check what it returns.

    Raises:
        CheckpointError: as `call_factory`, or the result has none of the methods that answer a question.
    """
    model = call_factory(source.name, device, option="--model")
    if not any(hasattr(model, method) for method in ANSWERING):
        raise CheckpointError(f"--model {source.name}: what it returned has none of {', '.join(map(repr, ANSWERING))}")
    return model


def call_factory(name: str, device: torch.device, *, option: str) -> Any:
    """What `python:module:factory` makes; the factory gets the device if it takes an argument.

    Modules are looked up from the current folder too.

    Raises:
        CheckpointError: no such module or name, the factory raised, or what it made has weights that are not finite;
            `option` is what the message begins with.
    """
    _, module_name, factory_name = name.split(":")
    look_here_for_modules()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{option} {name}: {error}; it is looked up from {Path.cwd()}") from None
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"{option} {name}: '{module_name}' cannot be imported: {place_of(error)}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise CheckpointError(
            f"{option} {name}: '{module_name}' has no function '{factory_name}'; {did_you_mean(factory_name, known)}"
        )
    try:
        made = factory(device) if inspect.signature(factory).parameters else factory()
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"{option} {name}: the factory raised {place_of(error)}") from error
    if isinstance(made, torch.nn.Module):
        refuse_not_finite(made, f"{option} {name}")
    return made
