"""safemed_eval: how robust is a medical vision-language model?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safemed_eval.version import __version__

if TYPE_CHECKING:
    from safemed_eval.report.compare import compare as compare

__all__ = ["__version__", "compare"]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is asked for."""
    if name == "compare":
        from safemed_eval.report.compare import compare

        return compare
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
