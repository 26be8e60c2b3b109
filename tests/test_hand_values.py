"""Values of small functions that are worked out by hand or by a plain formula, and bounds at which they change."""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from synthetic import certified, evaluated, write_run

from safemed_eval.api import check_model
from safemed_eval.attacks._common.ascent import SURE, Goal, probability_margin
from safemed_eval.attacks._common.problem import Contained
from safemed_eval.attacks.corrupt.own import bias
from safemed_eval.attacks.corrupt.transforms import saturate, stain_deposit
from safemed_eval.codec import decode
from safemed_eval.core import Question
from safemed_eval.data import Audit, Canvas
from safemed_eval.errors import CheckpointError, RunError, SpecError
from safemed_eval.models import find_model
from safemed_eval.models.answers import parse
from safemed_eval.models.answers.reading import thought_end
from safemed_eval.models.checkpoints.prompts import Asking, read_template
from safemed_eval.models.files.contents import shards
from safemed_eval.models.finite import refuse_not_finite
from safemed_eval.models.toy import Brightness
from safemed_eval.paired import cautious_upper
from safemed_eval.report import Run
from safemed_eval.report.analyses.selective import _influence
from safemed_eval.report.analyses.subgroups import _correlation
from safemed_eval.report.compare import compare
from safemed_eval.report.compare.output import sentences
from safemed_eval.report.findings.degenerate import NOTABLE, degenerate
from safemed_eval.report.page.cells import certified_row
from safemed_eval.report.page.provenance import facts_of
from safemed_eval.report.page.remarks import _named
from safemed_eval.report.run import _row
from safemed_eval.report.summary import Certified
from safemed_eval.rounding import ceil_to, floor_to
from safemed_eval.runs.ray.cluster import places
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord
from safemed_eval.runs.spec import EvaluateSpec
from safemed_eval.runs.work.units import Fit
from safemed_eval.smoothing import DonorVote, Falsification, Float32, Noise, Patch
from safemed_eval.smoothing.claims import judge
from safemed_eval.smoothing.noise import FileView, View
from safemed_eval.smoothing.noise import parse as parse_noise
from safemed_eval.smoothing.options import MAX_DRAWS
from safemed_eval.stats import effective_size
from safemed_eval.threat import border_width, spelled_region
from safemed_eval.train import recipe_of
from safemed_eval.train._vllm import read_vllm
from safemed_eval.train.log import read_log
from safemed_eval.train.make import _refuse_wide_band
from safemed_eval.train.watch.held_out import check_attack
from safemed_eval.train.watch.settings import Validation

# ------------------------------------------------------------------------------------------------------------- paired


def upper_by_loops(sums: Sequence[float], sizes: Sequence[float], level: float) -> float:
    """The bound as its docstring words it: one more cluster, as large as the largest, is lost as a whole."""
    clusters = [*zip(sums, sizes, strict=True), (max(sizes), max(sizes))]
    n, c = sum(size for _, size in clusters), len(clusters)
    mean = sum(total for total, _ in clusters) / n
    residuals = [total - mean * size for total, size in clusters]
    second, third = (sum(residual**power for residual in residuals) for power in (2, 3))
    freedom = n**2 / sum(size**2 for _, size in clusters) - 1
    t = scipy_stats.t.isf(level, max(1.0, freedom))
    error = math.sqrt(c / (c - 1) * second) / n
    return mean + t * error + (t**2 - 1) / 6 * third / second / n


@pytest.mark.parametrize(
    ("sums", "sizes"),
    [([1, -1, 0, 2], [2, 3, 1, 4]), ([0, 0, 0], [1, 1, 1]), ([5, 1, 1, 1, 1, -1], [9, 1, 1, 1, 1, 1]), ([1], [1.5])],
)
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_cautious_bound_is_the_formula(sums: list[float], sizes: list[float], level: float) -> None:
    found = float(cautious_upper(np.array(sums, float), np.array(sizes, float), level=level))
    assert found == pytest.approx(upper_by_loops(sums, sizes, level), rel=1e-9)


