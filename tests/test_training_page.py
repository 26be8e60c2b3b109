"""The page of a training: curves, samples and images, from a folder that was written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browsing import watched
from PIL import Image

import safemed_eval as se
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report import training as page
from safemed_eval.report.training.chart import chart_of, ticks
from safemed_eval.report.training.read import Training
from safemed_eval.train.log import IMAGES, LOG, SAMPLES, WORK

EVIL = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'> \x1b[31m \u202e"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a training with hostile texts, whose best step is 200 of 400."""
    work = tmp_path / "ckpt" / WORK
    (work / IMAGES).mkdir(parents=True)
    spec = {"command": "train", "recipe": {"method": "at-grpo", "steps": 400}, "data": EVIL}
    session = {"started": "2026-01-01", "argv": ["train", EVIL], "versions": {"torch": "2"}}
    meta = {"schema": 1, "spec": spec, "model": {}, "sessions": [session], "names": {"model": EVIL, "data": "d"}}
    meta |= {"items": 8, "skipped": [], "conditions": [], "sampled": None, "image_notes": {}}
    (work / "run.json").write_text(json.dumps(meta))
    lines: list[dict[str, Any]] = [{"step": 10 * n, "loss": 1 / n, "reward": n / 40} for n in range(1, 41)]
    lines += [{"step": 100 * n, "eval/clean_accuracy": 0.9, "eval/robust_accuracy": r, "eval/items": 40}
              for n, r in enumerate((0.1, 0.625, 0.5, 0.3), start=1)]  # fmt: skip
    (work / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("a-clean.png", "a-00000200.png"):
        Image.new("RGB", (8, 8), "red").save(work / IMAGES / name)
    (work / "secret.png").write_bytes((work / IMAGES / "a-clean.png").read_bytes())
    (work / IMAGES / "a-00000300.png").write_text("no image")
    shown = {step: {"image": f"a-{step:08}.png", "texts": [{"text": EVIL, "rewards": {"correct": 1.0, EVIL: None}}]}
             for step in (200, 300)}  # fmt: skip
    shown[400] = {"image": "../secret.png", "texts": []}
    samples = [
        {"step": step, "item": EVIL, "question": EVIL, "options": [EVIL, "b"], "label": 1, "attack": EVIL,
         "clean": {"image": "a-clean.png", "texts": [{"text": "<b>", "rewards": {"correct": 0.0}}]}, "attacked": side}
        for step, side in shown.items()
    ]  # fmt: skip
    (work / SAMPLES).write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    note = {
        "step": 200,
        "clean_accuracy": 0.9,
        "robust_accuracy": 0.625,
        "items": 40,
        "attack": "pgd:eps=2/255,steps=1",
    }
    note |= {"chosen_by": "robust", "last_step": 400, "ended_by_patience": True}
    (work.parent / "safemed_eval.json").write_text(json.dumps({"validation": note}))
    return work.parent


def test_the_page_of_a_training(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = se.report([f"mine={trained}"], tmp_path / "report")
    html = written.page.read_text(encoding="utf-8")
    assert "<h1>Training of mine</h1>" in html and written.figures[0].is_file()
    assert "those of step 200" in html and "62.5 % under" in html and "ended by patience" in html
    assert "best: step 200" in html and "under attack, step 200: 62.5 %" in html
    assert html.count("<script") == html.count("<img src=x") == html.count("onerror='") == 0 and "\x1b" not in html
    assert "http" not in html.split("</style>")[1].replace("http-equiv", "")
    assert html.count("data:image/png;base64,") == 2, "no file outside of its folder, and none that is no image"
    monkeypatch.setattr(page, "figure", lambda work, out: None)  # it takes a second
    bare = se.report([trained / WORK], tmp_path / "bare", images=False).page.read_text(encoding="utf-8")
    assert "data:image" not in bare and "Training of ckpt" in bare
    (trained / "safemed_eval.json").unlink()
    assert "not complete" in se.report([trained], tmp_path / "report").page.read_text(encoding="utf-8")


def test_the_step_of_the_best_is_marked_on_the_accuracy_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "figure", lambda work, out: None)
    with (trained / WORK / LOG).open("a") as log:
        log.write('{"step": 100, "adversary/flipped": 0.5}\n{"step": 300, "adversary/flipped": 0.75}\n')
    html = se.report([trained], tmp_path / "report").page.read_text(encoding="utf-8")
    charts: list[str] = re.findall('<figure class="chart">.*?</figure>', html, re.DOTALL)
    assert ["Accuracy on validation data" in chart for chart in charts] == [True, False, False, False]
    assert ["best: step 200" in chart for chart in charts] == [True, False, False, False]
    (trained / "safemed_eval.json").write_text("{}")
    assert "best: step" not in se.report([trained], tmp_path / "report").page.read_text(encoding="utf-8")


def test_the_last_step_is_the_largest_in_the_log(trained: Path) -> None:
    """Lines of a resumed training need not be in order."""
    assert Training.read(trained).last_step == 400
    with (trained / WORK / LOG).open("a") as log:
        log.write('{"step": 390, "loss": 1}\n')
    assert Training.read(trained).last_step == 400
    (trained / WORK / LOG).unlink()
    assert Training.read(trained).last_step == 0


def test_a_training_that_has_just_begun_has_a_page(trained: Path, tmp_path: Path) -> None:
    for name in ("log.jsonl", SAMPLES):
        (trained / WORK / name).unlink()
    assert "Nothing is logged yet" in se.report([trained], tmp_path / "report").page.read_text(encoding="utf-8")


def test_the_report_of_a_training_refuses_what_it_cannot_show(trained: Path, tmp_path: Path) -> None:
    for options, said in (({"alpha": 0.01}, "--alpha: has no effect"), ({"by": "age"}, "--by: has no effect")):
        with pytest.raises(SpecError, match=said):
            se.report([trained], tmp_path / "report", **options)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="its report is of nothing else"):
        se.report([trained, tmp_path / "runs"], tmp_path / "report")
    log = trained / WORK / "log.jsonl"
    for text in ("{\n", "[1]\n", '{"loss": 1}\n'):
        log.write_text(text)
        with pytest.raises(RunError, match=r"log.jsonl: line 1 is no line"):
            se.report([trained], tmp_path / "report")
    log.unlink()
    (trained / WORK / SAMPLES).write_text('{"step": 1, "item": 3}\n')
    with pytest.raises(RunError, match="a sample: item cannot be 3"):
        se.report([trained], tmp_path / "report")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 3, [1, 1.5, 2, 2.5, 3]), (-2e-6, 2e-6, [-2e-6, -1e-6, 0, 1e-6, 2e-6])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_places_on_a_chart_are_to_scale() -> None:
    chart = chart_of("accuracy", {"a": [(0, 0.0), (50, 0.25), (100, 1.0)]}, share=True, best=50)
    (first, middle, last) = chart.lines[0].marks
    assert (first.x, last.x, first.y, last.y) == (chart.left, chart.right, chart.bottom, chart.top)
    assert middle.x == chart.best.x == pytest.approx((chart.left + chart.right) / 2)  # type: ignore[union-attr]
    assert middle.y == pytest.approx(chart.bottom - (chart.bottom - chart.top) / 4)
    many = chart_of("loss", {"a": [(n, 1.0) for n in range(2001)]}, share=False)
    assert many.every == 5 and not many.lines[0].marks and many.lines[0].path.count("L") == 400


