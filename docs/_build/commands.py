"""The pages of the command line, made of what `--help` is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from safemed_eval.cli import app

PLACE = "reference/commands"


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(typer.main.get_command(app)))
NAV = [f"{PLACE}/index.md", *({" ".join(words): f"{PLACE}/{'-'.join(words)}.md"} for words in COMMANDS)]


def pages() -> dict[str, str | bytes]:
    rows = [f"| [`safemed-eval {' '.join(words)}`]({'-'.join(words)}.md) | {_first(c)} |" for words, c in COMMANDS.items()]
    index = ["# Commands", "Made of what `safemed-eval COMMAND --help` prints.", "\n".join(["| command | |", "|---|---|", *rows])]
    made: dict[str, str | bytes] = {f"{PLACE}/index.md": "\n\n".join(index)}
    return made | {f"{PLACE}/{'-'.join(words)}.md": _page(words, command) for words, command in COMMANDS.items()}


def _page(words: tuple[str, ...], command: Any) -> str:
    name = " ".join(["safemed-eval", *words])
    context = command.make_context(name, [], resilient_parsing=True)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join([name, *(_metavar(each) for each in arguments), "[OPTIONS]"])
    text = [f"# {name}", f"```\n{usage}\n```", _escaped(command.help or "")]
    if command.epilog:
        example = command.epilog.removeprefix("Example: ")
        text += [f"```\n{example.replace('; ', chr(10))}\n```"]
    panels: dict[str, list[str]] = {}
    for each in [*arguments, *(one for one in command.params if one not in arguments and not one.hidden)]:
        panel = "Arguments" if each in arguments else each.rich_help_panel or "Options"
        panels.setdefault(panel, []).append(_row(each, context))
    for panel, rows in panels.items():
        text += [f"## {panel}", "\n".join(["| | |", "|---|---|", *rows])]
    return "\n\n".join(text)


def _metavar(argument: Any) -> str:
    plural = "..." if argument.nargs != 1 else ""
    return f"{argument.name.upper()}{plural}"


def _row(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{_metavar(parameter)}` | {_cell(parameter.help or '')} |"
    named, help = parameter.get_help_record(context)
    return f"| `{_cell(named, code=True)}` | {_cell(help)} |"


def _first(command: Any) -> str:
    return _cell((command.help or "").split("\n\n")[0])


def _cell(text: str, *, code: bool = False) -> str:
    text = " ".join(text.split())
    return text.replace("|", "\\|") if code else _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text of a terminal as Markdown: nothing in it is markup, but `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if number % 2 else re.sub(r"([<>*_\[\]])", r"\\\1", part) for number, part in enumerate(parts))
