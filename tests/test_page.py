"""The interactive page, in a real browser."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import MOST_S, Open, watched
from synthetic import certified, evaluated, failed, write_run
from test_reasoning import run_of as written_run

from safemed_eval import attacks
from safemed_eval.core import Item, Question
from safemed_eval.report import Run, page, read_all
from safemed_eval.report.curves import curve_of
from safemed_eval.report.gap import gaps_of, why_no_gap
from safemed_eval.report.page import items as _page_items
from safemed_eval.report.page import write_page
from safemed_eval.report.summary import answers_measure
from safemed_eval.rounding import floor_to
from safemed_eval.runs.images import Keeper
from safemed_eval.smoothing import Voting, read_prediction
from safemed_eval.text import visible

EVIL = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
NAME = f"<b>bold</b> &lt; {EVIL} \udcff"
"""Plotly reads <b> and &lt;, and the last character cannot be written to a file."""
L2 = str(attacks.parse("pgd:eps=0.5,norm=l2,steps=10"))
CONDITIONS = ("clean", "fgsm:eps=4/255", "pgd:eps=4/255,steps=10", L2)
COUNT = "document.getElementById('items-count').textContent"

STAND_IN = """
var Plotly = { react: async (plot, data, layout) => Object.assign(plot, { data, layout }) };
"""
"""For tests of everything but figures: the library takes a second to read."""


def asked(number: int) -> dict[str, Any]:
    """Question fields of item i: three modalities, two question types, two items an image; hostile texts in item 7."""
    hostile = {"question": EVIL, "options": [EVIL, "</script>", "eye"]}
    return {
        "modality": ("CT", "MRI", EVIL)[number % 3],
        "question_type": ("Disease Diagnosis", "Lesion Grading")[number // 3 % 2],
        "image_sha256": f"hash {number // 2}",
        **(hostile if number == 7 else {}),
    }


def attacked(number: int, condition: int) -> dict[str, Any]:
    record = evaluated(number, CONDITIONS[condition], condition == 0 or number % (condition + 2) != 1, **asked(number))
    if number == 7:
        record["text"] = f"{EVIL} \u2028 \x1b[31m \u202e"
    if (number, condition) == (5, 3):
        record |= {"prediction": None, "correct": False}
    if (number, condition) == (9, 1):
        record |= {"prediction": None, "correct": False, "error": f"broken {EVIL}"}
    return record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs of one model with a hostile name, over 24 items."""
    folder = tmp_path_factory.mktemp("runs")
    records = [attacked(i, k) for i in range(24) for k in range(len(CONDITIONS))]
    evaluate = write_run(folder / "evaluate", records, "evaluate", conditions=CONDITIONS)
    proofs = [certified(i, 1000 - 23 * i, chosen=0 if i == 4 else 1, **asked(i)) for i in range(22)]
    proofs += [certified(22, 1000, chosen=3, **asked(22)), failed(23, **asked(23))]
    certify = write_run(folder / "certify", proofs, "certify")
    return [Run.read(out, name=NAME) for out in (evaluate, certify)]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a page from its file; at the end nothing may have reached the console or asked the network."""
    with watched(browser, "file:", "blob:") as opened:

        def open_file(file: Path, link: str = "", **options: Any) -> Any:
            page = opened(file.as_uri() + link, **options)
            if options.get("java_script_enabled", True):
                page.wait_for_selector("html[data-ready]")
            return page

        yield open_file


@pytest.fixture(scope="module")
def whole(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both runs with the real plotly."""
    file = tmp_path_factory.mktemp("whole") / "new" / "report.html"
    write_page(runs, file, title=f"Study {EVIL}")
    return file


