"""MedMNIST-C's corruptions: against closed forms, for the items that have them, and counted where there is none."""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from running import answers
from scipy import ndimage, stats
from synthetic import evaluated, write_run
from test_cli import call, summary_of
from test_corrupt import Unasked, scenes
from test_pipeline import Colors, evaluation, items
from torchvision.transforms.v2 import functional as vision

from safemed_eval import attacks
from safemed_eval.attacks.corrupt import SEVERITIES, Corrupt
from safemed_eval.attacks.corrupt.medmnist_c import DATA_SETS, Kind, unavailable
from safemed_eval.attacks.corrupt.transforms import (
    BORDER,
    INK,
    INSIDE,
    MARGIN,
    RING,
    SIDE,
    SMALLEST_BUBBLE,
    TRANSFORMS,
)
from safemed_eval.cli._show import show_run
from safemed_eval.core import MODALITIES, Classify
from safemed_eval.errors import SpecError
from safemed_eval.report import Run
from safemed_eval.report.tables import tables_of
from safemed_eval.runs.images import Keeper
from safemed_eval.seeds import generator

KINDS = get_args(Kind)
PAIRS = [(modality, kind) for modality, known in DATA_SETS.items() for kind in known.strengths]
FULL = (SIDE, SIDE)
ALIKE = {"motion_blur": 1e-3, "zoom_blur": 1e-2}
"""How far a severity may stay below the one before it, as published, as a share of the change."""


def spec(kind: str, severity: int) -> str:
    return f"corrupt:kind={kind},severity={severity},set=medmnist-c"


def corrupted(
    modalities: Sequence[str | None] | str, kind: str, severity: int, x: torch.Tensor, *, quantize: bool = False
) -> torch.Tensor:
    model: Classify = Unasked()
    labels, rngs = torch.zeros(len(x), dtype=torch.int64), [generator("cpu", 0, row) for row in range(len(x))]
    each = [modalities] * len(x) if isinstance(modalities, str) else modalities
    found = attacks.parse(spec(kind, severity))(model, x, labels, rngs, quantize=quantize, modalities=each)
    assert found.steps == [0] * len(x)
    return found.canvas


def tissue(rows: int, *, grey: bool) -> torch.Tensor:
    """Random images without a period, with as much structure at each scale: (rows, 3, 224, 224) on grey levels."""
    rng = torch.Generator().manual_seed(0)
    parts = [
        torch.nn.functional.interpolate(torch.randn((rows, 3, side, side), generator=rng), FULL, mode="bicubic")
        for side in (7, 14, 28, 56, 112, 224)
    ]
    image = 0.5 + 0.08 * torch.stack(parts).sum(0)
    image = image.mean(1, keepdim=True).expand(-1, 3, -1, -1) if grey else image
    return (image.clamp(0, 1) * 255).round() / 255


def strength(modality: str, kind: str, severity: int) -> Any:
    return next(every for name, every in DATA_SETS[modality].strengths.items() if name == kind)[severity - 1]


def flat(value: float, size: tuple[int, int] = FULL) -> torch.Tensor:
    return torch.full((1, 3, *size), value)


# ---------------------------------------------------------------------------------------------------- kinds, modalities


def test_each_modality_has_the_kinds_of_its_data_set() -> None:
    names = {modality: known.name for modality, known in DATA_SETS.items()}
    assert names == {
        "CT": "organamnist",
        "Dermoscopy": "dermamnist",
        "Fundus Photography": "retinamnist",
        "Microscopy": "pathmnist",
        "OCT": "octmnist",
        "Ultrasound": "breastmnist",
        "X-Ray": "chestmnist",
    }
    assert {*MODALITIES} - {*names} == {"MRI"}
    counts = {modality: len(known.strengths) for modality, known in DATA_SETS.items()}
    assert [*counts.values()] == [13, 15, 8, 11, 6, 7, 13]
    assert {kind for _, kind in PAIRS} == set(KINDS) == set(TRANSFORMS)
    assert {len(every) for known in DATA_SETS.values() for every in known.strengths.values()} == {len(SEVERITIES)}
    assert strength("OCT", "pixelate", 5) == 0.1 and strength("Dermoscopy", "motion_blur", 3) == (15, 8)


