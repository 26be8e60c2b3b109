"""safemed_eval: how robust is a medical vision-language model?

    import safemed_eval as se

    model = se.load_model("builtin:at-grpo")
    data = se.load_data("phantom", limit=192)
    run = se.evaluate(model, data, attacks=["pgd:eps=4/255,steps=10"], out="runs/a")
    cert = se.certify(model, data, sigma=0.25, n=200)
    se.report([run, cert], out="report")

Each function is imported when it is first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.api import certify as certify
    from safemed_eval.api import check_model as check_model
    from safemed_eval.api import evaluate as evaluate
    from safemed_eval.api import plan as plan
    from safemed_eval.api import report as report
    from safemed_eval.api import train as train
    from safemed_eval.attacks.art import to_art as to_art
    from safemed_eval.data import Data as Data
    from safemed_eval.data import load_data as load_data
    from safemed_eval.errors import SafemedError as SafemedError
    from safemed_eval.models import Model as Model
    from safemed_eval.models import load_model as load_model
    from safemed_eval.report.compare import compare as compare
    from safemed_eval.report.run import Run as Run

_HOMES = {
    "certify": "api.certify",
    "check_model": "api.check",
    "compare": "report.compare",
    "Data": "data",
    "evaluate": "api.evaluate",
    "load_data": "data",
    "load_model": "models",
    "Model": "models",
    "plan": "api.plan",
    "report": "api.report",
    "Run": "report.run",
    "SafemedError": "errors",
    "to_art": "attacks.art",
    "train": "api.train",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"safemed_eval.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
