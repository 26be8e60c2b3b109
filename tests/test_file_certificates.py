"""`certify --domain file`: radii on the image's own pixels, through the linear resize to the canvas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad.images import dicom
from conftest import draw_table
from PIL import Image
from test_cli import call
from toys import AB

import safemed_eval as se
from safemed_eval.core import Item
from safemed_eval.data import Canvas
from safemed_eval.data.images.resample import Resize
from safemed_eval.errors import RunError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.findings.canvas import own_pixel_words
from safemed_eval.runs.record import CertifyRecord
from safemed_eval.runs.work.certify import Certification
from safemed_eval.runs.work.falsify import Falsifier
from safemed_eval.runs.work.shown import Shown, canvas_from, shown_of
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Falsification, Gaussian, Ladder, Sequential, Smoothing
from safemed_eval.smoothing.certify import certify
from safemed_eval.smoothing.noise import FileView, View

CANVAS = (8, 9)
SIGMA = 0.3
STEP = 1 / (4096 * 255)
CPU = torch.device("cpu")
WEIGHT = torch.randn((3, *CANVAS), generator=torch.Generator().manual_seed(0))
SIZES = [(32, 40), (8, 9), (5, 7), (16, 3)]


def item_of(folder: Path, size: tuple[int, int], seed: int = 0) -> Item:
    pixels = np.random.default_rng(seed).integers(60, 190, (*size, 3), dtype=np.uint8)
    name = f"{size[0]}x{size[1]}-{seed}.png"
    Image.fromarray(pixels).save(folder / name)
    return Item(id=name, question=AB, label=0, image=name, root=folder)


def toy(shown: Shown, distance: float) -> Linear:
    """A linear model whose boundary is that far from the canvas."""
    model = Linear(WEIGHT)
    model.bias = distance * float(WEIGHT.norm()) - float(model.margin(shown.canvas[None]))
    return model


def certified(model: Linear, shown: Shown, n: int = 20_000) -> Any:
    vote = Waist(model, CPU).vote(AB)
    spec = Smoothing(sigma=SIGMA, n0=10, n=n)
    return certify(vote, shown.canvas, spec, rng=partial(generator, "cpu", 0), batch=2000, view=shown.view)


@pytest.mark.parametrize("how", ["stretch", "pad"])
@pytest.mark.parametrize("size", SIZES)
def test_the_file_radius_is_the_canvas_radius_over_the_norm(tmp_path: Path, size: tuple[int, int], how: Any) -> None:
    """And never more than the true one: the boundary is (w . R x + b) / ||R^T w|| away from the file."""
    shown = shown_of(item_of(tmp_path, size), Canvas(size=CANVAS, fit=how), "file", CPU)
    assert shown.own is not None
    model = toy(shown, 0.4)
    found = certified(model, shown)
    on_canvas = replace(shown, view=View(height=CANVAS[0], width=CANVAS[1]))
    plain = certified(model, on_canvas)
    lost = 0.0 if size == CANVAS else math.sqrt(3 * 8 * 9) * STEP
    assert found.radius == pytest.approx((plain.radius - lost) / shown.own.resize.norm, rel=1e-9)
    assert found.p_lower == plain.p_lower
    image = shown.own.pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(shown.own.resize(image), image, WEIGHT.double())
    true = float(model.margin(shown.canvas[None])) / float(slope.norm())
    assert 0 < found.radius < true
    assert float(slope.norm()) <= shown.own.resize.norm * float(WEIGHT.double().norm()) * (1 + 1e-12)


def test_in_the_direction_that_the_resize_stretches_most_the_bound_is_tight(tmp_path: Path) -> None:
    """For w = R v with v the top singular vector, ||R^T w|| = ||R|| ||w||: the certificate cannot be larger."""
    shown = shown_of(item_of(tmp_path, (20, 18)), Canvas(size=CANVAS), "file", CPU)
    assert shown.own is not None
    resize = shown.own.resize
    v = torch.randn((3, 20, 18), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(2000):
        v.requires_grad_()
        (v,) = torch.autograd.grad(resize(v).square().sum() / 2, v)
        v = v / v.norm()
    model = Linear(resize(v).float())
    model.bias = 0.4 * float(model.weight.norm()) - float(model.margin(shown.canvas[None]))
    true = 0.4 / float(resize(v).norm())
    found = certified(model, shown, n=50_000)
    assert 0.95 * true < found.radius <= true


def test_a_change_of_the_file_moves_the_canvas_no_more_than_said(tmp_path: Path) -> None:
    for size in SIZES:
        shown = shown_of(item_of(tmp_path, size), Canvas(size=CANVAS), "file", CPU)
        assert shown.own is not None
        rng = torch.Generator().manual_seed(0)
        for length in (1e-6, 1e-3, 0.5, 20.0):
            for _ in range(20):
                change = torch.randn(shown.own.pixels.shape, dtype=torch.float64, generator=rng)
                if size == CANVAS:  # there only changes on the lattice are meant
                    change = (change * length / change.norm() / STEP).round() * STEP
                else:
                    change *= length / change.norm()
                moved = canvas_from(shown.own.pixels + change, shown.own.resize)
                by = float((moved.double() - shown.canvas.double()).norm())
                assert by <= shown.view.on_canvas(float(change.norm())) + 1e-6


def test_what_the_resize_removes_is_free(tmp_path: Path) -> None:
    """A change of the null space, hundreds of radii long, moves the canvas by rounding alone, and no vote with it."""
    shown = shown_of(item_of(tmp_path, (32, 36)), Canvas(size=CANVAS), "file", CPU)
    assert shown.own is not None
    resize = shown.own.resize
    units = torch.eye(32 * 36, dtype=torch.float64).view(-1, 1, 32, 36)
    matrix = resize(units)[:, 0].flatten(1).T
    change = torch.randn((3, 32 * 36), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change -= change @ matrix.T @ torch.linalg.pinv(matrix).T
    change = (change * 500 / change.norm()).view(3, 32, 36)
    moved = canvas_from(shown.own.pixels + change, resize)
    assert float((moved.double() - shown.canvas.double()).norm()) <= shown.view.rounding + 1e-9
    model = toy(shown, 0.4)
    found = certified(model, shown)
    assert found.radius * 100 < 500
    there = certified(model, replace(shown, canvas=moved))
    assert there.prediction == found.prediction
    assert there.votes[0] == pytest.approx(found.votes[0], abs=20)


def test_radii_are_read_on_the_file_by_every_method_of_the_noise() -> None:
    noise = Gaussian(SIGMA)
    view = View(height=8, width=9, file=FileView(height=16, width=18, norm=0.5))
    canvas = View(height=8, width=9)
    rounding = math.sqrt(3 * 8 * 9) * STEP * (1 + 1e-6)
    assert view.rounding == pytest.approx(rounding, rel=1e-12)
    for p in (0.51, 0.7, 0.99):
        own, other = noise.radius(p, view), noise.radius(p, canvas)
        assert own is not None and other is not None
        assert own == pytest.approx((other - rounding) / 0.5, rel=1e-12)
        assert noise.probability_needed(own, view) == pytest.approx(p, rel=1e-9)
        assert noise.probability_left(p, own, 0.3 * own, view) == pytest.approx(
            noise.probability_left(p, other, 0.5 * 0.3 * own + rounding, canvas), rel=1e-12
        )
    assert noise.radius(0.5 + 1e-9, view) == 0.0  # rounding alone is more: at the file itself the answer is known
    assert noise.probability_needed(0.0, view) == 0.5
    assert noise.radius(0.5, view) is None
    assert View(height=8, width=9, file=FileView(height=8, width=9, norm=1.0)).rounding == 0
    assert View(height=8, width=9, file=FileView(height=8, width=9, norm=1.0, gain=0.2)).rounding > 0


def test_a_sequential_ladder_decides_radii_of_the_file() -> None:
    """With twice the norm the same votes certify half the radius."""
    spec = Sequential(sigma=SIGMA, radii={"a": 0.1, "b": 0.2, "c": 0.4}, n=2000)
    draws = (np.random.default_rng(0).random(2000) >= 0.93).astype(np.int64)  # gold is 0, and sigma ppf(0.93) = 0.44
    radii = []
    for norm in (0.5, 1.0, 2.0, 4.0):
        view = View(height=8, width=9, file=FileView(height=9, width=8, norm=norm))
        radii.append(Ladder(spec, view).follow([draws], 0, 2).radius)
    assert radii == [0.4, 0.4, 0.2, 0.1]
    assert Ladder(spec, View(height=8, width=9)).follow([draws], 0, 2).radius == 0.4


def test_a_radius_that_needs_more_than_certainty_is_never_certified() -> None:
    """On a canvas with slack, and where the resize enlarges: p0 is 1 or more, and all votes for gold do not do."""
    spec = Sequential(sigma=SIGMA, radii={"a": 0.1, "b": 7.5 * SIGMA}, n=3000)
    for file in (None, FileView(height=2, width=2, norm=40.0)):
        found = Ladder(spec, View(height=384, width=384, file=file)).follow([np.zeros(3000, dtype=np.int64)], 0, 3)
        assert found.radius == (None if file else 0.1)


def falsifier_of(model: Linear, kept: list[Any]) -> Falsifier:
    return Falsifier(
        model=Waist(model, CPU),
        spec=Falsification(steps=4, m=4, n=600, shares=(0.0, 0.5, 0.9, 0.99)),
        noise=Gaussian(SIGMA),
        seed=0,
        batch=300,
        keep=lambda *what: kept.append(what),
    )


@pytest.mark.parametrize("size", [(32, 40), (5, 7)])
def test_the_search_moves_the_file_and_finds_a_norm_that_is_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    """A random w is stretched less than ||R||, so the search is in the direction that matters: along R^T w."""
    shown = shown_of(item_of(tmp_path, size), Canvas(size=CANVAS), "file", CPU)
    assert shown.own is not None and shown.view.file is not None
    image = shown.own.pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(shown.own.resize(image), image, WEIGHT.double())
    stretch = float(slope.norm() / WEIGHT.double().norm())
    model = toy(shown, 0.4)
    kept: list[Any] = []
    shots = falsifier_of(model, kept)("i", shown, AB, certified(model, shown))
    assert not kept
    assert [shot.share for shot in shots] == [0.0, 0.5, 0.9, 0.99]
    assert shots[-1].length == pytest.approx(0.99 * certified(model, shown).radius, rel=1e-3)
    understated = replace(shown.view.file, norm=stretch / 2)
    planted = replace(shown, view=replace(shown.view, file=understated))
    falsifier_of(model, kept)("i", planted, AB, certified(model, planted))
    assert kept
    moved = kept[-1][2]
    assert moved.shape == (3, *size)
    reached = float(model.margin(canvas_from(moved.double(), shown.own.resize)[None]))
    start = float(model.margin(shown.canvas[None]))
    length = float((moved.double() - shown.own.pixels).norm())
    assert start - reached == pytest.approx(length * float(slope.norm()), rel=0.02)


def test_certification_and_its_parts_agree(tmp_path: Path) -> None:
    item = item_of(tmp_path, (32, 40))
    canvas = Canvas(size=CANVAS)
    shown = shown_of(item, canvas, "file", CPU)
    work = Certification(
        model=Waist(toy(shown, 0.4), CPU),
        canvas=canvas,
        smoothing=Smoothing(sigma=SIGMA, n0=10, n=200),
        seed=0,
        batch=50,
        domain="file",
    )
    record = work.certify(item)
    assert record.error is None and record.radius is not None
    assert record.view == shown.view
    counted = work.count(item, "estimate", 0, 200)
    assert (counted.votes, counted.view) == (record.votes, record.view)


def table_of(folder: Path) -> Path:
    """Images of three sizes: one is the canvas's own."""
    path = draw_table(folder)
    for number, size in enumerate([(48, 64), (16, 16), (7, 9), (48, 64), (90, 20), (48, 64), (16, 16), (12, 12)]):
        pixels = np.random.default_rng(number).integers(0, 70, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path.parent / f"{number}.png")
    return path


