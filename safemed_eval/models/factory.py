"""`--model python:module:factory`: your own model, CLIP-like or in-house, behind the same waist."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from safemed_eval.errors import CheckpointError, did_you_mean
from safemed_eval.faults import place_of
from safemed_eval.models.source import Source, look_here_for_modules


def load_factory(source: Source, device: torch.device) -> Any:
    """Call the factory, with the device if it takes an argument, and check what it returns.

    Modules are looked up from the current folder too.

    Raises:
        CheckpointError: no such module or name, or the result has neither `scores` nor `vote`.
    """
    _, module_name, name = source.name.split(":")
    look_here_for_modules()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"--model {source.name}: {error}; it is looked up from {Path.cwd()}") from None
    except (Exception, SystemExit) as error:
        raise CheckpointError(
            f"--model {source.name}: '{module_name}' cannot be imported: {place_of(error)}"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise CheckpointError(
            f"--model {source.name}: '{module_name}' has no function '{name}'; {did_you_mean(name, known)}"
        )
    try:
        model = factory(device) if inspect.signature(factory).parameters else factory()
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"--model {source.name}: the factory raised {place_of(error)}") from error
    if not (hasattr(model, "scores") or hasattr(model, "vote")):
        raise CheckpointError(f"--model {source.name}: what it returned has neither 'scores' nor 'vote'")
    return model