PUBLISHED = {
    "organamnist": "5a7b5e31a4c849a3",
    "dermamnist": "349bacc485b567e3",
    "retinamnist": "20162c93287ad2c2",
    "pathmnist": "a0e3daa205ac4568",
    "octmnist": "8fbd172ed638d424",
    "breastmnist": "6a3050d7f91df646",
    "chestmnist": "ca326c973368a442",
}
"""For each data set, the first 16 digits of the sha256 of its strengths in `registry.py` of medmnistc-api, commit
b6dee0e: JSON, keys sorted, the first five severities of each kind, each a list of floats; of the factors of `zoom_blur`
the end and the step."""


@pytest.mark.parametrize("modality", DATA_SETS)
def test_strengths_are_those_that_were_published(modality: str) -> None:
    known = DATA_SETS[modality]
    assert {unavailable(kind, modality) for kind in known.strengths} == {None}
    rows = {
        kind: [np.atleast_1d(np.array(one, float)).tolist() for one in known.strengths[kind]]
        for kind in known.strengths
    }
    told = json.dumps(rows, sort_keys=True)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == PUBLISHED[known.name], f"compare with registry.py: {told}"
    assert known.grey == (known.name not in ("pathmnist", "dermamnist", "retinamnist"))


def test_what_an_item_has_not_is_named(table: Path) -> None:
    ct, mri = items(table)[0], items(table)[-1]
    bubble, blur = (attacks.parse(spec(kind, 1)) for kind in ("bubble", "gaussian_blur"))
    assert blur.unavailable(ct) is None
    assert bubble.unavailable(ct) == "MedMNIST-C has no bubble for CT (organamnist)"
    assert blur.unavailable(mri) == "MedMNIST-C has no data set of MRI"
    assert attacks.parse("corrupt:kind=blur,severity=1").unavailable(mri) is None
    with pytest.raises(ValueError, match="no bubble for CT"):
        corrupted("CT", "bubble", 1, flat(0.5))
    with pytest.raises(ValueError, match="modality, which is not known"):
        corrupted([None], "pixelate", 1, flat(0.5))
    with pytest.raises(TypeError, match="needs the modalities"):
        blur(Unasked(), flat(0.5), torch.zeros(1, dtype=torch.int64), [torch.Generator()])


# ------------------------------------------------------------------------------------------- what all of them promise


@pytest.mark.parametrize(("modality", "kind"), PAIRS)
def test_a_severity_changes_an_image_at_least_as_much_as_the_one_below(modality: str, kind: str) -> None:
    """In L2, at the size of MedMNIST-C's images. As published, the black corners of 5 are smaller than those of 4.

    Counts of spots, bubbles and words are drawn from 1 on: an item may have one at all severities. Some strengths of
    motion differ in the far end of the line alone, which weighs next to nothing, and of zoom in the number of copies.
    """
    x = tissue(3, grey=DATA_SETS[modality].grey)
    changes = [corrupted(modality, kind, severity, x) - x for severity in SEVERITIES]
    change = torch.stack([one.flatten(1).norm(dim=1) for one in changes])
    steps = change.diff(dim=0)
    assert (change[0] > 0.1).all() and change[4].mean() > change[0].mean()
    if kind == "black_corner":
        assert (steps[:3] > 0).all() and (steps[3] < 0).all()
    elif kind in ("stain_deposit", "characters", "bubble"):
        assert (steps >= 0).all()
    else:
        assert (steps > -ALIKE.get(kind, 0) * change[1:]).all()
    if DATA_SETS[modality].grey:
        assert all((one - one[:, :1]).abs().max() < 1e-6 for one in changes), "grey stays grey"