Write = Callable[..., Path]


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes a page with a stand-in for plotly."""

    def write(runs: Sequence[Run], **options: Any) -> Path:
        file = tmp_path_factory.mktemp("page") / "report.html"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(page, "_plotly", lambda: STAND_IN)
            write_page(runs, file, title="Study", **options)
        return file

    return write


@pytest.fixture(scope="module")
def brief(swift: Write, runs: list[Run]) -> Path:
    """The page of both runs with the stand-in."""
    return swift(runs)


def traces(opened: Any, plot: str, meta: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = opened.evaluate(
        "([plot, meta]) => document.getElementById(plot).data.filter((t) => !meta || t.meta === meta)"
        ".map((t) => ({ x: t.x, y: t.y, name: t.name, color: t.line.color }))",
        [plot, meta],
    )
    return found


def choose(opened: Any, column: str, name: str) -> None:
    select = opened.locator(f"#curves [data-slice={column}]")
    value = select.evaluate(
        "(select, name) => [...select.options].find((one) => one.text.startsWith(name)).value", name
    )
    select.select_option(value)


def test_filters_change_the_curves_to_those_of_the_slice(open_page: Open, whole: Path, runs: list[Run]) -> None:
    opened = open_page(whole)
    evaluate, certify = runs
    for modality, question_type in [
        ("all", "all"),
        ("MRI", "all"),
        (EVIL, "Lesion Grading"),
        ("all", "Lesion Grading"),
    ]:
        choose(opened, "modality", modality)
        choose(opened, "question_type", question_type)
        parts = []
        for rows in (evaluate.answers, certify.certificates):
            part = rows if modality == "all" else rows.split("modality")[modality]
            parts.append(part if question_type == "all" else part.split("question_type")[question_type])
        curve = curve_of(certify, parts[1])
        assert curve is not None
        for meta, values in (("share", curve.share), ("lower", curve.lower), ("upper", curve.upper)):
            (trace,) = traces(opened, "certified", meta)
            assert (trace["x"], trace["y"]) == (curve.radii, values)
        numbers = answers_measure(evaluate)(parts[0])
        fgsm, pgd = traces(opened, "attacked-linf")
        assert fgsm["x"] == pgd["x"] == [0, 4]
        for trace, name in ((fgsm, CONDITIONS[1]), (pgd, CONDITIONS[2])):
            assert trace["y"] == [numbers["clean"].share, numbers[name].share]
        (l2,) = traces(opened, "attacked-l2")
        assert (l2["x"], l2["y"]) == ([0, 0.5], [numbers["clean"].share, numbers[L2].share])
        assert opened.inner_text("#curves-count").endswith(
            f": {len(parts[0]) // 4} of evaluate, {len(parts[1])} of certify"
        )
        assert opened.locator("#live-certify td").first.inner_text().split()[0] == str(len(parts[1]))
        assert opened.inner_text("#items-count") == f"{len(parts[1])} of 24 items"

    legend = opened.locator("#certified .legendtext").all_text_contents()
    assert legend == [f"{NAME[:22]}\u2026{visible(NAME)[-21:]}"]
    assert traces(opened, "certified", "share")[0]["color"] == "#0072b2"
    opened.emulate_media(color_scheme="dark")
    wait(opened, "document.getElementById('certified').data[2].line.color", "#56b4e9")
    assert opened.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 23, 26)"
    opened.emulate_media(color_scheme="light")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details:not([open])").count() == opened.locator("#provenance details").count() == 2
    wait(opened, "document.querySelector('#certified .main-svg').getAttribute('width')", "660")
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator("details[open]").count() == 0
    assert opened.title() == f"Study {EVIL}"
    assert opened.evaluate("window.hit") is None


def test_an_item_opens_by_click_and_by_keyboard(open_page: Open, brief: Path, runs: list[Run]) -> None:
    opened = open_page(brief)
    dialog, button = opened.locator("dialog"), opened.locator("[data-item='2'] button")
    opened.locator("[data-item='2'] td").first.click()
    assert dialog.get_attribute("open") is not None
    assert opened.inner_text("#item-title") == "i2"
    assert opened.evaluate("location.hash") == "#item=i2"
    votes = dialog.locator(".votes tbody tr").all_inner_texts()
    assert [row.split("\t")[1:] for row in votes] == [["0", "0"], ["100", "954"], ["0", "46"], ["0", "0"]]
    assert "gold" in votes[1]
    radius = runs[1].certificates[2].radius
    assert f"Certified radius {floor_to(float(radius), 4):.4f}" in dialog.inner_text()
    assert dialog.locator("table").first.locator("tbody tr").count() == len(CONDITIONS)
    assert "81.9" in dialog.inner_text()  # exp(-0.2)
    opened.keyboard.press("Escape")
    assert dialog.get_attribute("open") is None
    assert button.evaluate("button => button === document.activeElement")
    wait(opened, "location.hash", "")

    opened.keyboard.press("Enter")
    assert opened.inner_text("#item-title") == "i2"
    opened.click("#item-forth")
    assert opened.inner_text("#item-title") == "i3"
    opened.click("#item-close")
    assert dialog.get_attribute("open") is None


def test_hostile_text_stays_text(open_page: Open, brief: Path) -> None:
    opened = open_page(brief, link="#item=i7")
    shown = opened.inner_text("#item-body")
    assert shown.count(EVIL) >= 6  # modality, question, option, run name, text
    assert "\\x1b[31m" in shown
    assert "\\udcff" in shown
    assert "\\u202e" in shown  # would turn the text around
    assert opened.locator("#item-body img").count() == 0
    opened.keyboard.press("Escape")
    assert EVIL in opened.inner_text("#items thead")
    assert EVIL in opened.inner_text("#rows")
    assert EVIL in opened.inner_text("#measured")
    assert opened.locator("script").count() == 5
    assert opened.evaluate("window.hit") is None


def test_the_page_holds_no_markup_of_the_data(whole: Path) -> None:
    html = whole.read_text(encoding="utf-8")
    assert "<img" not in html.partition("<script>")[0]
    assert html.count("<script") == html.count("</script>") == 5
    blocks = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html)
    assert [name for name, _ in blocks] == ["data", "details", "images"]
    assert not re.search("[<>&\u2028\u2029]", "".join(text for _, text in blocks))
    assert EVIL in json.loads(blocks[0][1])["items"]["questions"]
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert policy[1].count("unsafe") == 1  # of styles


def test_a_script_that_gets_in_does_not_run(browser: Any, brief: Path) -> None:
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(brief.as_uri())
        opened.evaluate(
            "() => { const s = document.createElement('script'); s.text = 'window.hit = 1'; document.body.append(s); }"
        )
        assert opened.evaluate("window.hit") is None


def wait(opened: Any, expression: str, wanted: str) -> None:
    """Until the expression has this value; the page's policy forbids what playwright waits with."""
    deadline = time.monotonic() + MOST_S
    while (value := opened.evaluate(expression)) != wanted:
        assert time.monotonic() < deadline, f"{expression} is {value!r}, not {wanted!r}"
        opened.wait_for_timeout(30)