def test_counts_of_the_cautious_bound_are_repetitions() -> None:
    sums, sizes, counts = np.array([1.0, -1.0, 0.0]), np.array([1.0, 2.0, 1.0]), np.array([3.0, 2.0, 4.0])
    found = cautious_upper(sums, sizes, level=0.05, counts=counts)
    times = counts.astype(int)
    assert float(found) == pytest.approx(upper_by_loops(np.repeat(sums, times), np.repeat(sizes, times), 0.05))


@pytest.mark.parametrize("further", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (4, 1, 1, 1, 1)])
def test_the_effective_size_is_the_formula(further: float, sizes: tuple[int, ...]) -> None:
    """n / deff with one further cluster as large as the largest, shrunk by the squared ratio of t quantiles."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    values = (codes % 2).astype(float)  # clusters agree within
    clusters = [list(values[codes == code]) for code in range(len(sizes))] + [[further] * max(sizes)]
    every = [value for cluster in clusters for value in cluster]
    n, c, mean = len(every), len(clusters), sum(every) / len(every)
    robust = c / (c - 1) * sum(sum(value - mean for value in cluster) ** 2 for cluster in clusters) / n**2
    plain = sum((value - mean) ** 2 for value in every) / n / (n - 1)
    freedom = max(1.0, n**2 / sum(len(cluster) ** 2 for cluster in clusters) - 1)
    shrink = (scipy_stats.t.isf(0.025, n - 1) / scipy_stats.t.isf(0.025, freedom)) ** 2
    expected = n * plain / robust * shrink
    assert expected < len(values)
    assert effective_size(values, codes, further=further) == pytest.approx(expected)


def test_the_bound_is_the_mean_where_all_clusters_agree() -> None:
    """Everything is lost: no residual, and no skewness to divide by."""
    assert float(cautious_upper(np.array([2.0, 3.0]), np.array([2.0, 3.0]), level=0.05)) == 1


# -------------------------------------------------------------------------------------------------------------- report


def test_brier_scores_by_hand(tmp_path: Path) -> None:
    """(0.5, 0.3, 0.2) for the second option: 0.25 + 0.49 + 0.04; log-probabilities count up to a constant."""
    logs = [math.log(p) for p in (0.5, 0.3, 0.2)]
    records = [
        evaluated(0, "clean", False, log_probs=logs),
        evaluated(1, "clean", False, log_probs=[x - 7 for x in logs]),
        evaluated(2, "clean", True, log_probs=None),
    ]
    rows = Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=["clean"])).rows
    assert rows.briers[:2] == pytest.approx([0.78, 0.78]) and math.isnan(rows.briers[2])
    assert rows.confidences[:2] == pytest.approx([0.5, 0.5]) and math.isnan(rows.confidences[2])


@pytest.mark.parametrize(("right", "told"), [(11, True), (12, False)])
def test_chance_and_a_notable_share_more_is_no_chance(tmp_path: Path, right: int, told: bool) -> None:
    """Of 20 answers to questions with two options, 11 right cannot be told from chance; 12 are exactly 0.1 more."""
    assert 0.5 + NOTABLE == 12 / 20
    records = [evaluated(i, "clean", i < right, options=["a", "b"], log_probs=[-1.0, -1.0 - i]) for i in range(20)]
    run = Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=["clean"]))
    assert any("cannot be told from chance" in sign for sign in degenerate(run)) == told


def test_rows_that_trl_does_not_look_at_are_the_first_of_their_batch() -> None:
    """Two batches of two rows, each shown in two steps: the second step of a batch repeats its first row."""
    trainers = pytest.importorskip("safemed_eval.train._trainers", reason="TRL is in the train extra")

    class Order(list[int]):
        batch_size, mini_repeat_count, repeat_count = 2, 1, 2

    order = Order([4, 5, 4, 5, 6, 7, 6, 7])
    once = trainers._Once(order)
    assert list(once) == [4, 5, 4, 4, 6, 7, 6, 6] and len(once) == 8


def test_the_share_of_wrong_certificates(tmp_path: Path) -> None:
    """One of four answers certified for a wrong option is 25.0 %."""
    records = [certified(i, 990, chosen=2 if i == 0 else 1) for i in range(4)]
    run = Run.read(write_run(tmp_path / "a", records, "certify"))
    numbers = run.numbers(None)["all"]
    assert isinstance(numbers, Certified)
    assert certified_row(run, numbers, [], with_radius=False)[2].text == "25.0"


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.7])
def test_saturation_is_that_of_the_colour_system(shift: float) -> None:
    pixels = [(0.5, 0.5, 0.5), (0.8, 0.2, 0.4), (0.1, 0.9, 0.3), (0.0, 0.0, 0.0), (0.3, 0.3, 0.9), (1.0, 0.0, 0.0)]
    image = torch.tensor(pixels, dtype=torch.float64).T.reshape(3, 1, -1)
    expected = []
    for pixel in pixels:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb(hue, min(1.0, saturation + shift), value))
    found = saturate(image, torch.Generator(), shift).reshape(3, -1).T
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("sft", {"keep": 0}, "keep must be at least 1, got 0"),
        ("sft", {"samples": -1}, "samples must be at least 0, and at most 16, got -1"),
        ("sft", {"samples": 17}, "samples must be at least 0, and at most 16, got 17"),
        ("sft", {"loader_workers": 257}, "loader_workers must be in 0 to 256, got 257"),
        ("sft", {"lora": "r=0"}, "r and alpha must be at least 1"),
        ("sft", {"ablate": "band=0"}, "band"),
        ("sft", {"ablate": "band=8,share=0"}, "share"),
        ("at-sft", {"attack_share": 0.0}, "share of attacked rows"),
        ("at-sft", {"eps_warm_up": 1.1}, "warm_up is a share"),
        ("grpo", {"group_size": 1}, "at least 2 completions"),
        ("grpo", {"resample_agreeing": 101}, "resample_agreeing must be in 0 to 100, got 101"),
        ("denoiser", {"sigma": 0.25, "mse_share": 1.1}, "mse_share is a share"),
        ("denoiser", {"sigma": 0.25, "width": 4097}, "width must be at least 1, and at most 4,096, got 4097"),
    ],
)
def test_recipes_just_beyond_their_bounds(method: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        recipe_of(method, **options)


def test_recipes_at_their_bounds() -> None:
    recipe_of("sft", keep=1, samples=0, loader_workers=256, lora="r=1,alpha=1", ablate="band=1,share=1")
    recipe_of("at-sft", attack_share=1.0, eps_warm_up=1.0)
    recipe_of("grpo", group_size=2, batch_size=2, resample_agreeing=100)
    recipe_of("denoiser", sigma=0.25, mse_share=1.0, width=4096)


def test_radii_of_a_file_and_of_its_canvas() -> None:
    """A change of the file of length d moves the canvas by ||R|| d, and both canvases are rounded to the lattice."""
    file = FileView(height=4, width=5, norm=2.0, gain=0.5)
    view = View(height=8, width=8, file=file)
    rounding = math.sqrt(3 * 8 * 8) / (4096 * 255)
    assert view.rounding == pytest.approx(rounding, rel=1e-5) and view.rounding > rounding
    assert view.on_canvas(0.25) == pytest.approx(0.5 + view.rounding) and view.on_canvas(0.0) == 0
    assert view.from_canvas(view.on_canvas(0.25)) == pytest.approx(0.25) and view.from_canvas(rounding / 2) == 0
    assert view.in_stored_values(0.25) == pytest.approx(255 * 0.25 / (math.sqrt(3) * 0.5))
    plain = View(height=8, width=8)
    assert (plain.rounding, plain.on_canvas(0.25), plain.from_canvas(0.25)) == (0, 0.25, 0.25)
    assert plain.in_stored_values(0.25) is None


@pytest.mark.parametrize("k", [990, 300])
def test_frames_of_a_file_have_the_radius_on_the_canvas(tmp_path: Path, k: int) -> None:
    view = {"height": 384, "width": 384, "file": {"height": 200, "width": 100, "norm": 2.0, "gain": None, "cut": None}}
    record = decode(CertifyRecord, certified(0, k, view=view), "x")
    row = _row(record)
    if record.radius is None:
        assert math.isnan(row["canvas_radius"]) and row["stored_radius"] is None
    else:
        assert row["canvas_radius"] == pytest.approx(2 * record.radius, rel=1e-3) and row["stored_radius"] is None


def test_names_before_a_remark() -> None:
    a, b, c = (SimpleNamespace(name=name, kind=kind) for name, kind in (("a", "x"), ("b", "x"), ("c", "y")))
    assert _named([a, b], [a, b]) == "All runs" and _named([a, b], [a, b, c]) == "All runs of x"
    assert _named([a], [a, b]) == "a (x)" and _named([a, c], [a, b, c]) == "a, c"


@pytest.mark.parametrize(
    ("address", "workers", "device", "there", "expected"),
    [
        ("local", None, "cpu", {"CPU": 9}, (4, 2, False)),
        ("local", None, "auto", {"CPU": 1}, (1, 1, False)),
        ("local", 3, "auto", {"CPU": 2}, (3, 1, False)),
        ("local", 2, "cpu", {"CPU": 8, "GPU": 4}, (2, 4, False)),
        ("local", None, "auto", {"CPU": 9, "GPU": 2}, (2, 4, True)),
        ("local", 1, "cuda", {"CPU": 1, "GPU": 2}, (1, 1, True)),
        ("h:1", 3, "cuda", {"CPU": 8}, (3, None, True)),
        ("h:1", 5, "auto", {"CPU": 8, "GPU": 2}, (5, 4, True)),
        ("local", None, "auto", {}, (1, 1, False)),
    ],
)
def test_workers_and_their_threads(
    address: str, workers: int | None, device: str, there: dict[str, float], expected: tuple[int, int | None, bool]
) -> None:
    found = places(address, workers, device, there)
    assert (found.workers, found.threads, found.gpu) == expected
    of_cpus = 0 if address == "local" else 1 if found.gpu else found.threads
    assert (found.options["num_cpus"], found.options["num_gpus"]) == (of_cpus, int(found.gpu))


@pytest.mark.parametrize(
    ("address", "workers", "words"), [("local", None, "no GPU"), ("h:1", None, "waits until"), ("local", 3, "no GPU")]
)
def test_workers_without_a_gpu(address: str, workers: int | None, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        places(address, workers, "cuda", {"CPU": 8})
    with pytest.raises(SpecError, match="this machine has 2 GPUs"):
        places("local", 3, "auto", {"CPU": 8, "GPU": 2})


def test_words_for_a_contrast() -> None:
    half, other = (parse_noise(f"contrast{grey}", 0.2) for grey in ("", ":grey=0.25"))
    assert "window width between" in str(half.words(0.1)) and "window" not in str(other.words(0.1))
    assert other.words_on_window(0.1, 40, 400) is None
    assert half.words_on_window(math.log(2), 40, 400) == "a width between 200 and 800"


def test_correlations_of_groups_are_negative_or_none() -> None:
    assert _correlation(np.array([1.0, -1.0]), np.array([-2.0, 1.0])) == pytest.approx(-3 / math.sqrt(2 * 5))
    assert _correlation(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == 0
    assert _correlation(np.zeros(2), np.array([2.0, 1.0])) == 0


def test_the_largest_patch_is_at_most_as_wide_as_the_canvas() -> None:
    """Bands of 2 columns, one at each of 8: s columns meet s + 1 of them, all 8 from s = 7 on."""
    patch, view = Patch(size=1, band=2, stride=1), View(height=8, width=8)
    assert [patch.met(size, 8) for size in (0, 1, 6, 7, 8)] == [0, 2, 7, 8, 8]
    assert [patch.largest(lead, view) for lead in (0, 3, 4, 5, 15, 16, 99)] == [0, 0, 1, 1, 6, 8, 8]


def test_a_bias_field_reaches_both_ends() -> None:
    image = torch.full((3, 16, 20), 0.5)
    factors = bias(image, 0.3, torch.Generator().manual_seed(0)) / image
    assert float(factors.min()) == pytest.approx(math.exp(-0.3), rel=1e-5)
    assert float(factors.max()) == pytest.approx(math.exp(0.3), rel=1e-5)


def test_the_influence_of_an_item_on_the_area_is_the_sum() -> None:
    """The risk where the item is taken in, and what its error, less the risk, adds to each later one."""
    rng = np.random.default_rng(0)
    confidences, wrong = rng.permutation(np.linspace(0, 1, 12)), rng.random(12) < 0.4
    order = list(np.argsort(-confidences))
    risks = [sum(bool(wrong[item]) for item in order[: k + 1]) / (k + 1) for k in range(12)]
    expected = [
        risks[order.index(item)] + sum((wrong[item] - risks[k]) / (k + 1) for k in range(order.index(item), 12))
        for item in range(12)
    ]
    assert _influence(confidences, wrong) == pytest.approx(expected)


@pytest.mark.parametrize(("items", "words"), [(4, "no drop, however large,"), (80, "a drop of ")])
def test_what_a_comparison_could_have_found(tmp_path: Path, items: int, words: str) -> None:
    runs = [
        write_run(
            tmp_path / name,
            [evaluated(i, "clean", i >= wrong) for i in range(items)],
            "evaluate",
            conditions=["clean"],
            weights=name,
        )
        for name, wrong in (("a", 1), ("b", 2))
    ]
    assert any(words in sentence for sentence in sentences(compare(*runs)))


def test_a_deterministic_model_is_not_said_to_drift() -> None:
    found = check_model(Brightness(), canvas="16x16")
    assert len(found) > 4 and not [finding for finding in found if "will not repeat" in finding.detail]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_counted(dtype: torch.dtype, value: float) -> None:
    module = torch.nn.Linear(3, 2).to(dtype)
    refuse_not_finite(module, "x")
    with torch.no_grad():
        module.weight[0, 1] = value
    with pytest.raises(CheckpointError, match="x: 1 of 6 values of the weight weight are NaN or infinite"):
        refuse_not_finite(module, "x")


@pytest.mark.parametrize(("images", "fits"), [(0, True), (5, True), (-1, False), (6, False)])
def test_as_many_images_overlap_as_there_are(tmp_path: Path, images: int, fits: bool) -> None:
    overlap = {"images": images, "of": 5, "items": 7, "unknown": []}
    records = [evaluated(i, "clean", True) for i in range(2)]
    run = write_run(tmp_path / "a", records, "evaluate", conditions=["clean"], overlap=overlap)
    if fits:
        assert Run.read(run).meta.overlap == overlap
    else:
        with pytest.raises(RunError, match="overlap cannot be"):
            Run.read(run)


def test_slack_of_the_sampler_lowers_what_is_claimed() -> None:
    noise, view, asked = parse_noise("gaussian", 0.25), View(height=512, width=512), Falsification(n=100, alpha=0.01)
    assert isinstance(noise, Noise) and noise.slack(view) > 0
    found = judge(noise, asked, 30, 10, p_lower=0.9, radius=0.25, distance=0.1, view=view, classes=4)
    share = noise.probability_left(noise.probability_needed(0.25, view), 0.25, 0.1, view)
    assert share - found.claimed == pytest.approx(8 * noise.slack(view), rel=1e-6)


@pytest.mark.parametrize(("text", "end"), [("</think>B", 8), ("B", 0), ("a</think>b</think>", 18), ("<think>a", 0)])
def test_where_a_thought_ends(text: str, end: int) -> None:
    assert thought_end(text) == end


def test_facts_of_a_model_that_are_known(tmp_path: Path) -> None:
    records = [evaluated(i, "clean", True) for i in range(2)]
    about = {"device": None, "prompt": "P", "architecture": "Net"}
    run = Run.read(write_run(tmp_path / "a", records, "evaluate", conditions=["clean"], model=about))
    names = [fact.name for fact in facts_of(run)]
    assert "architecture" in names and not {"device", "prompt"} & set(names)


@pytest.mark.parametrize("text", ["memory=0", "memory=1", "memory=-0.1", "context=0", "tensor_parallel=0"])
def test_bounds_of_vllm(text: str) -> None:
    with pytest.raises(SpecError, match=r"in \(0, 1\)|must be at least 1"):
        read_vllm(f"colocate:{text}")
    read_vllm("colocate:memory=0.99,context=1,tensor_parallel=1")


def test_words_for_a_brightness_round_to_the_weaker_claim() -> None:
    noise = parse_noise("brightness", 0.1)
    assert noise.words_on_window(0.123, 40, 401) == "a centre between -9.3 and 89.3"  # 40 -+ 49.323


def test_what_a_codec_says_of_a_field_that_is_not_there() -> None:
    with pytest.raises(RunError, match=r"^x: .* has no |^x has no "):
        decode(EvaluateSpec, {}, "x")
    with pytest.raises(RunError, match=r"record: log_probs cannot be \[None\]"):
        decode(EvaluateRecord, evaluated(0, "clean", True, log_probs=[None]), "record")


def test_an_attack_on_thoughts_needs_a_template_with_one() -> None:
    canvas, attack = Canvas(size=(64, 64)), "adaptive:eps=4/255"
    with pytest.raises(SpecError, match="is for models that write a thought"):
        check_attack(Validation(attack=attack), canvas, Asking(template=read_template("letter")))
    check_attack(Validation(attack=attack), canvas, Asking(template=read_template("think")))
    check_attack(None, canvas, Asking())


def test_rounding_towards_the_weaker_claim() -> None:
    assert (floor_to(0.99951, 3), ceil_to(0.99949, 3), ceil_to(0.5, 3), floor_to(0.5, 3)) == (0.999, 1.0, 0.5, 0.5)
    assert (ceil_to(-0.12345, 2), floor_to(-0.12345, 2)) == (-0.12, -0.13)


def test_ink_only_darkens() -> None:
    image = torch.full((3, 64, 64), 0.5)
    found = stain_deposit(image, torch.Generator().manual_seed(0), 4)
    assert bool((found <= image).all()) and float(found.min()) < 0.4 and float(found.min()) >= 0


def test_work_is_called_by_its_attack() -> None:
    fit = object.__new__(Fit)
    object.__setattr__(fit, "attack", "universal:eps=4/255")
    assert fit.name == "the fit of universal:eps=4/255"


@pytest.mark.parametrize("classes", [2, 4])
def test_a_rival_that_was_chosen_after_counting_costs_a_part_of_alpha(classes: int) -> None:
    """Clopper and Pearson's upper bound of 30 of 40 votes, at alpha divided among the rivals."""
    asked = Falsification(n=100, alpha=0.01)
    found = judge(Float32(0.25), asked, 30, 10, p_lower=0.9, radius=0.25, distance=0.1, view=None, classes=classes)
    assert found.n == 40
    assert found.upper == pytest.approx(scipy_stats.beta.isf(0.01 / (classes - 1), 31, 10))
    assert found.claimed == pytest.approx(scipy_stats.norm.cdf(1 - 0.1 / 0.25))