TOY = "python:safemed_eval.models.toy:brightness"


def test_a_run_about_files(tmp_path: Path) -> None:
    data, out = table_of(tmp_path / "data"), tmp_path / "run"
    asked = ["--model", TOY, "--data", f"table:{data}", "--canvas", "16x16", "--sigma", "0.25"]
    asked += ["--n0", "10", "--n", "100", "--domain", "file"]
    code, text = call("certify", *asked, "--out", out)
    assert code == 0, text
    assert "the file's own pixels, canvas 16x16" in text
    run = Run.read(out)
    frame = run.frame()
    for record in run.certificates:
        assert record.view is not None and record.view.file is not None and record.radius is not None
        with Image.open(data.parent / record.image) as image:
            assert (record.view.file.height, record.view.file.width) == image.size[::-1]
        norm = Resize(before=(image.height, image.width), size=(16, 16)).norm
        assert record.view.file.norm == norm
        row = frame[frame["item"] == record.item].iloc[0]
        assert row["canvas_radius"] == pytest.approx(norm * row["radius"] + record.view.rounding)
        assert math.isnan(row["stored_radius"])
        words = own_pixel_words(record)
        assert words is not None and "On the canvas it is a radius of" in words
    assert run.ceiling == max(run.ceilings.values()) and len(run.ceilings) == 5
    said = [finding.text for finding in run.findings if finding.key == "own-pixels"]
    assert len(said) == 1 and "here 7x9 to 48x64 pixels" in said[0]
    assert run.plot().axes[0].get_xlabel().endswith("the file's own pixels, canvas 16x16)")
    canvas = se.certify(TOY, se.load_data(f"table:{data}", canvas="16x16"), sigma=0.25, n0=10, n=100)
    assert "canvas_radius" not in canvas.frame()
    with pytest.raises(RunError, match="domain"):
        se.compare(canvas, run)
    code, text = call("report", out, "--out", tmp_path / "report")
    assert code == 0, text
    assert "file's own 7 x 9 pixels" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_a_record_with_another_norm_is_refused(tmp_path: Path) -> None:
    data, out = table_of(tmp_path / "data"), tmp_path / "run"
    se.certify(TOY, se.load_data(f"table:{data}", canvas="16x16"), sigma=0.25, n0=10, n=100, domain="file", out=out)
    lines = (out / "records.jsonl").read_text(encoding="utf-8")
    norm = Resize(before=(48, 64), size=(16, 16)).norm
    (out / "records.jsonl").write_text(lines.replace(f'"norm": {norm}', f'"norm": {norm / 2}'), encoding="utf-8")
    assert lines.count(f'"norm": {norm}') == 3
    with pytest.raises(RunError, match="norm"):
        Run.read(out)