def rows_of(opened: Any) -> list[str]:
    found: list[str] = opened.locator("#rows th").all_inner_texts()
    return found


def test_the_gap_between_proofs_and_attacks(open_page: Open, swift: Write, tmp_path: Path) -> None:
    """The points and cells of figure and table, counted by hand: 4 of 6 certified, 2 with 0.25; attacks leave 3."""
    conditions = ("clean", "pgd:eps=0.25,norm=l2,steps=10", "pgd:eps=9,norm=l2,steps=10")
    proofs = [certified(i, 1000) for i in range(2)] + [certified(i, 700) for i in (2, 3)]
    proofs += [certified(i, 1000, chosen=0) for i in (4, 5)]
    right = dict(zip(conditions, (5, 2, 0), strict=True))
    answers = []
    for name in conditions:
        for i in range(6):
            votes = [0, 100, 0, 0] if i < right[name] else [48, 52, 0, 0] if i == 2 else [100, 0, 0, 0]
            found = read_prediction(tuple(votes), 0.001)
            answers.append(evaluated(i, name, i < right[name], votes=votes, **vars(found)))
    smooth = {"smooth": vars(Voting(noise="float32", sigma=0.25))}
    certify = Run.read(write_run(tmp_path / "c", proofs, "certify"))
    evaluate = Run.read(write_run(tmp_path / "e", answers, "evaluate", conditions=conditions, spec=smooth))
    opened = open_page(swift([certify, evaluate]))
    curve, line = (found for found in traces(opened, "gap-0") if found.get("name"))
    assert curve["y"] == pytest.approx([4 / 6, *[4 / 6] * (len(curve["y"]) - 2), 2 / 6])
    assert line["x"] == [0, 0.25, 9] and line["y"] == pytest.approx([5 / 6, 3 / 6, 1 / 6])
    cells = [row.locator("td").all_inner_texts() for row in opened.locator("#gap tbody tr").all()]
    bare = [[text.rstrip("\u2020") for text in row] for row in cells]
    assert bare == [["0", "66.6", "83.4"], ["0.25", "33.3", "50.0"], ["9", ">ceiling", "16.7"]]
    assert "No gap is shown" not in opened.locator("#gap").inner_text()


