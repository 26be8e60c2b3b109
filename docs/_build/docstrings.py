"""Extension of griffe: brings docstrings, which are terser than Google's style, into a form that it reads."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).+)*", re.MULTILINE)
TITLE = re.compile(r"(?<!\n)\n(?=(?:Args|Attributes|Raises|Returns|Yields|Source):\n)")
PROSE = re.compile(r"^(Returns|Yields|Source):\n((?:    .*(?:\n|\Z))+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Lines that begin with >>> become code blocks; sections need no empty line above; return values become prose."""

    def on_object(self, *, obj: griffe.Object, **context: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = PROSE.sub(prose, TITLE.sub("\n\n", text))


def prose(section: re.Match[str]) -> str:
    """A section as a paragraph, and as a list where its lines begin with the values that may be returned."""
    text = re.sub(r'^(?=")', "\n- ", dedent(section[2]), flags=re.MULTILINE)
    return f"**{section[1]}:**\n\n{text.strip()}\n"
