"""Text of data, models and paths, made safe to show in terminals and pages."""

from __future__ import annotations

_KEPT = "\n\t\u00a0\u3000\u200c\u200d"
"""Harmless characters that `str.isprintable` rejects."""


def visible(text: object) -> str:
    """Escape control characters and lone surrogates, which a terminal would interpret."""
    return "".join(c if c.isprintable() or c in _KEPT else repr(c)[1:-1] for c in str(text))


def on_one_line(text: object) -> str:
    """Escape as `visible` does, and line ends and tabs too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
