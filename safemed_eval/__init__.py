"""safemed_eval: how robust is a medical vision-language model?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.attacks.art import to_art as to_art
    from safemed_eval.report.compare import compare as compare

__all__ = ["__version__", "compare", "to_art"]

_HOME = {"compare": "safemed_eval.report.compare", "to_art": "safemed_eval.attacks.art"}


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is asked for."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