@pytest.mark.parametrize(("verdict", "code"), [("clean", 0), ("shared", 1), ("not all compared", 3)])
def test_exit_codes_of_an_audit(verdict: str, code: int) -> None:
    judged = type("Judged", (Audit,), {"verdict": verdict})
    assert object.__new__(judged).exit_code == code


def test_a_band_as_wide_as_the_canvas_is_refused() -> None:
    recipe = recipe_of("sft", ablate="band=64")
    _refuse_wide_band(recipe, (8, 65))
    _refuse_wide_band(recipe, None)
    for width in (64, 63):
        with pytest.raises(SpecError, match="leaves nothing out"):
            _refuse_wide_band(recipe, (128, width))


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("The answer is not A but B.", 1),
        ("The correct answer is: not (A) but rather (C).", 2),
        ("Antwort: nicht A, sondern B.", 1),
    ],
)
def test_not_this_but_that(text: str, option: int) -> None:
    assert parse(text, Question(text="Which?", options=("a lung", "a liver", "an eye"))) == option


@pytest.mark.parametrize("weights", [["x"], "x", {"a": 3}, {"a": "x", "b": None}])
def test_an_index_names_a_file_for_each_weight(tmp_path: Path, weights: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(CheckpointError, match="does not name a file for each weight"):
        shards(tmp_path)


def test_an_object_is_its_own_reference() -> None:
    source = find_model(Brightness()).source
    assert source.reference == (source.name, None)


def test_samples_of_steps_after_the_last_saved_one_are_dropped(tmp_path: Path) -> None:
    samples = pytest.importorskip("safemed_eval.train.watch.samples", reason="TRL is in the train extra")
    sampler = object.__new__(samples.Sampler)
    sampler._work = tmp_path
    sampler.begin(3)
    assert not list(tmp_path.iterdir())
    (tmp_path / samples.SAMPLES).write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 3, 4, 9)))
    sampler.begin(3)
    assert [line["step"] for line in read_log(tmp_path / samples.SAMPLES)] == [1, 3]


