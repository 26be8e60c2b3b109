"""Figures of synthetic runs: what is drawn is read back from the axes and compared with numbers made by hand."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from synthetic import ATTACKS, SMOOTHING, certified, evaluated, failed, numbers, write_run
from test_medmnist_c import OWN, THEIRS, mixed_run

from safemed_eval import attacks, plugins
from safemed_eval.core import MODALITIES, QUESTION_TYPES, Item, Question
from safemed_eval.errors import SpecError
from safemed_eval.report import Run, figures, read_all
from safemed_eval.report.conditions import words
from safemed_eval.report.drawing.style import GREY, SIZE, look, plain, style
from safemed_eval.report.figures import draw_all, drawer, kinds
from safemed_eval.report.figures._attacks import CORRUPTED, LARGEST, chosen
from safemed_eval.report.gap import gaps_of
from safemed_eval.report.page import items as page_items
from safemed_eval.runs.images import Keeper
from safemed_eval.smoothing import Smoothing, Voting, read_prediction
from safemed_eval.stats import certified_radius, clopper_pearson_lower, clustered_proportion

CEILING = SMOOTHING.ceiling or 0.0
PGD = "pgd:eps=4/255,steps=10"


def drawn(kind: str, runs: Sequence[Run]) -> dict[str, Figure]:
    """The figures of one kind, laid out."""
    with style():
        found = dict(drawer(kind)(runs))
        for figure in found.values():
            figure.draw_without_rendering()
    return found


def run_of(folder: Path, records: Sequence[dict[str, Any]], command: str, name: str | None = None, **meta: Any) -> Run:
    return Run.read(write_run(folder, records, command, **meta), name=name or folder.name)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def words_of(figure: Figure) -> str:
    """Legend and notes."""
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join([*legends, *(text.get_text() for text in figure.texts)]).replace("\n", " ")


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]


def four(folder: Path, **meta: Any) -> Run:
    """Right at the ceiling, right with 990 of 1000 votes, wrong, abstained."""
    records = [certified(0, 1000), certified(1, 990), certified(2, 1000, chosen=0), certified(3, 400)]
    return run_of(folder, records, "certify", **meta)


R990 = certified_radius(clopper_pearson_lower(990, 1000, 0.001), 0.25)


def test_each_kind_is_a_module_found_by_name() -> None:
    files = {file.stem for file in Path(figures.__file__).parent.glob("*.py") if not file.name.startswith("_")}
    assert set(kinds()) == files and kinds() == sorted(kinds())
    assert all(callable(import_module(f"{figures.__name__}.{kind}").draw) for kind in kinds())


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs an entry point `overview` that leads to a name of this module."""

    def install(value: str) -> None:
        point = EntryPoint(name="overview", value=value, group="safemed_eval.figures")
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
        plugins.plugins.cache_clear()

    yield install
    plugins.plugins.cache_clear()


@pytest.mark.parametrize(
    ("name", "words"), [("PGD", "of .* is no function draw"), ("gone", "of .* cannot be imported")]
)
def test_a_plug_in_that_draws_nothing_is_refused(plugged: Callable[[str], None], name: str, words: str) -> None:
    plugged(f"test_figures:{name}")
    with pytest.raises(SpecError, match=f"the plug-in overview {words}"):
        drawer("overview")


def test_severity_zero_is_the_clean_accuracy_of_the_items_that_have_the_kind(tmp_path: Path) -> None:
    run = Run.read(mixed_run(tmp_path / "run", {"clean": 4} | OWN | THEIRS))
    found = drawn("corruptions", [run])
    assert set(found) == {"corruptions", "corruptions-medmnist-c"}
    (axes,) = found["corruptions-medmnist-c"].axes
    assert axes.get_title() == "pixelate", "nothing is known of bubbles"
    assert curves(axes) == [(pytest.approx([0, 1, 5]), pytest.approx([80, 80, 40]))]
    assert curves(found["corruptions"].axes[0]) == [(pytest.approx([0, 1, 2]), pytest.approx([40, 70, 60]))]


@pytest.mark.parametrize(("eps", "certified"), [(R990, 2), (CEILING, 1), (0.25, 2), (2.0, None)])
def test_a_certificate_of_just_the_size_of_an_attack_counts(eps: float, certified: int | None, tmp_path: Path) -> None:
    """And a figure shows both to their ends: the curve up to its ceiling, and attacks beyond it."""
    conditions = ["clean", str(attacks.parse(f"pgd:eps={eps!r},norm=l2,steps=10"))]
    records = [voted(i, condition, "right") for condition in conditions for i in range(4)]
    spec = {"smooth": vars(Voting(noise="float32", sigma=0.25))}
    runs = [four(tmp_path / "c"), run_of(tmp_path / "a", records, "evaluate", conditions=conditions, spec=spec)]
    (gap,) = gaps_of(runs)
    ((clean, found),) = gap.families.values()
    assert (clean.eps, clean.certified and clean.certified.count, found.eps) == (0, 2, eps)
    assert (found.certified and found.certified.count) == certified
    assert found.certified_text == (">ceiling" if certified is None else f"{25.0 * certified}")
    (figure,) = drawn("gap", runs).values()
    left, right = figure.axes[0].get_xlim()
    assert left == 0 and max(eps, CEILING) < right < 1.1 * max(eps, CEILING)