def test_the_page_says_why_there_is_no_gap(swift: Write, tmp_path: Path) -> None:
    l2, linf = "pgd:eps=0.25,norm=l2,steps=10", "pgd:eps=4/255,steps=10"
    smooth = {"smooth": vars(Voting(noise="float32", sigma=0.25))}
    votes = {"votes": [0, 100, 0, 0]} | vars(read_prediction((0, 100, 0, 0), 0.001))

    def proved(name: str, done: int = 1, **settings: Any) -> Run:
        records = [certified(i, 990) for i in range(done)]
        return Run.read(write_run(tmp_path / name, records, "certify", **settings), name=name)

    def attacked(name: str, condition: str = l2, **settings: Any) -> Run:
        voted = votes if settings.get("spec") else {}
        records = [evaluated(0, asked, True, **voted) for asked in ("clean", condition)]
        folder = write_run(tmp_path / name, records, "evaluate", conditions=("clean", condition), **settings)
        return Run.read(folder, name=name)

    proofs, fit = proved("c"), attacked("fit", spec=smooth)
    assert why_no_gap([proofs, fit]) == [] and len(gaps_of([proofs, fit])) == 1
    mixed, shuffled = proved("mixed", spec={"option_order": "random"}), {**smooth, "shuffle_options": 3}
    for runs, reason in {
        (fit,): "no run of certify",
        (proofs,): "no run of evaluate with --smooth",
        (proofs, attacked("plain")): "no run of evaluate with --smooth",
        (proofs, attacked("linf", linf, spec=smooth)): "no attack on the smoothed model is bounded in L2",
        (proofs, attacked("other", spec={**smooth, "data": "e"})): "and they differ in items.",
        (proved("more", done=2), fit): "and they differ in items that are done.",
        (proofs, attacked("wide", spec={**smooth, "canvas": "9x9 pad"})): "and they differ in canvas.",
        (
            proofs,
            attacked("sigma", spec={"smooth": vars(Voting(noise="float32", sigma=0.5))}),
        ): "and they differ in noise and sigma.",
        (proofs, attacked("weights", spec=smooth, weights="x")): "and they differ in model.",
        (proofs, attacked("shuffled", spec=shuffled)): "and they differ in order of options.",
        (mixed, fit): "No gap is shown for mixed: of the attacked runs fit is the nearest, and they differ in order of",
    }.items():
        (sentence,) = why_no_gap(runs)
        assert reason in sentence and not gaps_of(runs) and sentence in swift(list(runs)).read_text(encoding="utf-8")
    assert len(gaps_of([proofs, mixed, fit])) == 1 and "for mixed" in why_no_gap([proofs, mixed, fit])[0]


def test_sort_search_and_outcomes(open_page: Open, brief: Path, runs: list[Run]) -> None:
    opened = open_page(brief)
    head = opened.locator("[data-column='0']")
    head.locator("button").click()
    assert rows_of(opened) == [f"i{i}" for i in range(24)]  # numbers by their size
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert rows_of(opened)[0] == "i23"
    assert head.get_attribute("aria-sort") == "descending"
    opened.locator("[data-column='5'] button").click()
    opened.locator("[data-column='5'] button").click()
    assert rows_of(opened)[:3] == ["i0", "i1", "i2"]  # the largest radius first
    assert head.get_attribute("aria-sort") is None

    def ids(outcome: str, run: str = "") -> set[str]:
        opened.select_option("#outcome", outcome)
        opened.select_option("#run", run)
        return set(rows_of(opened))

    attacked, proofs = runs[0].frame(), runs[1].frame()
    assert ids("abstained") == set(proofs.loc[proofs["abstained"].notna(), "item"])
    assert "i22" in ids("abstained")  # 'no answer' won
    assert ids("mistaken") == {"i4"}
    assert ids("certified") == set(proofs.loc[proofs["correct"] & proofs["radius"].notna(), "item"])
    assert ids("failed") == {"i9", "i23"}
    assert ids("failed", "0") == {"i9"}
    assert ids("silent") == {"i5"}
    wrong = set(attacked.loc[~attacked["correct"], "item"])
    assert ids("flipped") == wrong - {"i9"}
    held = opened.locator("#outcome option").evaluate_all("all => all.map((one) => one.value)")
    assert held == ["", "holds", "flipped", "silent", "certified", "mistaken", "abstained", "failed"]
    opened.select_option("#run", "0")
    opened.select_option("#outcome", "certified")
    assert opened.inner_text("#rows") == "No item matches."

    ids("")
    opened.fill("#search", "IMAGE 11 liver")
    wait(opened, COUNT, "1 of 24 items")
    assert rows_of(opened) == ["i11"]
    opened.fill("#search", "\\x1b")  # in a text that a model wrote
    wait(opened, "document.getElementById('rows').querySelector('th').textContent", "i7")
    opened.fill("#search", "nowhere")
    wait(opened, COUNT, "0 of 24 items")