@pytest.mark.parametrize(("points", "every"), [(1, 1), (500, 1), (501, 2), (1000, 2), (1001, 3)])
def test_a_curve_of_many_points_shows_one_in_so_many_and_the_last(points: int, every: int) -> None:
    """So that none has more than 500 and its last; the longest curve decides for all of a chart."""
    chart = chart_of("loss", {"a": [(0, 1.0)], "b": [(n, float(n)) for n in range(points)]}, share=False)
    short, long = chart.lines
    assert chart.every == every and long.last == f"{points - 1:.4g}"
    assert long.path.count("L") + 1 == len({*range(0, points, every), points - 1}) <= 501
    assert short.path.count("L") == 0


def test_a_browser_shows_the_page_without_a_word(trained: Path, browser: Any, tmp_path: Path) -> None:
    """On a telephone, too, nothing is wider than the screen, and no script runs."""
    page = se.report([trained], tmp_path / "report").page
    with watched(browser, "file:") as opened:
        shown = opened(page.as_uri(), viewport={"width": 360, "height": 700}, color_scheme="dark")
        assert shown.evaluate("document.documentElement.scrollWidth") == 360
        assert shown.evaluate("document.querySelectorAll('.charts figure').length") == 3
        assert shown.evaluate("[...document.images].every(image => image.naturalWidth == 8)")
        assert shown.evaluate("window.hit") is None
