"""Text of data, models and paths as terminals and pages may show it."""

from __future__ import annotations

_KEPT = "\n\t\u00a0\u3000\u200c\u200d"
"""Characters that are not printable to Python, and harmless."""


def visible(text: object) -> str:
    """Spell out control characters and lone surrogates: a terminal must not obey them."""
    return "".join(c if c.isprintable() or c in _KEPT else repr(c)[1:-1] for c in str(text))


def on_one_line(text: object) -> str:
    """The visible text with its line ends and tabs spelled out, too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