def test_many_items_are_paged(open_page: Open, swift: Write, tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", [certified(i, 900) for i in range(120)], "certify")
    opened = open_page(swift([Run.read(out)]))
    assert len(rows_of(opened)) == 50
    opened.click("#forth")
    opened.click("#forth")
    assert rows_of(opened)[-1] == "i119"
    assert opened.inner_text("#page-of") == "Page 3 of 3"
    assert opened.is_disabled("#forth")


def test_radii_are_rounded_down(open_page: Open, swift: Write, tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", [certified(i, 1000 - 7 * i) for i in range(40)], "certify")
    run = Run.read(out)
    opened = open_page(swift([run]))
    assert any(round(one, 3) != floor_to(one, 3) for one in run.frame()["radius"])
    shown = opened.locator("#rows td:last-child").all_inner_texts()
    assert shown == [f"{floor_to(one, 3):.3f}" for one in run.frame()["radius"]]
    figures = opened.locator("#summary tbody").first.inner_text()
    assert ">ceiling" not in figures
    opened = open_page(swift([run], radii="0,3s"))
    assert ">ceiling" in opened.locator("#summary tbody").first.inner_text()


def test_sections_without_runs_are_left_out(open_page: Open, swift: Write, runs: list[Run]) -> None:
    opened = open_page(swift(runs[:1]))
    assert opened.locator("#certified, #live-certify").count() == 0
    assert opened.locator("#attacked-linf").count() == 1
    opened = open_page(swift(runs[1:]))
    assert opened.locator("[data-norm], #live-evaluate").count() == 0
    assert opened.locator("#certified").count() == 1


def test_images_of_kept_items(open_page: Open, swift: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_run(
        tmp_path / "run",
        [evaluated(i, name, True) for i in range(3) for name in CONDITIONS[:2]],
        "evaluate",
        conditions=CONDITIONS[:2],
    )
    question = Question(text="?", options=("a", "b"))
    items = [Item(id=f"i{i}", question=question, label=0, image="x", root=Path()) for i in range(3)]
    keep = Keeper(out, items, len(items), quantized=False)
    clean = torch.full((3, 8, 8), 0.5)
    for item in items:
        keep(item, CONDITIONS[1], clean, clean + 4 / 255)
    monkeypatch.setattr(_page_items, "MOST_IMAGES", 2)
    opened = open_page(swift([Run.read(out)]), link="#item=i1")
    images = opened.locator("#item-body img")
    assert images.count() == 3
    assert all(
        images.nth(k).evaluate("async (i) => { await i.decode(); return i.naturalWidth; }") == 8 for k in range(3)
    )
    assert all(images.nth(k).get_attribute("alt") for k in range(3))
    assert "\u00d7 32 around mid grey" in opened.inner_text("#item-body")
    opened.click("#item-forth")
    assert images.count() == 0  # beyond the limit
    next((out / "images").glob("*/i0-*.npy")).write_bytes(b"")
    opened = open_page(swift([Run.read(out)]), link="#item=i0")
    assert "cannot be read" in opened.inner_text("#item-body")


def test_large_images_are_reduced_and_compressed() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((300, 600, 3)).astype(np.float32)
    found = _page_items._pictures(0, "x", clean, clean)
    assert found.factor == 1
    assert found.clean.startswith("data:image/webp;base64,")
    assert found.size == (600, 300)


def test_notices(swift: Write, tmp_path: Path) -> None:
    records = [evaluated(i, name, True) for i in range(4) for name in CONDITIONS[:2]]
    records[1] |= {"error": "broken", "correct": False}
    evaluate = write_run(
        tmp_path / "evaluate",
        records,
        "evaluate",
        conditions=CONDITIONS[:2],
        items=5,
        skipped=[{"item": "lost", "reason": "no <b>image</b>"}],
        sampled="5 drawn at random from 50",
        names={"model": "toy", "commits": {}, "data": "phantom"},
    )
    one = write_run(tmp_path / "one", [certified(0, 1000)], "certify")
    other = write_run(
        tmp_path / "other",
        [certified(0, 1000)],
        "certify",
        spec={"data": "e", "canvas": "64x64 stretch", "shuffle_options": 0},
    )
    loaded = read_all([str(evaluate), f"a={one}", f"b={other}"], alpha=0.01)
    html = swift(loaded).read_text(encoding="utf-8")
    notices = html.partition('<section class="notices"')[2].partition("</section>")[0]
    for text in (
        "2 of 10 records are missing",
        "1 of 5 items failed and count as wrong",
        "Without 1 item that could not be used",
        "5 drawn at random from 50",
        "not clinical evidence",
        "at alpha 0.01; the run was made for alpha 0.001",
        "were not asked the same questions",
        "do not share a canvas",
        "not asked the options in the same order",
    ):
        assert text in notices
    assert "no &lt;b&gt;image&lt;/b&gt;" in html
    assert html.count("options in an order drawn by seed 0") == 1
    assert "Not for clinical use" in html


def test_the_page_shows_what_was_written(open_page: Open, swift: Write, tmp_path: Path) -> None:
    run = Run.read(written_run(tmp_path / "a", copies=3), name="a <b>")
    opened = open_page(swift([run]))
    table = opened.locator("#written table").first
    rows = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    assert [cell.split("\n")[0] for cell in rows[1]] == [
        *("pgd", "24", "5", "75.0", "75.0", "50.0", "60.0", "40.0", "0.30", "0.38")
    ]
    assert [cell.split("\n")[0] for cell in rows[0]][:2] == ["a <b>", "clean"] and "18 of 18" in rows[0][6]
    opened.locator("#written summary").first.click()
    by = opened.locator("#written details table").first.locator("tbody")
    assert by.count() == 2 and by.first.inner_text().startswith("CT")
    assert opened.locator("nav a[href='#written']").count() == 1
    silent = write_run(tmp_path / "b", [certified(0, 900)], "certify")
    opened = open_page(swift([Run.read(silent)]))
    assert opened.locator("#written, nav a[href='#written']").count() == 0


def test_an_opened_item_shows_its_rotations_and_is_found_by_what_they_changed(
    open_page: Open, swift: Write, tmp_path: Path
) -> None:
    conditions = ("clean", "circular")
    records = [evaluated(i, "clean", i > 0) for i in range(4)]
    records += [evaluated(i, "circular", i == 3, rotations=[1, 1, 1] if i == 3 else [1, None, 0]) for i in range(4)]
    for record in records:
        if record["attack"] == "circular" and not record["correct"]:
            record["prediction"] = None
    run = Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=conditions))
    opened = open_page(swift([run]), link="#item=i1")
    assert "by rotation: B, no answer, A" in opened.inner_text("#item-body")
    opened.keyboard.press("Escape")
    opened.select_option("#outcome", "moved")
    assert opened.locator("#rows th").all_inner_texts() == ["i1", "i2"]
    opened.select_option("#outcome", "holds")
    assert opened.locator("#rows th").all_inner_texts() == ["i3"]
    assert "3 of 4 items are right in their own order" in opened.inner_text("#summary")


def test_a_corruption_moves_an_item_and_flips_none(open_page: Open, swift: Write, tmp_path: Path) -> None:
    right = {"clean": 4, "corrupt:kind=jpeg,severity=5": 2, "pgd:eps=4/255,steps=10": 1}
    records = [evaluated(i, condition, i < count) for condition, count in right.items() for i in range(4)]
    opened = open_page(swift([Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=list(right)))]))
    for outcome, items in {"flipped": ["i1", "i2", "i3"], "moved": [], "holds": ["i0"]}.items():
        if not items:
            assert opened.locator(f"#outcome option[value={outcome}]").count() == 0
            continue
        opened.select_option("#outcome", outcome)
        assert opened.locator("#rows th").all_inner_texts() == items
    mild = {name: count for name, count in right.items() if not name.startswith("pgd")}
    records = [record for record in records if record["attack"] in mild]
    opened = open_page(swift([Run.read(write_run(tmp_path / "b", records, "evaluate", conditions=list(mild)))]))
    opened.select_option("#outcome", "moved")
    assert opened.locator("#rows th").all_inner_texts() == ["i2", "i3"]