@pytest.mark.parametrize("size", [(8, 9), (64, 64), (96, 150), (300, 224)])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_images_that_depend_on_the_item_alone(kind: str, size: tuple[int, int]) -> None:
    modality = next(modality for modality, known in DATA_SETS.items() if kind in known.strengths)
    x = scenes(2, *size)
    for quantize in (False, True):
        found = corrupted(modality, kind, 5, x, quantize=quantize)
        assert found.shape == x.shape and found.dtype == x.dtype and 0 <= found.min() <= found.max() <= 1
        assert torch.equal(found, corrupted(modality, kind, 5, x, quantize=quantize))
        assert torch.equal(found[:1], corrupted(modality, kind, 5, x[:1], quantize=quantize)), "alone as in a batch"
    assert (found * 255 - (found * 255).round()).abs().max() < 1e-4


def test_each_row_meets_the_strength_of_its_modality() -> None:
    x = scenes(1, 40, 40).expand(2, -1, -1, -1)
    both = corrupted(["Ultrasound", "Microscopy"], "brightness_down", 1, x)
    assert torch.allclose(both[0], x[0] * 0.55) and torch.allclose(both[1], x[1] * 0.85)


# --------------------------------------------------------------------------------------------------------- closed forms


def test_pixelate_leaves_the_means_of_blocks() -> None:
    """A quarter of 224 pixels is 56 blocks, whatever the canvas: of 8 x 8 pixels on one of 448."""
    x = scenes(1, 448, 448)
    means = x.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5))
    whole = means.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(corrupted("Microscopy", "pixelate", 5, x), whole, atol=1e-5, rtol=0)
    small = scenes(1, 64, 64)
    assert torch.equal(corrupted("Microscopy", "pixelate", 1, small), small), "179 blocks are more than it has pixels"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_tones_follow_their_formula(severity: int) -> None:
    x = scenes(2, 40, 30)
    mean = (x * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    for direction in ("up", "down"):
        factor, stretch, power = (
            strength("X-Ray", f"{kind}_{direction}", severity) for kind in ("brightness", "contrast", "gamma_corr")
        )
        forms = {"brightness": x * factor, "contrast": mean + (x - mean) * stretch, "gamma_corr": x**power}
        for kind, form in forms.items():
            found = corrupted("X-Ray", f"{kind}_{direction}", severity, x)
            torch.testing.assert_close(found, form.clamp(0, 1), atol=2e-3 if kind == "contrast" else 1e-5, rtol=0)


def test_saturate_adds_to_the_saturation_alone() -> None:
    x = torch.rand((1, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0], x[0, :, 0, 1] = 0.5, 0
    found = corrupted("Microscopy", "saturate", 3, x)
    for before, after in zip(x[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, min(1, saturation + 0.15), value), abs=1e-5)


def test_jpeg_is_a_jpeg_file_of_its_quality() -> None:
    (x,) = scenes(1, 48, 40)
    file = io.BytesIO()
    Image.fromarray((x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(file, "jpeg", quality=15)
    theirs = np.asarray(Image.open(file)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(corrupted("Microscopy", "jpeg_compression", 3, x[None])[0], theirs, atol=1e-6)


def test_gaussian_noise_has_its_standard_deviation() -> None:
    """Of a grey image the three channels' noise becomes one, by luminance, which lowers it."""
    noise = corrupted("Dermoscopy", "gaussian_noise", 2, flat(0.5)) - 0.5
    assert float(noise.std()) == pytest.approx(0.08, rel=0.02)
    assert abs(float(torch.corrcoef(noise[0, :2].flatten(1))[0, 1])) < 0.02
    grey = corrupted("X-Ray", "gaussian_noise", 2, flat(0.5)) - 0.5
    assert float(grey.std()) == pytest.approx(0.08 * math.hypot(0.2989, 0.587, 0.114), rel=0.02)


def test_the_variance_of_speckle_grows_with_the_square_of_the_signal() -> None:
    ratios = [corrupted("Dermoscopy", "speckle_noise", 2, flat(value)).std() / value for value in (0.1, 0.3, 0.5)]
    assert [float(ratio) for ratio in ratios] == pytest.approx([0.15] * 3, rel=0.02)


def test_impulses_have_their_share_half_of_them_black() -> None:
    found = [corrupted("Dermoscopy", "impulse_noise", severity, flat(0.5)) for severity in (1, 5)]
    for image, share in zip(found, (0.01, 0.17), strict=True):
        for value in (0, 1):
            error = math.sqrt(share / 2 / image.numel())
            assert float((image == value).double().mean()) == pytest.approx(share / 2, abs=5 * error)
        assert float((image == 0.5).any(1).double().mean()) == pytest.approx(1 - share**3, abs=0.005)
    assert torch.equal(found[0][found[0] != 0.5], found[1][found[0] != 0.5]), "one draw for all severities"


def test_shot_noise_counts_photons() -> None:
    """Poisson: mean and variance are the rate; and each count is the quantile of the pixel's uniform number."""
    x = torch.tensor([0, 40, 90, 130]).repeat_interleave(SIDE)[None, None, :, None].expand(1, 3, -1, SIDE) / 255
    found = corrupted("Dermoscopy", "shot_noise", 3, x)
    counts = found.double() * 18
    assert (counts - counts.round()).abs().max() < 1e-4 and (found[x == 0] == 0).all()
    for value in (40 / 255, 90 / 255):
        some = counts[x == value]
        assert float(some.mean()) == pytest.approx(18 * value, rel=0.01)
        assert float(some.var()) == pytest.approx(18 * value, rel=0.03)
    chances = torch.rand(x.shape[1:], generator=generator("cpu", 0, 0), dtype=torch.float64)
    theirs = stats.poisson.ppf(chances.numpy(), 18 * x[0].double().numpy())
    np.testing.assert_allclose(found[0], np.minimum(theirs / 18, 1), atol=1e-6)


def impulse(modality: str, kind: str, severity: int, size: tuple[int, int] = FULL) -> tuple[Any, Any, Any]:
    """What a corruption makes of one bright pixel: weights, and how far below and to the right of it they lie."""
    x = torch.zeros((1, 3, *size))
    x[..., size[0] // 2, size[1] // 2] = 1
    weight = corrupted(modality, kind, severity, x)[0, 0].double()
    assert float(weight.sum()) == pytest.approx(1, abs=1e-5)
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) - side // 2 for side in size), indexing="ij")
    return weight, y, x


@pytest.mark.parametrize("size", [FULL, (448, 500)])
def test_defocus_averages_over_a_disc(size: tuple[int, int]) -> None:
    """Severity 1 of pathmnist has radius 3 and an edge of a tenth of a pixel, which is none; twice that on 448."""
    weight, y, x = impulse("Microscopy", "defocus_blur", 1, size)
    inside = y**2 + x**2 <= (3 * min(size) / SIDE) ** 2
    torch.testing.assert_close(weight, inside.double() / inside.sum(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [FULL, (448, 448)])
def test_motion_is_one_half_of_a_gaussian_along_a_line(size: tuple[int, int]) -> None:
    radius, sigma = (number * size[0] / SIDE for number in strength("Microscopy", "motion_blur", 4))
    weight, y, x = impulse("Microscopy", "motion_blur", 4, size)
    weight = weight / weight.sum()
    along = -torch.tensor([float((weight * part).sum()) for part in (y, x)])
    points = np.linspace(0, 2 * radius, 10001)
    density = np.exp(-0.5 * (points / sigma) ** 2)
    assert float(along.norm()) == pytest.approx(float((points * density).sum() / density.sum()), rel=0.02)
    assert along[1] > along[0].abs(), "within 45 degrees of the horizontal"
    across = (weight * (y * along[1] - x * along[0]) ** 2).sum() / along.norm() ** 2
    assert float(across) < 0.5, "a line"


def test_zoom_shrinks_slopes_by_its_factors() -> None:
    """On a ramp through the middle an enlargement by z has 1/z of the slope."""
    ramp = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    x = (0.5 + 0.8 * ramp).expand(1, 3, SIDE, SIDE)
    stop, step = strength("Dermoscopy", "zoom_blur", 4)
    factors = np.arange(1, stop, step)
    slope = 0.8 * (1 + (1 / factors).sum()) / (len(factors) + 1)
    found = corrupted("Dermoscopy", "zoom_blur", 4, x)
    torch.testing.assert_close(found, (0.5 + slope * ramp).expand_as(x).float(), atol=1e-4, rtol=0)
    assert len(factors) == 13 and slope < 0.8


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_torchvisions_at_its_size(severity: int) -> None:
    x = scenes(1, *FULL)
    theirs = vision.gaussian_blur(x, [3 + 2 * (severity - 1)] * 2)
    torch.testing.assert_close(corrupted("X-Ray", "gaussian_blur", severity, x), theirs, atol=1e-5, rtol=0)


def test_black_corners_leave_a_circle() -> None:
    x = scenes(1, 224, 300)
    y, z = torch.meshgrid(torch.arange(224) + 0.5 - 112, torch.arange(300) + 0.5 - 150, indexing="ij")
    inside = (y**2 + z**2).sqrt() <= 112 * 0.9
    assert torch.equal(corrupted("Dermoscopy", "black_corner", 4, x), x * inside)


def pieces(mask: torch.Tensor) -> tuple[int, np.ndarray[Any, Any]]:
    found, count = ndimage.label(mask.numpy(), structure=np.ones((3, 3)))
    return count, np.bincount(found.ravel())[1:]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_bubbles_are_bright_discs_with_a_border(severity: int) -> None:
    largest, most = strength("Microscopy", "bubble", severity)
    found = corrupted("Microscopy", "bubble", severity, torch.zeros((12, 3, *FULL)))
    levels = found.unique()
    torch.testing.assert_close(levels, torch.tensor([0, INSIDE, RING]), atol=1e-6, rtol=0)
    sizes = []
    for image in found[:, 0]:
        count, areas = pieces(image > 0)
        assert 1 <= count <= most and areas.min() >= 0.8 * math.pi * (SMALLEST_BUBBLE + BORDER) ** 2
        sizes.append(areas.sum())
    assert max(sizes) <= most * math.pi * (largest + BORDER + 1) ** 2
    white = torch.ones((1, 3, *FULL))
    assert torch.allclose(corrupted("Microscopy", "bubble", severity, white), white)


def test_stains_are_a_few_dark_spots_inside_the_image() -> None:
    counts: dict[int, list[int]] = {}
    before = torch.zeros((30, *FULL), dtype=torch.bool)
    for severity in SEVERITIES:
        found = corrupted("Microscopy", "stain_deposit", severity, torch.ones((30, 3, *FULL)))
        dark = found[:, 0] < 0.5
        assert float(found.min()) >= (1 - INK) ** 5 and (found.amin((1, 2, 3)) < 0.06).all()
        edge = torch.ones(FULL, dtype=torch.bool)
        edge[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
        assert not dark[:, edge].any()
        counts[severity] = [pieces(image)[0] for image in dark]
        assert (dark | before).equal(dark), "a higher severity adds spots"
        before = dark
        assert 1 <= min(counts[severity]) <= max(counts[severity]) <= severity
    assert set(counts[1]) == {1} and set(counts[5]) >= {1, 2, 3, 4}


def test_characters_are_small_words_of_one_colour() -> None:
    x = torch.zeros((30, 3, 448, 448))
    inked = []
    for severity in (1, 5):
        found = corrupted("Dermoscopy", "characters", severity, x)
        changed = (found != x).any(1)
        assert changed.any((1, 2)).all() and float(changed.double().mean()) < 0.02
        inked.append(changed.sum((1, 2)))
        columns, rows = changed.any(1).nonzero()[:, 1], changed.any(2).nonzero()[:, 1]
        assert columns.min() >= 2 * MARGIN - 3 and rows.max() <= 448 - 2 * MARGIN + 6
    assert (inked[1] >= inked[0]).all() and inked[1].sum() > 3 * inked[0].sum()
    hues = found[(found != x).any(1, keepdim=True).expand_as(found)].view(-1)
    assert len(hues.unique()) > 30, "each word has a colour of its own"


# ------------------------------------------------------------------------------------------------- specs, runs, reports


def test_a_spec_of_the_set_stands_for_all_of_it() -> None:
    every = [spec(kind, severity) for kind in KINDS for severity in SEVERITIES]
    assert list(map(str, attacks.parse_all(["corrupt:set=medmnist-c"]))) == every and len(every) == 105
    assert list(map(str, attacks.parse_all(["corrupt:SET=MedMNIST-C,severity=3"]))) == every[2::5]
    assert list(map(str, attacks.parse_all(["corrupt:kind=bubble,set=medmnist-c"]))) == every[80:85]
    attack = attacks.parse(every[0])
    assert attacks.parse(str(attack)) == attack and attack.stream == "corrupt:kind=pixelate"
    assert attack.described["set"] == "medmnist-c"
    facts = attacks.facts_of(every[0], attack.described)
    assert (facts.role, facts.kind, facts.severity, facts.set) == ("corruption", "pixelate", 1, "medmnist-c")


def test_the_own_set_is_written_as_before() -> None:
    own = attacks.parse("corrupt:kind=jpeg,severity=3,set=own")
    assert own == attacks.parse("corrupt:kind=jpeg,severity=3") == Corrupt(kind="jpeg", severity=3)
    assert str(own) == "corrupt:kind=jpeg,severity=3"
    assert own.described == {"attack": "corrupt", "kind": "jpeg", "severity": 3}
    assert attacks.facts_of(str(own), own.described).set is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corrupt:set=medmnist", "set: 'medmnist' is not a choice; did you mean 'medmnist-c'"),
        ("corrupt:set=medmnist-c,kind=jpeg", "kind: 'jpeg' is not a choice of set=medmnist-c; known: black_corner"),
        ("corrupt:set=medmnist-c,kind=bubbles", "did you mean 'bubble'"),
        ("corrupt:kind=bubble", "kind: 'bubble' is not a choice of set=own; "),
        ("corrupt:set=medmnist-c,severity=0", "severity goes from 1 to 5, got 0"),
    ],
)
def test_bad_specs_are_one_line(text: str, message: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse_all([text])
    shared = ("--model", "builtin:sft", "--data", f"table:{table}", "--out", tmp_path / "run")
    code, error = call("evaluate", *shared, "--attack", text)
    assert code == 2 and "\n" not in error and message in error and not (tmp_path / "run").exists()


def test_items_without_the_kind_are_counted(table: Path) -> None:
    """Four items are CT, four MRI: of a kind of CT there are four answers, of another modality's none."""
    chosen = attacks.parse_all(["clean", spec("shot_noise", 5), spec("bubble", 1)])
    records = [one for group in answers(evaluation(Colors(), batch=3), items(table), chosen) for one in group]
    assert len(records) == 8 * 3
    for one in records:
        bubble, mri = "bubble" in one["attack"], one["modality"] == "MRI"
        missing = one["attack"] != "clean" and (bubble or mri)
        assert ("unavailable" in one) == missing == (one["prediction"] is None) and one["error"] is None
        if missing:
            why = "no data set of MRI" if mri else "no bubble for CT"
            assert why in one["unavailable"] and one["linf"] is None
        elif one["attack"] != "clean":
            assert one["linf"] > 0.05


def test_a_run_counts_and_shows_them(table: Path, tmp_path: Path) -> None:
    shared = ("--model", "builtin:sft", "--data", f"table:{table}", "--canvas", "64x64", "--out", tmp_path / "run")
    found = summary_of("evaluate", *shared, "--attack", "corrupt:set=medmnist-c,severity=3")
    assert found["items"] == 8 and found["failed"] == 0 and not found["all_failed"]
    cells = found["overall"]
    assert (cells[spec("pixelate", 3)]["n"], cells[spec("pixelate", 3)]["unavailable"]) == (4, 4)
    assert (cells[spec("bubble", 3)]["n"], cells[spec("bubble", 3)]["unavailable"]) == (0, 8)
    assert cells[spec("bubble", 3)]["accuracy"] is None
    assert found["by_modality"]["MRI"][spec("pixelate", 3)]["unavailable"] == 4
    described = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["spec"]["attacks"]
    assert described[spec("bubble", 3)] == {
        "attack": "corrupt",
        "kind": "bubble",
        "severity": 3,
        "set": "medmnist-c",
    }
    code, text = call("evaluate", *shared, "--attack", "corrupt:set=medmnist-c,severity=3")
    assert code == 0 and "n/a" in text, "nothing is left to do"
    code, text = call("plan", *shared[:-2], "--attack", spec("pixelate", 3))
    assert code == 0, text


def test_images_are_kept_of_items_that_have_the_kind(table: Path, tmp_path: Path) -> None:
    """The first items are MRI, which has none: of the four of CT two are kept."""
    attack = attacks.parse(spec("shot_noise", 1))
    known = items(table)[::-1]
    assert known[0].modality == "MRI"
    keeper = Keeper(tmp_path / "run", known, 2, quantized=True, chosen={str(attack): attack})
    met = [item for item in known if item.modality == "CT"]
    assert [keeper.wants(item, str(attack), wrong=False) for item in met] == [True, True, False, False]


OWN = {f"corrupt:kind=jpeg,severity={severity}": 8 - severity for severity in (1, 2)}
THEIRS = {spec("pixelate", 1): 4, spec("pixelate", 5): 2, spec("bubble", 1): 0, spec("bubble", 5): 0}
NONE = {"prediction": None, "log_probs": None, "linf": None, "l2": None, "steps": None}


def mixed_run(out: Path, rights: dict[str, int]) -> Path:
    """Ten items, of which five are MRI; of the others, CT, four are right when clean, and none has bubbles."""
    records = []
    for condition, right in rights.items():
        for i in range(10):
            why = "none" if "medmnist" in condition and (i >= 5 or "bubble" in condition) else None
            lost = NONE | {"unavailable": why} if why else {}
            records.append(evaluated(i, condition, i < right and not why, modality="CT" if i < 5 else "MRI", **lost))
    return write_run(out, records, "evaluate", conditions=tuple(rights))


def test_each_set_is_a_table_with_its_own_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.read(mixed_run(tmp_path / "run", {"clean": 4} | OWN | THEIRS))
    tables = {table.name: table for table in tables_of([run], radii=None)}
    assert {"corruptions", "corruptions-medmnist-c", "corruptions-medmnist-c-by-modality"} <= set(tables)
    own, theirs = (tables[name].shown for name in ("corruptions", "corruptions-medmnist-c"))
    assert list(own["corruption"]) == ["jpeg"] and list(own["items"]) == ["10"]
    assert list(theirs) == ["run", "corruption", "items", "1", "5", "mean", "worst"]
    plain = [[cell.rstrip("\u2020") for cell in row] for row in theirs.to_numpy()[:, 1:].tolist()]
    assert plain == [
        ["pixelate", "5 (n/a for 5)", "80.0", "40.0", "60.0", "40.0 (5)"],
        ["bubble", "0 (n/a for 10)", "n/a", "n/a", "n/a", "n/a"],
        ["all kinds", "0-5 (n/a for 5-10)", "80.0", "40.0", "60.0", "40.0 (pixelate 5)"],
    ]
    assert (
        "medmnist-c" in tables["corruptions-medmnist-c"].caption and "n/a" in tables["corruptions-medmnist-c"].caption
    )
    assert list(tables["accuracy"].shown) == ["run", "items", "clean"]
    show_run(run, json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["corruption", "items", "1", "2", "mean", "worst"] in lines
    assert ["medmnist-c", "items", "1", "5", "mean", "worst"] in lines
    code, text = call("report", run.out, "--out", tmp_path / "r")
    assert code == 0, text
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "Accuracy under corruptions of medmnist-c" in page and page.count("5 (n/a for 5)") == 1
    assert "40.0 (pixelate 5)" in run._repr_html_()


def test_one_of_a_set_stays_a_column(tmp_path: Path) -> None:
    run = Run.read(mixed_run(tmp_path / "run", {"clean": 4, spec("pixelate", 1): 4} | OWN))
    tables = {table.name: table for table in tables_of([run], radii=None)}
    assert list(tables["accuracy"].shown) == ["run", "items", "clean", spec("pixelate", 1)]
    assert "n/a for 5" in tables["accuracy"].shown[spec("pixelate", 1)].iloc[0]
    assert "corruptions" in tables and "corruptions-medmnist-c" not in tables