def test_pseudonyms_keep_what_the_certificate_is_about(tmp_path: Path) -> None:
    chosen, key = se.load_data(f"table:{table_of(tmp_path / 'data')}", canvas="16x16"), tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    asked = {"sigma": 0.25, "n0": 10, "n": 100, "domain": "file"}
    veiled = se.certify(TOY, chosen, **asked, pseudonymize=key, out=tmp_path / "run")
    plain = se.certify(TOY, chosen, **asked)
    assert sorted(veiled.frame()["radius"]) == sorted(plain.frame()["radius"])


def test_sequential_draws_decide_radii_of_files(tmp_path: Path) -> None:
    chosen = se.load_data(f"table:{table_of(tmp_path / 'data')}", canvas="16x16")
    run = se.certify(TOY, chosen, sigma=0.25, sampling="sequential", radii="0,0.1,0.3", n=200, domain="file")
    assert not run.failed
    assert set(run.frame()["radius"].dropna()) <= {0.0, 0.1, 0.3}
    for record in run.certificates:
        assert isinstance(record, CertifyRecord)
        assert record.view is not None and record.view.file is not None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--canvas", "native"], "the canvas is the file already"),
        (["--noise", "float32"], "--noise float32: radii of the file"),
        (["--noise", "gamma"], "--noise gamma: radii of the file"),
    ],
)
def test_what_has_no_meaning_is_refused(table: Path, more: list[str], words: str) -> None:
    code, text = call(
        "certify", "--model", TOY, "--data", f"table:{table}", "--sigma", "0.25", "--domain", "file", *more
    )
    assert code == 2
    assert words in text
    with pytest.raises(se.errors.SpecError, match="domain: 'x' is not a choice; known: canvas, file"):
        se.certify(TOY, f"table:{table}", sigma=0.25, domain="x")  # type: ignore[arg-type]