def test_few_clusters_are_marked(swift: Write, tmp_path: Path) -> None:
    records = [certified(i, 1000, patient_id=f"p{i % 2}") for i in range(8)]
    html = swift([Run.read(write_run(tmp_path / "run", records, "certify"))]).read_text(encoding="utf-8")
    assert "too few to trust the interval" in html
    assert "p0" not in html.partition("<script")[2]  # a patient's name does not travel with the page


def test_runs_that_have_only_just_begun(open_page: Open, swift: Write, tmp_path: Path) -> None:
    evaluate = write_run(tmp_path / "evaluate", [], "evaluate", items=7)
    certify = write_run(tmp_path / "certify", [], "certify", items=7)
    opened = open_page(swift([Run.read(evaluate), Run.read(certify)]))
    assert "7 of 7 records are missing" in opened.inner_text(".notices")
    assert "n/a" in opened.inner_text("#summary")
    assert opened.inner_text("#items-count") == "0 of 0 items"


def test_the_numbers_stand_without_scripts(open_page: Open, brief: Path) -> None:
    opened = open_page(brief, java_script_enabled=False)
    assert "need JavaScript" in opened.inner_text("noscript")
    assert opened.locator("#summary table").first.is_visible()
    assert not opened.locator("#curves").is_visible()


