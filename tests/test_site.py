"""The documentation's site: built strict, complete, and usable in a real browser, on a phone and in the dark."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
from browsing import Open, watched
from test_docs import leaves

import safemed_eval
from safemed_eval.cli import app

pytest.importorskip("mkdocs", reason="mkdocs is in the docs extra")
pytest.importorskip("material", reason="mkdocs-material is in the docs extra")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is in the docs extra")

ROOT = Path(__file__).parents[1]
PAGES = [
    "index.html",
    "start/checkpoint.html",
    "start/review.html",
    "tutorials/certify.html",
    "reference/api.html",
    "reference/commands/certify.html",
    "reference/schemas/compare.html",
    "concepts/threat-model.html",
    "gallery.html",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning is an error: links, anchors and cross-references all lead somewhere."""
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page: Path) -> str:
    """What a page says, without its markup."""
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_of_the_folder_is_there(site: Path) -> None:
    written = [
        page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*") if page.suffix in (".md", ".ipynb")
    ]
    for page in written:
        name = "index.html" if page.name == "README.md" else page.with_suffix(".html")
        assert (site / name).is_file(), page
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f'href="{page.stem}.html"' in index, f"{page.name} is not in the navigation"


def test_notebooks_are_read_as_pages(site: Path) -> None:
    """A browser would download the file; only the page of a notebook offers that."""
    for page in site.rglob("*.html"):
        named = re.findall(r"<a[^>]*href=\"?([^\" >]*\.ipynb)[^>]*>", page.read_text(encoding="utf-8"))
        assert named == [f"{page.stem}.ipynb"] * (page.parent.name == "tutorials"), page


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "example.html"]  # which is opened below
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe|source)[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>", text)
        assert not loaded, page


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    commands = typer.main.get_command(app)
    pages = {page.stem: page for page in (site / "reference" / "commands").glob("*.html")}
    assert len([*leaves(commands)]) == len(pages) - 1, "one page a command, and the index"
    for words, command in named(commands):
        text = text_of(pages["-".join(words)])
        assert f"safemed-eval {' '.join(words)}" in text
        for parameter in command.params:
            names = parameter.opts + parameter.secondary_opts if parameter.opts[0].startswith("-") else []
            assert all(name in text for name in names or [parameter.name.upper()]), (words, parameter.name)
            for word in (parameter.help or "").split():
                assert word.strip("`") in text, (words, parameter.name, word)


def named(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield from named(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]


def test_every_name_of_the_package_is_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "api.html")
    for name in safemed_eval.__all__:
        assert f"safemed_eval.{name}" in text
    assert "readout" in text and "per_group" in text, "arguments of load_model and load_data"


def test_every_field_of_a_schema_is_in_the_reference(site: Path) -> None:
    for schema in (ROOT / "docs" / "schemas").glob("*.json"):
        words = set(re.findall(r"\w+", text_of(site / "reference" / "schemas" / f"{schema.stem}.html")))
        named = [*properties(json.loads(schema.read_text(encoding="utf-8")))]
        assert len(named) > 5 and set(named) <= words, schema


def properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield from value if key == "properties" else ()
            yield from properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from properties(value)


def test_the_gallery_has_every_figure_and_the_commands(site: Path) -> None:
    page, text = (site / "gallery.html").read_text(encoding="utf-8"), text_of(site / "gallery.html")
    figures = [*ROOT.glob("reports/*/report/figures/*.png")]
    assert len(figures) > 20
    for figure in figures:
        place = f"repository/{figure.relative_to(ROOT)}"
        assert f'src="{place}"' in page and (site / place).is_file()
        for run in figure.parents[2].glob("*/run.json"):
            assert shlex.join(json.loads(run.read_text(encoding="utf-8"))["sessions"][0]["argv"]) in text


@pytest.mark.slow
def test_the_pictures_of_the_concepts_are_what_their_script_draws(tmp_path: Path) -> None:
    concepts = ROOT / "docs" / "concepts"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, concepts / "pictures.py", tmp_path], env=environment, check=True)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in concepts.glob("*.png")}


# -------------------------------------------------------------------------------------------------------- in a browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def open_site(browser: Any, address: str) -> Iterator[Open]:
    """Opens the site; at the end nothing may have reached the console, asked another host, or found nothing."""
    with watched(browser, address) as opened:

        def open_page(place: str, **options: Any) -> Any:
            page = opened(address + place, **options)
            # Until its scripts have started, the page takes clicks and letters, and does nothing with them.
            page.wait_for_function("document.querySelector('.md-search-result__meta').textContent.startsWith('Type')")
            return page

        yield open_page


def test_search_finds_radius(open_site: Open) -> None:
    page = open_site("index.html")
    page.locator("input.md-search__input").press_sequentially("radius")  # keys, which it listens to
    page.wait_for_selector(".md-search-result__item a")
    found = page.locator(".md-search-result__item a").evaluate_all("links => links.map(link => link.href)")
    assert any("certificates.html" in link for link in found)


def test_pages_do_not_scroll_sideways_on_a_phone(open_site: Open) -> None:
    page = open_site("index.html", viewport={"width": 375, "height": 740}, has_touch=True, is_mobile=True)
    for place in PAGES:
        page.goto(place_of(page, place))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place


def place_of(page: Any, place: str) -> str:
    return "/".join([*page.url.split("/")[:3], place])


def test_the_dark_scheme_follows_the_system_and_can_be_chosen(open_site: Open) -> None:
    brightness = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number))"
    light, dark = (open_site("index.html", color_scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(brightness) > 200 > 100 > dark.evaluate(brightness)
    light.locator("label[for=__palette_1]").click()
    light.wait_for_function(f"{brightness} < 100")


def test_pictures_are_there(open_site: Open) -> None:
    page = open_site("concepts/certificates.html")
    for place in ("concepts/certificates.html", "index.html", "tutorials/certify.html"):
        page.goto(place_of(page, place))
        widths = page.locator("article img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert widths and all(widths), place


def test_the_example_of_a_report_opens(open_site: Open) -> None:
    page = open_site("gallery.html")
    page.get_by_role("link", name="interactive page of these runs").click()
    page.wait_for_selector("html[data-ready]")