def test_a_log_names_the_line_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nx\n')
    with pytest.raises(RunError, match=r"log.jsonl: line 2 is no line"):
        read_log(tmp_path / "log.jsonl")


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("n", "alpha"), [(0, 0.001), (MAX_DRAWS + 1, 0.001), (100, 0.0), (100, 1.0), (-1, 0.5), (100, -0.1)]
)
def test_bounds_of_the_vote_about_another_image(n: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"n must lie between 1 and 100,000,000, alpha between 0 and 1"):
        DonorVote(n=n, alpha=alpha)


def test_as_many_votes_as_decide_anything() -> None:
    """n unanimous votes have p = 2^(1 - n): at alpha = 2^-9 ten decide, and nine do not."""
    assert DonorVote(n=10, alpha=2.0**-9).n == 10
    for n, alpha in ((9, 2.0**-9), (10, 2.0**-9 - 1e-12), (1, 0.999)):
        with pytest.raises(ValueError, match="decide nothing"):
            DonorVote(n=n, alpha=alpha)
    assert DonorVote(n=MAX_DRAWS).n == MAX_DRAWS


# ------------------------------------------------------------------------------------------------------------- threats


@pytest.mark.parametrize(
    ("region", "width"),
    [("border:1", 1), ("border:016", 16), ("border:99999", 99999), ("border:100000", None), ("border:0", None)],
)
def test_border_widths(region: str, width: int | None) -> None:
    assert border_width(region) == width
    for other in (f"x{region}", f"{region} ", region.upper()):
        assert border_width(other) is None