def test_a_phone_scrolls_tables_not_the_page(open_page: Open, brief: Path) -> None:
    opened = open_page(brief, viewport={"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") == 400


# ------------------------------------------------------------------------------------------------- what a reader meets


def test_the_result_stands_before_everything_else(open_page: Open, brief: Path, runs: list[Run]) -> None:
    opened = open_page(brief)
    tops = [
        opened.locator(place).first.bounding_box()["y"]
        for place in (".headline", ".notices", "#certified", "#live-certify", "#measured", "#items", "#meaning")
    ]
    assert tops == sorted(tops)
    figures = opened.locator(".headline dd").all_inner_texts()
    clean = answers_measure(runs[0])(runs[0].answers)["clean"]
    assert figures[0].split() == [clean.text, "%", clean.bounds_text.replace("-", "\u2013")]
    labels = opened.locator(".headline dt").all_inner_texts()
    assert labels[0] == "accuracy, clean" and labels[1].startswith("accuracy under ")
    assert labels[2] == "certified at L2 radius \u2265 0.25"
    left = {name: cell.share for name, cell in answers_measure(runs[0])(runs[0].answers).items() if name != "clean"}
    worst = min(left, key=lambda name: left[name] or 0.0)
    assert figures[1].split()[0] == answers_measure(runs[0])(runs[0].answers)[worst].text


def test_the_headline_has_attacks_before_proofs(open_page: Open, swift: Write, runs: list[Run]) -> None:
    opened = open_page(swift(runs[::-1]))
    labels = opened.locator(".headline dt").all_inner_texts()
    assert [label.split(" ")[0] for label in labels] == ["accuracy,", "accuracy", "certified"]


def test_no_table_is_there_twice(open_page: Open, brief: Path) -> None:
    opened = open_page(brief)
    tables = opened.locator("table").evaluate_all("all => all.map((one) => one.tBodies[0]?.innerText)")
    assert len([text for text in tables if text]) == len({text for text in tables if text})
    assert "and the list of items" in opened.inner_text("#curves .count")


def test_certified_curves_name_their_budget(open_page: Open, brief: Path) -> None:
    opened = open_page(brief)
    caption = opened.locator("figure:has(#certified) figcaption").inner_text()
    assert "float32, \u03c3 = 0.25, n\u2080 = 100, n = 1,000, \u03b1 = 0.001." in caption


def test_fewer_than_three_eps_are_points(open_page: Open, swift: Write, tmp_path: Path) -> None:
    names = [
        "clean",
        *(f"{kind}:eps={eps}/255" for kind, most in (("fgsm", 2), ("noise", 3)) for eps in range(1, most + 1)),
    ]
    records = [evaluated(i, name, i > 0) for name in names for i in range(4)]
    opened = open_page(swift([Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=names))]))
    modes = opened.evaluate("document.getElementById('attacked-linf').data.map((t) => [t.mode, t.line.dash])")
    assert modes == [["markers", "solid"], ["lines+markers", "solid"]]
    several = [Run.read(tmp_path / "a", name=name) for name in ("one", "two")]
    opened = open_page(swift(several))
    looks = opened.evaluate("document.getElementById('attacked-linf').data.map((t) => t.line.color + t.marker.symbol)")
    assert len(set(looks)) == 4, "without lines, markers must differ"


