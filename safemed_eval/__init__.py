"""safemed_eval: how robust is a medical vision-language model?

>>> import safemed_eval as se
>>> model = se.load_model("builtin:at-grpo")
>>> data = se.load_data("phantom", limit=192)
>>> run = se.evaluate(model, data, attacks=["pgd:eps=4/255,steps=10"], out="runs/a")
>>> cert = se.certify(model, data, sigma=0.25, n=200)
>>> written = se.report([run, cert], out="report")

Names are imported on first access, so that `import safemed_eval` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.api._certify import certify
    from safemed_eval.api._check import check_model
    from safemed_eval.api._evaluate import evaluate
    from safemed_eval.api._merge import merge_adapter
    from safemed_eval.api._plan import plan
    from safemed_eval.attacks.art import to_art
    from safemed_eval.data import Data, load_data
    from safemed_eval.errors import SafemedError
    from safemed_eval.models import Model, load_model
    from safemed_eval.report.compare import compare
    from safemed_eval.report.make import report
    from safemed_eval.report.run import Run
    from safemed_eval.train.make import train

__all__ = [
    "Data",
    "Model",
    "Run",
    "SafemedError",
    "__version__",
    "certify",
    "check_model",
    "compare",
    "evaluate",
    "load_data",
    "load_model",
    "merge_adapter",
    "plan",
    "report",
    "to_art",
    "train",
]

_HOMES = {
    "certify": "api",
    "check_model": "api",
    "compare": "report.compare",
    "Data": "data",
    "evaluate": "api",
    "load_data": "data",
    "load_model": "models",
    "merge_adapter": "api",
    "Model": "models",
    "plan": "api",
    "Run": "report.run",
    "SafemedError": "errors",
    "to_art": "attacks.art",
}
"""Module of each name that is imported on first access; `report` and `train` are packages that can be called."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"safemed_eval.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"safemed_eval.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