def test_spellings_of_regions() -> None:
    assert [spelled_region(text) for text in ("BACKGROUND", "Mask", "Border:007")] == ["background", "mask", "border:7"]
    with pytest.raises(ValueError, match=r"got x{40}$"):
        spelled_region("x" * 99)


class Shown:
    """A model that remembers what its methods are shown."""

    at_once = 3

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return canvas.flatten(1)

    def take(self, rows: Sequence[int]) -> Shown:
        return self

    def write(self, canvas: torch.Tensor) -> torch.Tensor:
        return canvas

    def after(self, canvas: torch.Tensor, text: str, last: int) -> tuple[torch.Tensor, str, int]:
        return canvas, text, last

    def likelihood(self, canvas: torch.Tensor) -> torch.Tensor:
        return canvas

    def other(self, canvas: torch.Tensor) -> torch.Tensor:
        return canvas


def test_a_contained_model_sees_changes_within_the_region_only() -> None:
    clean, changed = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    region = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    region[0, 0, 0, 1] = region[1, 0, 1] = True
    model = Contained(Shown(), clean, region)
    inside = region.expand(2, 3, 2, 2).float()
    for found in (model.inside(changed), model.write(changed), model.likelihood(changed)):
        torch.testing.assert_close(found, inside)
    torch.testing.assert_close(model(changed), inside.flatten(1))
    seen, text, last = model.after(changed, "x", 5)
    torch.testing.assert_close(seen, inside)
    assert (text, last, model.at_once) == ("x", 5, 3)
    assert model.other(changed) is changed, "a method that takes no canvas first is passed through"
    torch.testing.assert_close(model.take([1])(changed[:1]), inside[1:].flatten(1))
    with pytest.raises(AttributeError):
        _ = model.nonesuch