def test_terms_are_explained_where_they_stand(open_page: Open, brief: Path) -> None:
    opened = open_page(brief)
    tip, term = opened.locator("#tip"), opened.locator("#summary .term", has_text="ACR").first
    assert not tip.is_visible()
    term.focus()
    assert tip.is_visible() and tip.inner_text().startswith("Average certified radius")
    described = term.get_attribute("aria-describedby")
    assert opened.locator(f"#{described}").text_content() == tip.inner_text()
    opened.keyboard.press("Escape")
    assert not tip.is_visible()
    term.hover()
    assert tip.is_visible()
    box, width = tip.bounding_box(), opened.viewport_size["width"]
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    for one in opened.locator(".term").evaluate_all("all => all.map((one) => one.hash)"):
        assert opened.locator(one).count() == 1, "every term is in the glossary"


def test_checks_that_passed_are_folded(open_page: Open, brief: Path, runs: list[Run]) -> None:
    opened = open_page(brief)
    statuses = [check.status for check in runs[0].summary.notes.checklist]
    assert {"pass"} < set(statuses)
    assert (
        opened.locator("#sanity summary").inner_text()
        == f"{statuses.count('pass')} check{'s' * (statuses.count('pass') > 1)} passed"
    )
    shown = [text for text in opened.locator("#sanity td:nth-child(2)").all_inner_texts() if text]
    assert "pass" not in shown and len(shown) == len(statuses) - statuses.count("pass")


def test_the_first_column_stays_on_a_phone(open_page: Open, brief: Path) -> None:
    opened = open_page(brief, viewport={"width": 390, "height": 800})
    row = "document.querySelector('#live-certify tr')"
    before = opened.evaluate(f"{row}.cells[0].getBoundingClientRect().left")
    opened.evaluate(f"{row}.closest('.box').scrollLeft = 150")
    assert opened.evaluate(f"{row}.closest('.box').scrollLeft") == 150
    assert opened.evaluate(f"{row}.cells[0].getBoundingClientRect().left") == before
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_provenance_is_printed_on_request(open_page: Open, brief: Path) -> None:
    opened = open_page(brief)
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    exact = opened.locator("#provenance pre")
    assert not exact.first.is_visible() and opened.locator("#summary details table").first.is_visible()
    opened.evaluate("document.querySelector('#provenance details').open = true")
    assert exact.first.is_visible()
    assert "@page" in brief.read_text(encoding="utf-8")


AXE = Path(os.environ.get("AXE", "node_modules/axe-core/axe.min.js"))


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install axe-core, or set AXE to its axe.min.js")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, brief: Path, scheme: str, width: int) -> None:
    opened = open_page(brief, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 844})
    opened.evaluate(AXE.read_text(encoding="utf-8"))
    found = "async () => (await axe.run(document)).violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html)}`)"
    assert opened.evaluate(found) == []
    opened.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert opened.evaluate(found) == []
    opened.locator("#rows button").first.click()
    assert opened.evaluate(found) == []
