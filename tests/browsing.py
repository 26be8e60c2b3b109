"""A headless Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

MOST_S = 120.0
"""For a page to do something, and for the browser to start; both take less than a second on an idle machine."""

Open = Callable[..., Any]


@contextmanager
def launched() -> Iterator[Any]:
    """Start the browser; skips the test where playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    with (
        playwright.sync_playwright() as started,
        started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * MOST_S) as browser,
    ):
        yield browser


@contextmanager
def watched(browser: Any, *own: str) -> Iterator[Open]:
    """Give a function that opens an address with options of playwright's contexts.

    At the end nothing may have reached a console, asked for anything but addresses that begin with `own` or "data:", or
    found nothing.
    """
    contexts, seen = [], []

    def opened(address: str, **options: Any) -> Any:
        contexts.append(browser.new_context(reduced_motion="reduce", **options))
        contexts[-1].set_default_timeout(1000 * MOST_S)
        page = contexts[-1].new_page()
        page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("request", lambda sent: seen.append(sent.url) if not sent.url.startswith((*own, "data:")) else None)
        page.on("response", lambda got: seen.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not seen