# --------------------------------------------------------------------------------------------------------------- goals

P = (0.5, 0.3, 0.15, 0.05)
LOG = torch.tensor([P], dtype=torch.float64).log()
ROW = torch.tensor([0])


@pytest.mark.parametrize(
    ("loss", "gold", "target", "expected"),
    [
        ("ce", 1, None, math.log(0.7 / 0.3)),
        ("margin", 1, None, math.log(0.5 / 0.3)),
        ("margin", 0, None, math.log(0.3 / 0.5)),
        ("dlr", 0, None, math.log(0.3 / 0.5) / math.log(0.5 / 0.15)),
        ("ce", 0, 2, math.log(0.15 / 0.85)),
        ("margin", 0, 2, math.log(0.15 / 0.5)),
        ("dlr", 0, 2, math.log(0.15 / 0.5) / (math.log(0.5) - (math.log(0.15) + math.log(0.05)) / 2)),
        ("pm", 1, None, 2 * math.atanh(0.2)),
        ("pm", 0, None, -2 * math.atanh(0.2)),
        ("pm", 0, 2, 2 * math.atanh(0.15 - 0.5)),
    ],
)
def test_goals_are_their_closed_forms(loss: str, gold: int, target: int | None, expected: float) -> None:
    targets = None if target is None else torch.tensor([target])
    goal = Goal(loss=loss, gold=torch.tensor([gold]), targets=targets)  # type: ignore[arg-type]
    value, wrong, done = goal(LOG, ROW)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert bool(wrong) == (gold != 0)
    assert bool(done) == (gold != 0 if target is None else target == 0)


