"""`python:module:factory`: a function of yours that makes a model, or a denoiser."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safemed_eval.errors import CheckpointError, SpecError
from safemed_eval.faults import place_of
from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.files.contents import Allowed, Json, factory_identity, import_function
from safemed_eval.models.source import Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PythonSource(Source):
    """The name of a function that makes a model."""

    disregards = "a python: model; let its factory decide"

    @classmethod
    def resolve(cls, name: str, allowed: Allowed) -> PythonSource:
        if not re.fullmatch(r"python:[\w.]+:\w+", name):
            raise SpecError(f"--model {name}: write python:package.module:factory")
        return cls(name=name)

    @property
    def fingerprint(self) -> Json:
        """The name and the hash of the module's file; which weights the function reads is not known."""
        return factory_identity(self.name)

    def load(
        self, device: torch.device, *, dtype: str, attn: str | None, device_map: str | None, asking: Asking
    ) -> object:
        """Call the function, and check what it returns."""
        from safemed_eval.models.scorer import ANSWERING

        model = call_factory(self.name, device, option="--model")
        if not any(hasattr(model, method) for method in ANSWERING):
            raise CheckpointError(
                f"--model {self.name}: what it returned has none of {', '.join(map(repr, ANSWERING))}"
            )
        return model


def call_factory(name: str, device: torch.device, *, option: str) -> Any:
    """Call the function that `python:module:factory` names, with the device if it takes an argument.

    Modules are looked up from the current folder, too.

    Args:
        option: begins error messages.
    Raises:
        CheckpointError: there is no such module or function, the function raised, or it returned a module with weights
            that are not finite.
    """
    import torch

    from safemed_eval.models.finite import refuse_not_finite

    factory = import_function(name, CheckpointError, option=option)
    try:
        made = factory(device) if inspect.signature(factory).parameters else factory()
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"{option} {name}: the factory raised {place_of(error)}") from error
    if isinstance(made, torch.nn.Module):
        refuse_not_finite(made, f"{option} {name}")
    return made