WINDOW = {"WindowCenter": 500.0, "WindowWidth": 801.0, "RescaleSlope": 2.0, "RescaleIntercept": -100.0}


def test_a_window_makes_the_radius_one_of_stored_values(tmp_path: Path) -> None:
    """Stored values within that L2 distance move the canvas by no more than the certified radius on it."""
    stored = np.random.default_rng(0).integers(100, 420, (32, 40), dtype=np.uint16)
    stored[0] = 10  # black under the window
    name = "a.dcm"
    (tmp_path / name).write_bytes(dicom(stored, **WINDOW))
    item = Item(id="1", question=AB, label=0, image=name, root=tmp_path)
    shown = shown_of(item, Canvas(size=CANVAS), "file", CPU)
    file = shown.view.file
    assert shown.own is not None and file is not None and file.gain is not None
    assert file.gain == pytest.approx(2 * 255 / 800)
    assert file.cut is not None and file.cut >= 1 / 32
    radius = 0.3
    reach = shown.view.in_stored_values(radius)
    assert reach is not None
    rng = np.random.default_rng(1)
    for number in range(20):
        change = rng.normal(size=stored.shape)
        change *= reach / np.linalg.norm(change)
        moved = stored + np.trunc(change * 3).astype(int) // 3
        other = f"{number}.dcm"
        (tmp_path / other).write_bytes(dicom(moved.clip(0).astype(np.uint16), **WINDOW))
        there = shown_of(replace(item, image=other), Canvas(size=CANVAS), "file", CPU)
        assert there.own is not None
        assert float((there.own.pixels - shown.own.pixels).norm()) <= radius + 1e-9
        assert float((there.canvas.double() - shown.canvas.double()).norm()) <= shown.view.on_canvas(radius) + 1e-6
    alone = stored.copy()
    alone[16, 20] += 1
    (tmp_path / "one.dcm").write_bytes(dicom(alone, **WINDOW))
    one = shown_of(replace(item, image="one.dcm"), Canvas(size=CANVAS), "file", CPU)
    assert one.own is not None
    assert shown.view.in_stored_values(float((one.own.pixels - shown.own.pixels).norm())) == pytest.approx(1.0)


def test_real_images(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("dicom").glob("MR_small.dcm")):
        item = Item(id="1", question=AB, label=0, image=path.name, root=path.parent)
        shown = shown_of(item, Canvas(size=(96, 96)), "file", CPU)
        assert shown.view.file is not None and shown.view.file.gain is not None
        assert shown.view.file.norm > 1  # it is enlarged: less robust per pixel of the file
