"""MkDocs hook: adds the pages that are made of something else, and leads links to them.

A page's *origin* is its path in the repository: links are written for the repository, and are rewritten for the site.
Files outside of docs/ that a page links to become pages, or files, below repository/.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import commands
import gallery
import notebooks
import schemas
from api import api_page
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)")
CODE = re.compile(r"`[^`\n]+`")
PLAIN = (".png", ".svg", ".json", ".ipynb")
"""Linked files that are copied as they are; others become pages."""
WIDE = {"README.md": ["navigation", "toc"], "gallery.md": ["navigation"]}
"""Pages that take the place of the navigation, or of their table of contents."""

_origins: dict[str, str] = {}
"""The path in the repository of each page of the site; of one that is made here, the folder that links start from."""


def on_config(config: Any) -> Any:
    """Fill in the navigation: generated pages, and pages of docs/ that it does not name."""
    named = {*_places(config.nav)}
    left_out = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name not in named)
    made: dict[str, Any] = {"{commands}": commands.NAV, "{schemas}": schemas.NAV}
    for section in config.nav:
        for title, entries in section.items():
            if title == "How to":
                entries += [{_short_title(name): name} for name in left_out]
            if title == "Reference":
                entries[:] = [{key: made.get(place, place) for key, place in entry.items()} for entry in entries]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, then what pages link to outside of docs/."""
    _origins.clear()
    _origins.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    made: dict[str, str | bytes] = {"reference/api.md": api_page()}
    made |= {"gallery.md": gallery.page(), "example.html": gallery.example()}
    made |= commands.pages()
    made |= schemas.pages()
    for notebook in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        made |= notebooks.pages(notebook)
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
        _origins[place] = f"docs/{place}"
    waiting = [*_origins]
    named = [entry for section in config.nav for entry in _places(section)]
    for repository in filter(lambda place: place.startswith("repository/"), named):
        waiting += _add(repository.removeprefix("repository/"), files, config)
    while waiting:
        page = waiting.pop()
        if page.endswith(".md"):
            for target in _links(_text(files, page), _origins[page]):
                if not target.startswith("docs/"):
                    waiting += _add(target, files, config)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where the site has what they name; write lists and tables as Python-Markdown wants them."""
    origin = _origins[page.file.src_uri]
    page.meta["hide"] = WIDE.get(page.file.src_uri, [])

    def lead(link: re.Match[str]) -> str:
        place, mark, anchor = link[1].partition("#")
        if not _is_path(place):
            return link[0]
        named, here = PurePosixPath(_place_of(_resolved(place, origin))), PurePosixPath(page.file.src_uri)
        if named.suffix == ".ipynb" and named.with_suffix("") != here.with_suffix(""):  # a notebook's own page offers the file
            named = named.with_suffix(".md")
        target = os.path.relpath(named, here.parent)
        return f"]({target}{mark}{anchor}"

    def prose(text: str) -> str:
        text = re.sub(r"^  - ", "    - ", LINK.sub(lead, text), flags=re.MULTILINE)
        return CODE.sub(lambda code: code[0].replace("\\|", "|"), text)

    return "".join(part if number % 2 else prose(part) for number, part in enumerate(FENCED.split(markdown)))


def _short_title(page: str) -> str:
    """The title of a page of docs/, up to its colon."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()[0].lstrip("# ").partition(":")[0]


def _places(section: Any) -> Iterator[str]:
    if isinstance(section, str):
        yield section
    else:
        for part in section.values() if isinstance(section, dict) else section:
            yield from _places(part)


def _text(files: Files, page: str) -> str:
    file = files.get_file_from_path(page)
    assert file is not None
    return file.content_string


def _links(markdown: str, origin: str) -> Iterator[str]:
    """The paths in the repository that a page's links name."""
    for part in FENCED.split(markdown)[::2]:
        for link in LINK.finditer(part):
            place = link[1].partition("#")[0]
            if _is_path(place):
                yield _resolved(place, origin)


def _is_path(place: str) -> bool:
    return bool(place) and "://" not in place and not place.startswith("mailto:")


def _resolved(place: str, origin: str) -> str:
    return os.path.normpath(PurePosixPath(origin).parent / place)


def _place_of(path: str) -> str:
    """Where the site has a path of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"repository/{path}/README.md"
    return f"repository/{path}" if path.endswith((".md", *PLAIN)) else f"repository/{path}.md"


def _add(path: str, files: Files, config: Any) -> list[str]:
    """Add a path of the repository to the site, if it is there and not added yet; return the new page."""
    place, source = _place_of(path), ROOT / path
    if not source.exists() or files.get_file_from_path(place) is not None:
        return []
    if path.endswith(PLAIN):
        files.append(File.generated(config, place, abs_src_path=str(source)))
        return []
    if path.endswith(".md"):
        text, origin = source.read_text(encoding="utf-8"), path
    elif source.is_dir():
        text, origin = _listing(source), f"{path}/README.md"
    else:
        text, origin = _listed(source, path), path
    files.append(File.generated(config, place, content=text))
    _origins[place] = origin
    return [place]


def _listing(folder: Path) -> str:
    """A folder as a page: its README, or its files."""
    if (folder / "README.md").exists():
        return (folder / "README.md").read_text(encoding="utf-8")
    listed = [_listed(file, file.name) for file in sorted(folder.iterdir()) if file.is_file()]
    return "\n\n".join([f"# {folder.relative_to(ROOT)}", *(text.replace("# ", "## ", 1) for text in listed)])


def _listed(file: Path, title: str) -> str:
    kind = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".toml": "toml"}.get(file.suffix, "")
    return f"# {title}\n\n````{kind}\n{file.read_text(encoding='utf-8').rstrip()}\n````"