@pytest.mark.parametrize(("lead", "wrong", "done"), [(SURE * 1.01, True, True), (SURE * 0.99, True, False)])
def test_a_row_is_done_when_its_lead_is_sure(lead: float, wrong: bool, done: bool) -> None:
    log_probs = torch.tensor([[0.0, lead]], dtype=torch.float64).log_softmax(1)
    for targets in (None, torch.tensor([1])):
        _, is_wrong, is_done = Goal(loss="ce", gold=torch.tensor([0]), targets=targets)(log_probs, ROW)
        assert (bool(is_wrong), bool(is_done)) == (wrong, done)
    _, is_wrong, _ = Goal(loss="ce", gold=torch.tensor([0]))(torch.zeros(1, 2).log_softmax(1), ROW)
    assert not bool(is_wrong), "a tie is not wrong"


@pytest.mark.parametrize(("options", "targeted"), [(2, False), (3, True)])
def test_too_few_options_for_a_ratio_leave_the_lead(options: int, targeted: bool) -> None:
    log_probs = LOG[:, :options]
    goal = Goal(loss="dlr", gold=ROW, targets=torch.tensor([1]) if targeted else None)
    value, *_ = goal(log_probs, ROW)
    assert float(value) == pytest.approx(math.log(0.3 / 0.5))


def test_the_probability_margin_of_two_options_is_their_lead() -> None:
    assert float(probability_margin(LOG[:, :2], ROW)) == pytest.approx(math.log(0.5 / 0.3))
