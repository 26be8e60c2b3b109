"""Escape text of data and models for Markdown, LaTeX, XML and spreadsheets, which then show it as text."""

from __future__ import annotations

import re

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that XML cannot hold, other control characters, and those that turn the direction of text."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    ">=": r"$\geq$",
    ">": "$>$",
    "<": "$<$",
    "\u2020": r"$^\dagger$",
    "\u03c3": r"$\sigma$",
    "\u03b1": r"$\alpha$",
    "\u2080": "$_0$",
    "\u2264": r"$\leq$",
    "\u2013": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
_PERCENT = re.compile(r"(\d) \\%")
_SYMBOL = re.compile(r"\b(sigma|alpha|eps) ?=? ?(\d[\d./e-]*\d|\d)")
_RANGE = re.compile(r"(?<=\d)-(?=\d+\.\d)")
_GREEK = {"sigma": r"\sigma", "alpha": r"\alpha", "eps": r"\epsilon"}
_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def plain(text: object) -> str:
    """Replace the characters that XML and terminals cannot hold, or that reorder what stands beside them."""
    return _NOT_XML.sub("\ufffd", str(text))


def markdown(text: object) -> str:
    """Put a text on one line and escape what means something to Markdown or HTML; an address does not become a link."""
    escaped = re.sub(r"([\\|*_`\[\]~#$])", r"\\\1", " ".join(plain(text).split()))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LINK.sub(lambda match: f"&#{ord(match[0])};", escaped)


def latex(text: object) -> str:
    """Put a text on one line and write what means something to LaTeX as a command."""
    escaped = _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], " ".join(plain(text).split()))
    # Behind the end of a table's row, these would be read as its options.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def latex_prose(text: object) -> str:
    """Write a sentence for LaTeX as `latex` does, with Greek letters, thin spaces and en dashes as a paper has them."""
    written = _PERCENT.sub(r"\1\\,\\%", latex(text))
    written = _SYMBOL.sub(lambda match: f"${_GREEK[match[1]]} = {match[2]}$", written)
    return _RANGE.sub("--", written).replace(" at least r,", " at least $r$,").replace(" x ", r" $\times$ ")


def spreadsheet(value: object) -> object:
    """Make a cell of a CSV file: a text that a spreadsheet would compute gets an apostrophe; numbers stay numbers.

    Source:
        OWASP, "CSV Injection". Every text must be quoted, too: a delimiter inside it would begin a cell of its own.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower()[-60:].strip("-.") or "run"