def test_kept_images_are_shown_on_the_page_as_they_are(pictured: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of 4 grey levels is shown 32 times larger around mid grey: that hardly clips it, at 255.5."""
    monkeypatch.setattr(page_items, "MOST_IMAGES", 3)
    shown = page_items.images([pictured], page_items.Items([pictured]))
    assert sorted(shown) == [0, 1, 2], "of the first items alone"
    for (found,) in shown.values():
        assert isinstance(found, page_items.Pictures)
        assert (found.run, found.condition, found.factor, found.size) == (0, PGD, 32, (8, 6))
        for uri, grey in ((found.clean, 102), (found.attacked, 106), (found.change, 255)):
            image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
            assert np.array_equal(np.asarray(image), np.full((6, 8, 3), grey))
    next((pictured.out / "images").glob("*/i1-*.png")).write_bytes(b"")  # type: ignore[operator]
    again = page_items.images([pictured], page_items.Items([pictured]))
    assert isinstance(again[1][0], page_items.Unreadable) and "cannot be read" in again[1][0].error
    (without,) = read_all([str(pictured.out)], images=False)
    assert not page_items.images([without], page_items.Items([without]))


# --- certified -------------------------------------------------------------------------------------------------------


def test_a_certified_curve_is_the_step_function_of_its_certificates(tmp_path: Path) -> None:
    axes = drawn("certified", [four(tmp_path / "a")])["certified"].axes[0]
    curve, ceiling = axes.lines
    assert curve.get_drawstyle() == "steps-pre"
    assert curve.get_xdata() == pytest.approx([0, R990, CEILING])
    assert curve.get_ydata() == pytest.approx([50, 50, 25])
    assert ceiling.get_xdata() == pytest.approx([CEILING, CEILING])
    bounds = clustered_proportion([True, False, False, False], [0, 1, 2, 3])
    band = axes.collections[0].get_paths()[0].vertices
    at_end = [y for x, y in band if x == pytest.approx(CEILING)]
    assert min(at_end) == pytest.approx(100 * bounds.lower) and max(at_end) == pytest.approx(100 * bounds.upper)


def test_a_radius_is_also_shown_in_grey_levels(tmp_path: Path) -> None:
    axes = drawn("certified", [four(tmp_path / "a")])["certified"].axes[0]
    (top,) = axes.child_axes
    levels = 255 / np.sqrt(3 * 384 * 384)
    assert top.get_xlim() == pytest.approx([levels * x for x in axes.get_xlim()])
    assert "grey levels" in top.get_xlabel() and "canvas 384x384" in axes.get_xlabel()
    native = four(tmp_path / "b", spec={"canvas": "native"})
    axes = drawn("certified", [native])["certified"].axes[0]
    assert not axes.child_axes and "canvas native" in axes.get_xlabel()


def test_runs_share_an_axis_and_are_told_apart_without_colour(tmp_path: Path) -> None:
    fewer = Smoothing(noise="float32", sigma=0.25, n=200)
    other = run_of(
        tmp_path / "b",
        [certified(i, 200, smoothing=fewer) for i in range(2)],
        "certify",
        smoothing=fewer,
        spec={"data": "e"},
    )
    figure = drawn("certified", [four(tmp_path / "a"), other])["certified"]
    lines = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-pre"]
    assert [line.get_xdata()[-1] for line in lines] == pytest.approx([CEILING, fewer.ceiling])
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 2
    common = "float32, \u03c3 = 0.25, n\u2080 = 100, \u03b1 = 0.001"
    assert figure.legends[0].get_title().get_text() == common, "what all curves were made with"
    assert "a (4 items, n = 1,000)\u2020 b (2 items, n = 200)\u2020 ceiling of the sample budget" in words_of(figure)
    assert "not of the same items" in words_of(figure)
    assert len({(one.dash, one.marker) for one in map(look, range(20))}) == 20


def test_radii_on_different_canvases_do_not_share_a_figure(tmp_path: Path) -> None:
    runs = [four(tmp_path / "a"), four(tmp_path / "b", spec={"canvas": "64x64 stretch"})]
    assert [stem for stem in drawn("certified", runs) if "by" not in stem] == [
        "certified-384x384-stretch",
        "certified-64x64-stretch",
    ]


def test_small_multiples_stand_in_the_fixed_order_and_too_few_items_are_na(tmp_path: Path) -> None:
    slices = {"X-Ray": 6, "zeta": 12, "CT": 5, "MRI": 4}
    names = [name for name, count in slices.items() for _ in range(count)]
    records = [
        certified(i, 1000, modality=name, patient_id=f"p{i % 3}" if name == "X-Ray" else None)
        for i, name in enumerate([*names, None])
    ]
    found = drawn("certified", [run_of(tmp_path / "a", records, "certify")])
    assert set(found) == {"certified", "certified-by-modality"}, "the question type is not known of any item"
    figure = found["certified-by-modality"]
    assert [title.replace("\xa0", " ") for title in titles(figure)] == [
        "CT\u2020 (5 items)",
        "MRI\u2020 (4 items)",
        "X-Ray\u2020 (6 items)",
        "zeta (12 items)",
        "unknown\u2020 (1 item)",
    ]
    assert [texts(axes) for axes in figure.axes] == [[], ["n/a"], [], [], ["n/a"]]
    assert [axes.axison for axes in figure.axes] == [True, False, True, True, False]
    assert "n/a: fewer than 5 items" in words_of(figure) and "\u2020 few clusters" in words_of(figure)


# --- attacked --------------------------------------------------------------------------------------------------------


def attacked(folder: Path, right: dict[str, int], n: int = 10, **meta: Any) -> Run:
    """n items; under each condition the first so many are answered rightly."""
    records = [evaluated(i, condition, i < count) for i in range(n) for condition, count in right.items()]
    return run_of(folder, records, "evaluate", conditions=list(right), **meta)


SWEEP = {
    "clean": 9,
    "fgsm:eps=4/255": 6,
    "fgsm:eps=8/255": 5,
    "pgd:eps=4/255,steps=10": 3,
    "pgd:eps=8/255,steps=10": 1,
    "pgd:eps=1,steps=10": 0,
    "pgd:eps=1.5,norm=l2,steps=10": 2,
    "noise:eps=8/255": 8,
    "official": 10,
}


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(bar[0].get_xdata()), list(bar[0].get_ydata())) for bar in axes.containers]


def test_a_security_curve_goes_from_clean_at_zero_along_eps(tmp_path: Path) -> None:
    found = drawn("security", [attacked(tmp_path / "a", SWEEP)])
    assert set(found) == {"security-l2", "security-linf"}
    linf, l2 = found["security-linf"], found["security-l2"]
    noise, fgsm, pgd = curves(linf.axes[0])
    assert noise == (pytest.approx([0, 8]), pytest.approx([90, 80]))
    assert fgsm == (pytest.approx([0, 4, 8]), pytest.approx([90, 60, 50]))
    assert pgd == (pytest.approx([0, 4, 8, 255]), pytest.approx([90, 30, 10, 0]))
    assert curves(l2.axes[0]) == [(pytest.approx([0, 1.5]), pytest.approx([90, 20]))]
    grey = linf.axes[0].containers[0][0]
    assert to_hex(grey.get_color()) == GREY
    lines = [bar[0].get_linestyle() for bar in linf.axes[0].containers]
    assert lines == ["None", "None", "-"], "one or two eps are points, three are a curve, solid for one run"
    assert [handle.get_linestyle() for handle in linf.legends[0].get_lines()] == ["None", "-", "None"]
    places = [bar[0].get_transform().transform([4, 50])[0] for bar in linf.axes[0].containers]
    assert places[0] < places[1] and places[2] == pytest.approx(linf.axes[0].transData.transform([4, 50])[0])
    assert "/255" in words_of(linf) and "L2 length" in words_of(l2)
    assert "FGSM PGD steps=10 noise, the random control" in words_of(linf)
    share = clustered_proportion([True] * 6 + [False] * 4, range(10))
    (low, high) = linf.axes[0].containers[1].lines[2][0].get_segments()[1][:, 1]
    assert (low, high) == (pytest.approx(100 * share.lower), pytest.approx(100 * share.upper))


def test_of_several_runs_each_attack_has_a_panel(tmp_path: Path) -> None:
    runs = [attacked(tmp_path / "a", SWEEP), attacked(tmp_path / "b", {"clean": 8, PGD: 7})]
    figure = drawn("security", runs)["security-linf"]
    assert titles(figure) == ["FGSM", "PGD steps=10"]
    fgsm, pgd = map(curves, figure.axes)
    assert len(fgsm) == 2 and len(pgd) == 3, "noise of a in both, b has neither fgsm nor noise"
    assert pgd[-1] == (pytest.approx([0, 4]), pytest.approx([80, 70])), "a single eps is two points"


def test_bars_are_shares_with_intervals_all_first(tmp_path: Path) -> None:
    records = [
        evaluated(i, condition, i < count, modality=("MRI", "CT")[i % 2])
        for i in range(10)
        for condition, count in {"clean": 9, "fgsm:eps=4/255": 6, PGD: 3}.items()
        if not (condition == PGD and i % 2)
    ]
    figure = drawn("bars", [run_of(tmp_path / "a", records, "evaluate")])["accuracy-by-modality"]
    axes = figure.axes[0]
    heights = [patch.get_height() for patch in axes.patches]
    # all, CT (odd items), MRI (even items); PGD has no record of CT.
    assert heights == pytest.approx([90, 60, 40, 80, 60, 100, 60, 40])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all", "CT", "MRI"]
    assert texts(axes) == ["5\u201310\u2020", "n/a", "0\u20135\u2020", "5\u2020", "items"]
    bounds = clustered_proportion([True] * 9 + [False], range(10))
    low, high = axes.containers[1].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(100 * bounds.lower), pytest.approx(100 * bounds.upper))
    assert len({patch.get_hatch() for patch in axes.patches}) == 3


def test_of_many_attacks_the_largest_eps_stands_for_each(tmp_path: Path) -> None:
    run = attacked(tmp_path / "a", SWEEP)
    shown = ["clean", "fgsm:eps=8/255", "pgd:eps=8/255,steps=10", "pgd:eps=1.5,norm=l2,steps=10", "noise:eps=8/255"]
    assert chosen(run) == (shown, [LARGEST])
    figure = drawn("bars", [run])["accuracy-by-modality"]
    assert "Of each attack the largest eps" in words_of(figure)
    assert words("pgd:eps=8/255,steps=10") in words_of(figure) and "official" not in words_of(figure)
    assert chosen(attacked(tmp_path / "b", {"clean": 8, PGD: 7, "official": 9})) == (["clean", PGD], [])


def test_bars_of_many_runs_go_on_in_another_file(tmp_path: Path) -> None:
    found = drawn("bars", [attacked(tmp_path / f"r{i}", {"clean": 8, PGD: i}) for i in range(7)])
    assert {stem: titles(figure) for stem, figure in found.items()} == {
        "accuracy-by-modality": ["r0", "r1", "r2", "r3", "r4"],
        "accuracy-by-modality-2": ["r5", "r6"],
    }


# --- corruptions -----------------------------------------------------------------------------------------------------


def corrupt(kind: str, severity: int) -> str:
    return f"corrupt:kind={kind},severity={severity}"


WORN = {"clean": 9, PGD: 5} | {corrupt("jpeg", severity): 8 - severity for severity in (5, 1, 2)}
WORN |= {corrupt("noise", 3): 1, "art:SquareAttack,eps=4/255,max_iter=9": 6}


def test_accuracy_falls_along_severity_from_clean_at_zero(tmp_path: Path) -> None:
    runs = [
        attacked(tmp_path / "a", WORN),
        attacked(tmp_path / "b", {"clean": 8, corrupt("blur", 2): 7, corrupt("jpeg", 4): 6}),
        attacked(tmp_path / "c", SWEEP),
    ]
    (figure,) = drawn("corruptions", runs).values()
    assert titles(figure) == ["jpeg", "noise", "blur"]
    jpeg, noise, blur = map(curves, figure.axes)
    worn = (pytest.approx([0, 1, 2, 5]), pytest.approx([90, 70, 60, 30]))
    assert jpeg == [worn, (pytest.approx([0, 4]), pytest.approx([80, 60]))]
    assert noise == [(pytest.approx([0, 3]), pytest.approx([90, 10]))]
    assert blur == [(pytest.approx([0, 2]), pytest.approx([80, 70]))]
    share = clustered_proportion([True] * 3 + [False] * 7, range(10))
    (low, high) = figure.axes[0].containers[0].lines[2][0].get_segments()[3][:, 1]
    assert (low, high) == (pytest.approx(100 * share.lower), pytest.approx(100 * share.upper))
    assert "severity" in words_of(figure) and "canvas 384x384" in words_of(figure)
    assert "a b" in words_of(figure), "a run without corruptions is left out"
    assert not drawn("corruptions", runs[2:])


def test_a_corruption_is_no_attack_in_a_ball(tmp_path: Path) -> None:
    """It has no place on an axis of eps, is never the strongest attack, and says nothing of image-blindness."""
    huge = "pgd:eps=1,steps=7"
    run = attacked(tmp_path / "a", WORN | {huge: 2})
    security = drawn("security", [run])["security-linf"]
    assert "ART SquareAttack" in words_of(security) and "corrupt" not in words_of(security)
    assert [points for points, _ in curves(security.axes[0])] == [
        pytest.approx([0, 4]),
        pytest.approx([0, 4]),
        pytest.approx([0, 255]),
    ]
    assert chosen(run) == (["clean", PGD, "art:SquareAttack,eps=4/255,max_iter=9", huge], [CORRUPTED])
    assert CORRUPTED in words_of(drawn("bars", [run])["accuracy-by-modality"])
    few = attacked(tmp_path / "b", {"clean": 9, corrupt("jpeg", 5): 3})
    assert chosen(few) == (["clean", corrupt("jpeg", 5)], [])
    records = [evaluated(i, name, i < n, question_type="Grade") for i in range(9) for name, n in WORN.items()]
    heat = drawn("heatmap", [run_of(tmp_path / "c", records, "evaluate", conditions=list(WORN))])
    assert titles(heat["accuracy-heatmap"])[1] == "strongest attack: PGD eps=4/255, steps=10"
    blind = {name: cell["image_blind"] for name, cell in numbers(run).overall.items()}
    assert {name for name, count in blind.items() if count is not None} == {huge}


# --- matrices --------------------------------------------------------------------------------------------------------


def cell_texts(axes: Axes) -> list[str]:
    return [text for text in texts(axes) if not text.startswith("of ")]


def test_heat_maps_say_share_and_n_and_na(tmp_path: Path) -> None:
    places = [("CT", "Disease Diagnosis")] * 3 + [("MRI", "Anatomy Identification")]
    records = [
        evaluated(i, condition, i < count, modality=m, question_type=t)
        for i, (m, t) in enumerate(places)
        for condition, count in {
            "clean": 2,
            "noise:eps=0.4": 0,
            PGD: 1,
            "fgsm:eps=4/255": 2,
            "pgd:eps=1,steps=10": 0,
        }.items()
    ]
    conditions = ["clean", "noise:eps=0.4", PGD, "fgsm:eps=4/255", "pgd:eps=1,steps=10"]
    run = run_of(tmp_path / "a", records, "evaluate", conditions=conditions)
    figure = drawn("heatmap", [run])["accuracy-heatmap"]
    clean, strongest, _ = figure.axes
    assert titles(figure)[:2] == ["clean", "strongest attack: PGD eps=4/255, steps=10"]
    assert texts(clean) == ["n/a", "66.7\u2020", "of 3", "0.0\u2020", "of 1", "n/a"]
    assert texts(strongest) == ["n/a", "33.3\u2020", "of 3", "0.0\u2020", "of 1", "n/a"]
    assert clean.images[0].get_clim() == (0, 100)
    assert [patch.get_hatch() for patch in clean.patches] == ["/////"] * 2
    dark, light = (next(t for t in axes.texts if t.get_text() == "0.0\u2020") for axes in (clean, strongest))
    assert dark.get_color() == light.get_color() == "white"
    assert next(t for t in clean.texts if t.get_text() == "66.7\u2020").get_color() == "#000000"


def test_certified_heat_maps_are_rounded_down(tmp_path: Path) -> None:
    votes = [1000, 990, 400]
    records = [certified(i, k, question_type="Disease Diagnosis") for i, k in enumerate(votes)]
    figure = drawn("heatmap", [run_of(tmp_path / "a", records, "certify")])["certified-heatmap"]
    assert titles(figure)[:2] == ["at radius 0", "at radius 0.25 (1 sigma)"]
    assert [texts(axes) for axes in figure.axes[:2]] == [["66.6\u2020", "of 3"]] * 2
    small = Smoothing(noise="float32", sigma=0.25, n=30)
    records = [certified(i, 30, smoothing=small, question_type="Disease Diagnosis") for i in range(3)]
    run = run_of(tmp_path / "b", records, "certify", smoothing=small)
    assert titles(drawn("heatmap", [run])["certified-heatmap"])[1] == "at radius 0.125 (0.5 sigma)"


def trained_on(
    folder: Path, modalities: Sequence[str], shares: dict[str, int], method: str = "sft", types: Sequence[str] = ()
) -> Run:
    """A checkpoint of some modalities (none: of all), tested on ten items of each."""
    trained = {"method": method, "data": "d", "modality": [name.casefold() for name in modalities]}
    names = {"trained": trained | {"question_type": list(types)}}
    records = [
        evaluated(10 * k + i, condition, i < count - (condition == PGD), modality=name)
        for k, (name, count) in enumerate(shares.items())
        for i in range(10)
        for condition in ("clean", PGD)
    ]
    return run_of(folder, records, "evaluate", conditions=["clean", PGD], names=names)


def test_the_matrix_of_modalities_has_8_x_8_cells_in_order(tmp_path: Path) -> None:
    rows = [[], *([name] for name in reversed(MODALITIES))]
    runs = [
        trained_on(tmp_path / str(k), row, {name: 10 if name in row else 1 + k for name in MODALITIES})
        for k, row in enumerate(rows)
    ]
    found = drawn("generalisation", runs)
    assert list(found) == ["generalisation-modality-clean", "generalisation-modality-pgd-eps-4-255-steps-10"]
    axes = found["generalisation-modality-clean"].axes[0]
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == [*MODALITIES, "all"]
    assert [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()] == [*MODALITIES, "mean"]
    grid = np.array(cell_texts(axes)).reshape(9, 9)
    assert list(np.diag(grid[:8, :8])) == ["100.0"] * 8
    assert grid[0, 1] == "90.0" and grid[8, 0] == "10.0"
    assert grid[1, 8] == "82.5" and grid[8, 8] == "10.0", "(100 + 7 * 80) / 8"
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == 8, "trained and tested on the same"
    under = found["generalisation-modality-pgd-eps-4-255-steps-10"]
    assert np.array(cell_texts(under.axes[0])).reshape(9, 9)[0, 0] == "90.0"
    assert "under PGD eps=4/255, steps=10" in words_of(under)


def test_a_matrix_needs_two_rows_of_one_method(tmp_path: Path) -> None:
    shares = {"CT": 9, "MRI": 5}
    ct, mri = trained_on(tmp_path / "ct", ["CT"], shares), trained_on(tmp_path / "mri", ["MRI"], shares)
    assert not drawn("generalisation", [ct])
    base = attacked(tmp_path / "base", {"clean": 8, PGD: 7})
    two = trained_on(tmp_path / "two", ["CT", "MRI"], shares)
    both = trained_on(tmp_path / "both", ["CT"], shares, types=["disease diagnosis"])
    assert not drawn("generalisation", [ct, base, two, both]), "no row of the matrix of modalities"
    other = [trained_on(tmp_path / f"at{m}", [m], shares, method="at-sft") for m in ("CT", "MRI")]
    assert [stem for stem in drawn("generalisation", [ct, mri, *other]) if "clean" in stem] == [
        "generalisation-modality-sft-clean",
        "generalisation-modality-at-sft-clean",
    ]
    again = drawn("generalisation", [ct, trained_on(tmp_path / "seed 2", ["CT"], shares)])
    labels = again["generalisation-modality-clean"].axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["CT (ct)", "CT (seed 2)"]


def test_a_mean_over_cells_that_are_not_known_is_na(tmp_path: Path) -> None:
    runs = [
        trained_on(tmp_path / "a", ["CT"], {"CT": 9, "MRI": 5}),
        trained_on(tmp_path / "b", ["MRI"], {"CT": 9}),
    ]
    axes = drawn("generalisation", runs)["generalisation-modality-clean"].axes[0]
    assert cell_texts(axes) == ["90.0", "50.0", "70.0", "90.0", "n/a", "n/a"]


def test_the_matrix_of_question_types(tmp_path: Path) -> None:
    runs = []
    for k, name in enumerate(QUESTION_TYPES):
        names = {"trained": {"method": "grpo", "data": "d", "modality": [], "question_type": [name.casefold()]}}
        records = [evaluated(i, "clean", True, question_type=t) for i, t in enumerate(QUESTION_TYPES)]
        runs.append(run_of(tmp_path / str(k), records, "evaluate", conditions=["clean"], names=names))
    axes = drawn("generalisation", runs)["generalisation-question-type-clean"].axes[0]
    assert np.array(cell_texts(axes)).reshape(5, 6).tolist() == [[*["100.0\u2020"] * 5, "100.0"]] * 5


# --- histogram and panel ---------------------------------------------------------------------------------------------


def voted(number: int, condition: str, outcome: str) -> dict[str, Any]:
    """An item that the smoothed model answers rightly, wrongly, or not clearly."""
    votes = {"right": [0, 100, 0, 0], "wrong": [100, 0, 0, 0], "unclear": [48, 52, 0, 0]}[outcome]
    found = read_prediction(tuple(votes), 0.001)
    return evaluated(number, condition, outcome == "right", votes=votes, **vars(found))


def test_the_gap_lies_between_what_is_proved_and_what_attacks_leave(tmp_path: Path) -> None:
    """Unclear votes count as right under attack; another sigma, or another model, is another smoothed model."""
    conditions, outcomes = ["clean", "pgd:eps=0.25,norm=l2,steps=10", "pgd:eps=4/255,steps=10"], ["right", "unclear"]
    records = [voted(i, "clean", "right") for i in range(4)]
    records += [voted(i, conditions[1], outcome) for i, outcome in enumerate([*outcomes, "wrong", "wrong"])]
    records += [voted(i, conditions[2], "wrong") for i in range(4)]
    spec = {"smooth": vars(Voting(noise="float32", sigma=0.25))}
    attacked = run_of(tmp_path / "attacked", records, "evaluate", conditions=conditions, spec=spec)
    (figure,) = drawn("gap", [four(tmp_path / "certified"), attacked]).values()
    (axes,) = figure.axes
    curve, points = axes.lines[0], axes.containers[0][0]
    assert curve.get_xdata() == pytest.approx([0, R990, CEILING])
    assert curve.get_ydata() == pytest.approx([50, 50, 25])
    assert list(points.get_xdata()) == pytest.approx([0, 0.25])
    assert list(points.get_ydata()) == pytest.approx([100, 50])
    other = {"smooth": vars(Voting(noise="float32", sigma=0.5))}
    for name, changes in {"sigma": {"spec": other}, "model": {"spec": spec, "weights": "x"}, "plain": {}}.items():
        plain = [evaluated(i, c, True) for c in conditions for i in range(4)] if name == "plain" else records
        run = run_of(tmp_path / name, plain, "evaluate", conditions=conditions, **changes)
        assert not drawn("gap", [four(tmp_path / f"{name} certified"), run])


def test_an_item_that_failed_under_attack_proves_nothing_in_the_gap(tmp_path: Path) -> None:
    """Certified 50 %; the attack failed on half of the items, and turned the others: 50 % may be left, not 0."""
    conditions = ["clean", "pgd:eps=0.25,norm=l2,steps=10"]
    lost = dict.fromkeys(("prediction", "votes", "p_value", "abstained", "log_probs")) | {"error": "broken"}
    records = [voted(i, "clean", "right") for i in range(4)]
    records += [voted(i, conditions[1], "wrong") | (lost if i < 2 else {}) for i in range(4)]
    spec = {"smooth": vars(Voting(noise="float32", sigma=0.25))}
    attacked = run_of(tmp_path / "attacked", records, "evaluate", conditions=conditions, spec=spec)
    (gap,) = gaps_of([four(tmp_path / "certified"), attacked])
    ((_, point),) = gap.families.values()
    assert point.certified is not None and (point.left.estimate, point.certified.estimate) == (0.5, 0.5)


def test_the_histogram_counts_every_item_once(tmp_path: Path) -> None:
    records = [
        *(certified(i, 1000) for i in range(3)),
        *(certified(i, 990) for i in range(3, 5)),
        certified(5, 1000, chosen=0),
        certified(6, 501),
        certified(7, 400),
        certified(8, 1000, chosen=3),
        certified(9, 1000, chosen=3),
        failed(10),
    ]
    figure = drawn("radius", [run_of(tmp_path / "a", records, "certify")])["radius-histogram"]
    left, right = figure.axes
    good, bad = ([patch.get_height() for patch in bars] for bars in left.containers)
    assert good[-1] == 3 and sum(good) == 5 and bad[-1] == sum(bad) == 1
    assert good[int(R990 / CEILING * 20)] == 2
    assert left.patches[19].get_x() + left.patches[19].get_width() == pytest.approx(CEILING)
    assert [patch.get_height() for patch in right.patches] == [2, 2, 1]
    assert [label.get_text() for label in right.get_xticklabels()] == ["abstained", "no answer won", "failed"]
    assert sum(good) + sum(bad) + sum(patch.get_height() for patch in right.patches) == len(records)
    assert left.get_title(loc="left") == "a (11 items)" and "1 of 11 items failed" in words_of(figure)


QUESTION = "Is $x^2$ > \\alpha \u202e\x00 \u80ba \U0001f9e0?"


@pytest.fixture
def pictured(tmp_path: Path) -> Run:
    """Eight items with kept images: odd ones turn wrong, 6 gets no answer, 7's clean record is missing."""
    asked = {"question": QUESTION, "options": ["$5 & $6", "liver", "x" * 200], "label": 1}
    records = [evaluated(i, "clean", True, **asked) for i in range(7)]
    records += [evaluated(i, PGD, i in (0, 2, 4), **asked) for i in range(8)]
    records[7 + 6]["prediction"] = None
    out = write_run(tmp_path / "kept", records, "evaluate", conditions=["clean", PGD])
    question = Question(text="?", options=("a", "b"))
    items = [Item(id=f"i{i}", question=question, label=1, image="", root=tmp_path) for i in range(8)]
    keep = Keeper(out, items, len(items), quantized=False)
    clean = torch.full((3, 6, 8), 102 / 255)
    for item in items:
        keep(item, PGD, clean, clean + 4 / 255)
    return Run.read(out)


def test_attacked_items_those_that_turned_wrong_first(pictured: Run) -> None:
    figure = drawn("attacked_items", [pictured])["attacked-items-pgd-eps-4-255-steps-10"]
    assert len(figure.axes) == 4 * 6
    told = [texts(axes) for axes in figure.axes[3::4]]
    assert [lines[0] for lines in told] == ["CT, i1", "CT, i3", "CT, i5", "CT, i6", "CT, i0", "CT, i2"]
    first, silent, right = told[0], told[3], told[4]
    assert first[1] == "Is $x^2$ > \\alpha \ufffd\ufffd \ufffd \ufffd?"
    assert first[2:4] == ["A  $5 & $6", "B  liver  \u2713 gold"] and first[4].endswith("\u2026")
    assert first[5:] == ["clean: B  liver", "attacked: A  $5 & $6  \u2717"]
    assert silent[-1] == "attacked: no answer  \u2717" and right[-1] == "attacked: B  liver"


def test_the_change_is_magnified_by_the_factor_that_is_written(pictured: Run) -> None:
    figure = drawn("attacked_items", [pictured])["attacked-items-pgd-eps-4-255-steps-10"]
    assert titles(figure)[:3] == ["clean", "change \u00d7 30", "attacked"], "31.9 is the most that 4/255 allows"
    clean, change, shown = (np.asarray(axes.images[0].get_array(), dtype=float) for axes in figure.axes[:3])
    assert clean == pytest.approx(np.full((6, 8, 3), 102 / 255), abs=1e-6)
    assert change == pytest.approx(np.full((6, 8, 3), 0.5 + 30 * 4 / 255), abs=1e-5)
    assert shown == pytest.approx(np.full((6, 8, 3), 106 / 255), abs=1e-6)
    assert figure.axes[0].images[0].get_interpolation() == "nearest"
    assert "magnified by 30" in words_of(figure)


def test_a_record_without_its_clean_one_is_na(pictured: Run) -> None:
    lines = (pictured.out / "records.jsonl").read_text().splitlines()
    (pictured.out / "records.jsonl").write_text("\n".join(line for line in lines if '"i7"' in line) + "\n")
    figure = drawn("attacked_items", [Run.read(pictured.out)])["attacked-items-pgd-eps-4-255-steps-10"]
    assert texts(figure.axes[3])[-2:] == ["clean: n/a  \u2717", "attacked: A  $5 & $6  \u2717"]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_runs_give_the_same_files(tmp_path: Path, pictured: Run) -> None:
    runs = [four(tmp_path / "a"), attacked(tmp_path / "b", {"clean": 9, PGD: 3}), pictured]
    before = dict(matplotlib.rcParams)
    written = draw_all(runs, tmp_path / "one" / "figures")
    again = draw_all(runs, tmp_path / "two")
    assert dict(matplotlib.rcParams) == before, "the settings of others"
    assert [file.name for file in written] == [file.name for file in again]
    assert written[0].name == "attacked-items-pgd-eps-4-255-steps-10-toy.png"
    assert {file.stem for file in written} == {file.stem for file in (tmp_path / "two").glob("*.pdf")}
    for one, two in zip(written, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
        pdf = one.with_name(f"{one.name.removesuffix('.png')}.pdf").read_bytes()
        assert pdf == two.with_name(f"{two.name.removesuffix('.png')}.pdf").read_bytes()
        assert b"CreationDate" not in pdf and b"/Type3" not in pdf and b"/FontFile2" in pdf


@pytest.mark.parametrize("command", ["evaluate", "certify"])
def test_an_empty_run_has_no_figure(tmp_path: Path, command: str) -> None:
    empty = run_of(tmp_path / "a", [], command, items=40)
    assert draw_all([empty], tmp_path / "out") == [] and not list((tmp_path / "out").iterdir())
    assert draw_all([], tmp_path / "none") == []


def test_runs_that_failed_or_stopped_are_drawn_and_say_so(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "c", [failed(i) for i in range(6)], "certify"),
        run_of(
            tmp_path / "e",
            [evaluated(i, a, False, prediction=None, error="x", question_type="t") for i in range(6) for a in ATTACKS],
            "evaluate",
        ),
        run_of(tmp_path / "u", [evaluated(i, "clean", True) for i in range(6)], "evaluate", items=9),
    ]
    found = {stem: figure for kind in kinds() for stem, figure in drawn(kind, runs).items()}
    assert not {"certified", "certified-by-modality", "security-linf-e"} & {*found}, "nothing was measured"
    assert "c: every item failed, and nothing was measured." in words_of(found["radius-histogram"])
    bars = words_of(found["accuracy-by-modality"])
    assert "e: every item failed under clean, and nothing was measured." in bars
    assert "u: not finished: 21 of 27 records are missing, and the numbers will change." in bars
    assert texts(found["accuracy-by-modality"].axes[0]).count("failed") == 6
    assert not found["accuracy-by-modality"].axes[0].patches
    assert texts(found["accuracy-by-modality"].axes[1]).count("n/a") == 4
    assert "failed" in texts(found["accuracy-heatmap-e"].axes[0])


def test_text_of_data_is_shown_as_it_is_and_strange_characters_do_no_harm(tmp_path: Path) -> None:
    odd = "_$\\frac{1}$ \u80ba\n\x1b[31m \U0001f9e0 " + "very long " * 9
    slices = {"modality": odd, "question_type": "\u0627\u0644 & $"}
    records = [certified(i, 990, **slices) for i in range(6)]
    more = [evaluated(i, a, i > 2, **slices) for i in range(6) for a in ATTACKS]
    names = {"trained": {"method": odd, "data": "d", "modality": [], "question_type": []}}
    one = dict(names["trained"], modality=[odd.casefold()])
    runs = [
        run_of(tmp_path / "c", records, "certify", name=odd, sampled=odd),
        run_of(tmp_path / "e", more, "evaluate", name=odd, names=names),
        run_of(tmp_path / "f", more, "evaluate", name=odd + "2", names={"trained": one}),
    ]
    found = [stem for kind in kinds() for stem in drawn(kind, runs)]
    assert {stem.split("-")[0] for stem in found} >= {"accuracy", "certified", "generalisation", "radius", "security"}
    assert plain("a\n b\t\u00a0c \ud800") == "a b c \ufffd" and plain("abcdef", 4) == "abc\u2026"


def test_neither_pyplot_nor_the_command_line_imports_more_than_it_must(tmp_path: Path) -> None:
    out = four(tmp_path / "a").out
    code = (
        "import sys; import safemed_eval.cli; print('matplotlib' in sys.modules);"
        "from pathlib import Path; from safemed_eval.report.figures import draw_all;"
        "from safemed_eval.report import read_all;"
        f"draw_all(read_all([{str(out)!r}]), Path({str(tmp_path / 'o')!r}));"
        "print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_models_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    records = [certified(i, 990, question_type="Disease Diagnosis") for i in range(5)]
    for name in ("x", "y"):
        write_run(tmp_path / name, records, "certify", names={"model": "a/b"})
    runs = read_all([str(tmp_path / "x"), str(tmp_path / "y")])
    found = drawn("heatmap", runs)
    assert list(found) == ["certified-heatmap-b-float32-sigma-0.25-x", "certified-heatmap-b-float32-sigma-0.25-y"]
    assert json.loads((tmp_path / "x/run.json").read_text())["names"]["model"] == "a/b"


# --- plug-ins --------------------------------------------------------------------------------------------------------


def overview(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """The figure of a plug-in."""
    for run in runs:
        if run.kind == "evaluate":
            figure = Figure(figsize=(3.35, 2.3), layout="constrained")
            figure.add_subplot().bar(*zip(*run.accuracy().drop(columns="n").loc["all"].items(), strict=True))
            yield f"overview-{run.name}", figure


def test_a_plug_in_adds_a_kind_of_figure(plugged: Callable[[str], None], tmp_path: Path) -> None:
    plugged("test_figures:overview")
    assert "overview" in kinds() and kinds() == sorted(kinds())
    run = attacked(tmp_path / "a", {"clean": 9, PGD: 3})
    written = draw_all([run, four(tmp_path / "c")], tmp_path / "out")
    assert "overview-a.png" in [file.name for file in written] and (tmp_path / "out" / "overview-a.pdf").exists()
    (figure,) = drawn("overview", [run]).values()
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([0.9, 0.3])


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_notebook_sees_bars_or_a_curve_in_the_look_of_a_report(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    bars = attacked(tmp_path / "a", {"clean": 9, PGD: 3}).plot()
    assert [bar.get_height() for bar in bars.axes[0].patches] == pytest.approx([90, 30])
    bounds = clustered_proportion([True] * 9 + [False], range(10))
    low, high = bars.axes[0].containers[1].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(100 * bounds.lower), pytest.approx(100 * bounds.upper))
    axes = four(tmp_path / "c").plot().axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([0, R990, CEILING])
    assert axes.lines[0].get_ydata() == pytest.approx([50, 50, 25])
    for figure in (bars, axes.figure):
        assert figure.axes[0].title.get_fontsize() == SIZE and to_hex(figure.axes[0].lines[0].get_color()) != "#1f77b4"
    assert "n/a" in texts(run_of(tmp_path / "f", [failed(0)], "certify").plot().axes[0])
    assert dict(matplotlib.rcParams) == before, "the settings of others"
