"""Text of data and models as Markdown, LaTeX and XML show it: as text."""

from __future__ import annotations

import re
from typing import Any

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEPT = "\n\t\u00a0\u3000\u200c\u200d"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    ">=": r"$\geq$",
    ">": "$>$",
    "<": "$<$",
    "\u2020": r"\textsuperscript{\dag}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def visible(text: Any) -> str:
    """With control characters and lone surrogates spelled out."""
    return "".join(c if c.isprintable() or c in _KEPT else repr(c)[1:-1] for c in str(text))


def plain(text: Any) -> str:
    """Without the characters that XML and terminals cannot hold."""
    return _NOT_XML.sub("\ufffd", str(text))


def markdown(text: Any) -> str:
    """On one line, with what means something to Markdown or HTML escaped."""
    escaped = re.sub(r"([\\|*_`\[\]~#])", r"\\\1", " ".join(plain(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(text: Any) -> str:
    """On one line, with what means something to LaTeX written as a command."""
    return _LATEX_SPECIAL.sub(lambda found: _LATEX[found[0]], " ".join(plain(text).split()))
