"""How pages are made: templates that escape, scripts that may run, and one file that holds all it needs."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from safemed_eval.errors import RunError
from safemed_eval.text import visible

_FOLDER = Path(__file__).parent / "assets"


def write_html(html: str, file: Path) -> None:
    """Write a page; raises RunError if the file cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}") from None


def read_asset(name: str) -> str:
    return as_script((_FOLDER / name).read_text(encoding="utf-8"))


def as_script(text: str) -> str:
    """Our own code as it may stand in an HTML element; browsers hash it after they have unified line ends."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in unified or "</style" in unified or "<!--" in unified:
        raise RuntimeError("a script or style would end, or comment out, its own element")
    return unified


def policy(scripts: Sequence[str]) -> str:
    """Write a Content-Security-Policy: these scripts and no others, no network. Plotly sets styles of its own."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def template(name: str, **filters: Callable[..., object]) -> jinja2.Template:
    """Read a template, which escapes all text and spells out control characters; `filters` are further ones for it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["command"] = shlex.join
    environment.filters.update(filters)
    environment.tests["holding"] = lambda mapping, key: key in mapping
    return environment.get_template(name)
