"""Natural corruptions: against closed forms, against PIL, and against what their severities promise."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from running import answers
from test_pipeline import Colors, evaluation, items

from safemed_eval import attacks, data
from safemed_eval.attacks.corrupt import SEVERITIES
from safemed_eval.attacks.corrupt.own import PIXEL_BLUR, STRENGTHS, Kind
from safemed_eval.attacks.corrupt.own import corrupted as corrupted_unclamped
from safemed_eval.core import Classify, Item
from safemed_eval.errors import SpecError
from safemed_eval.seeds import generator

KINDS = get_args(Kind)


class Unasked:
    """A model that must not be asked."""

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    take = __call__


def scenes(rows: int, height: int, width: int, *, grey: bool = False) -> torch.Tensor:
    """Discs and stripes with some texture, on 8-bit grey levels."""
    rng = torch.Generator().manual_seed(height + width)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    found = []
    for _ in range(rows):
        centre, tone = torch.rand(2, generator=rng), torch.rand(3, generator=rng)
        disc = torch.sigmoid(40 * (0.25 - ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt()))
        scene = 0.15 + 0.5 * tone[:, None, None] * disc + 0.15 * (torch.sin(40 * (x + y)) > 0)
        found.append(scene + 0.03 * torch.rand((1, height, width), generator=rng))
    image = torch.stack(found)
    image = image.mean(1, keepdim=True).expand(-1, 3, -1, -1) if grey else image
    return (image.clamp(0, 1) * 255).round() / 255


def corrupted(kind: str, severity: int, x: torch.Tensor, seed: int = 0, *, quantize: bool = False) -> torch.Tensor:
    attack = attacks.parse(f"corrupt:kind={kind},severity={severity}")
    model: Classify = Unasked()
    rngs = [generator("cpu", seed, row) for row in range(len(x))]
    found = attack(model, x, torch.zeros(len(x), dtype=torch.int64), rngs, quantize=quantize)
    assert found.steps == [0] * len(x) and not attack.needs
    return found.canvas


def test_severities_are_whole_and_monotone() -> None:
    assert set(STRENGTHS) == set(KINDS)
    for kind, strengths in STRENGTHS.items():
        steps = np.diff(strengths)
        assert len(strengths) == len(SEVERITIES)
        assert (steps < 0).all() if kind == "jpeg" else (steps > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_image_changes_more_at_each_severity(kind: str) -> None:
    (image,) = scenes(1, 48, 40)
    changes = [corrupted_unclamped(image, kind, severity, generator("cpu", 1)) - image for severity in SEVERITIES]
    change = torch.stack([one.norm() for one in changes])
    assert change[0] > 0 and (change.diff() > 0).all()


@pytest.mark.parametrize("size", [(64, 64), (96, 150), (128, 128), (384, 384)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_changes_every_image_more_than_the_one_below(kind: str, size: tuple[int, int]) -> None:
    """In L2; and severity 1 by more than a tenth of a grey level RMS, which survives rounding."""
    x = scenes(4 if size < (384, 384) else 2, *size)
    for quantize in (False, True):
        changes = [corrupted(kind, severity, x, quantize=quantize) - x for severity in SEVERITIES]
        change = torch.stack([one.flatten(1).norm(dim=1) for one in changes])
        assert (change[0] * 255 / x[0].numel() ** 0.5 > 0.1).all()
        assert (change.diff(dim=0) > 0).all()
        found = corrupted(kind, 5, x, quantize=quantize)
        assert found.shape == x.shape and found.dtype == x.dtype and 0 <= found.min() <= found.max() <= 1
        assert torch.equal(found, corrupted(kind, 5, x, quantize=quantize))
        assert torch.equal(found[:1], corrupted(kind, 5, x[:1], quantize=quantize)), "alone as in a batch"
    assert (found * 255 - (found * 255).round()).abs().max() < 1e-4


@pytest.mark.parametrize("quantize", [False, True])
def test_severities_of_an_item_share_one_draw(table: Path, quantize: bool) -> None:
    """In a run: what a severity changes points where the one below pointed. Of a new sign or noise it would not."""
    changes: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)

    def keep(item: Item, condition: str, clean: torch.Tensor, found: torch.Tensor, wrong: bool) -> None:
        changes[item.id, condition.split(",")[0]].append((found - clean).flatten())

    work = evaluation(Colors(), canvas=data.Canvas(size=(64, 64)), keep=keep, quantize=quantize)
    records = [one for group in answers(work, items(table), attacks.parse_all(["corrupt"])) for one in group]
    assert len(records) == 8 * 45 and {one["error"] for one in records} == {None}
    assert len(changes) == 8 * len(KINDS) and {len(some) for some in changes.values()} == {5}
    for (_, kind), some in changes.items():
        lengths = torch.stack([one.norm() for one in some])
        assert lengths[0] > 0 and (lengths.diff() > 0).all(), kind
        alike = [float(torch.cosine_similarity(*pair, dim=0)) for pair in pairwise(some)]
        assert min(alike) > 0.5, kind
    signs = {item: changes[item, "corrupt:kind=brightness"][0].mean() > 0 for item, _ in changes}
    assert set(map(bool, signs.values())) == {False, True}, "of items some go up, some down"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_tones_follow_their_formula(severity: int) -> None:
    """Contrast, brightness and gamma are one of two closed forms, and of many items some are each."""
    x = scenes(12, 24, 20)
    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    mean = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    factor, shift, power = (STRENGTHS[kind][severity - 1] for kind in ("contrast", "brightness", "gamma"))
    forms = {
        "contrast": [mean + (x - mean) * factor, mean + (x - mean) / factor],
        "brightness": [x + shift / 255, x - shift / 255],
        "gamma": [x**power, x ** (1 / power)],
    }
    for kind, both in forms.items():
        found = corrupted(kind, severity, x)
        fits = [(found - form.clamp(0, 1)).abs().amax((1, 2, 3)) < 2e-3 for form in both]
        assert (fits[0] ^ fits[1]).all() and fits[0].any() and fits[1].any(), kind


def test_jpeg_is_a_jpeg_file_of_its_quality() -> None:
    (x,) = scenes(1, 48, 40)
    for severity in SEVERITIES:
        file = io.BytesIO()
        pixels = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "jpeg", quality=int(STRENGTHS["jpeg"][severity - 1]))
        theirs = np.asarray(Image.open(file)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(corrupted("jpeg", severity, x[None])[0], theirs, atol=1e-6)


def test_noise_has_its_strength_and_leaves_grey_images_grey() -> None:
    x = torch.full((1, 3, 200, 200), 0.5)
    colour = x + torch.tensor([0.1, 0, -0.1])[:, None, None]
    for severity in SEVERITIES:
        noise, coloured = corrupted("noise", severity, x) - x, corrupted("noise", severity, colour) - colour
        assert float(noise.std()) * 255 == pytest.approx(STRENGTHS["noise"][severity - 1], rel=0.02)
        assert torch.equal(noise[:, 0], noise[:, 2])
        assert abs(float(torch.corrcoef(coloured[0, :2].flatten(1))[0, 1])) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_grey_images_stay_grey(kind: str) -> None:
    found = corrupted(kind, 5, scenes(2, 40, 40, grey=True))
    assert (found - found[:, :1]).abs().max() < 2 / 255


def spread_of(kind: str, size: tuple[int, int]) -> torch.Tensor:
    """Covariance of the image of one bright pixel at severity 5, (2, 2), in shorter sides of the canvas."""
    x = torch.zeros((1, 3, *size))
    x[..., size[0] // 2, size[1] // 2] = 1
    weight = corrupted(kind, 5, x)[0, 0].double()
    assert float(weight.sum()) == pytest.approx(1, abs=1e-5)
    places = torch.stack(torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in size), indexing="ij"))
    offsets = places.flatten(1) - torch.tensor([[size[0] // 2], [size[1] // 2]])
    return (offsets * weight.flatten()) @ offsets.T / min(size) ** 2


@pytest.mark.parametrize("size", [(64, 64), (192, 384)])
def test_lengths_grow_with_the_canvas(size: tuple[int, int]) -> None:
    sigma, length, pixel = STRENGTHS["blur"][4], STRENGTHS["motion"][4], 1 / min(size)
    blurred = spread_of("blur", size)
    expected = sigma**2 + (PIXEL_BLUR * pixel) ** 2
    assert blurred.numpy() == pytest.approx(np.eye(2) * expected, rel=0.05, abs=1e-7)
    # A line of that length varies by length^2 / 12 along itself; sharing points among four pixels adds a little.
    along, across = torch.linalg.eigvalsh(spread_of("motion", size)).flip(0)
    assert length**2 / 12 <= float(along) + 1e-9 and float(along) <= length**2 / 12 + pixel**2 / 3
    assert float(across) <= pixel**2 / 3


def test_motion_goes_in_all_directions() -> None:
    x = torch.zeros((60, 3, 64, 64))
    x[..., 32, 32] = 1
    weight = corrupted("motion", 5, x)[:, 0]
    down, right = ((weight.sum(dim) > 0.01).sum(1) for dim in (2, 1))
    for extent in (down, right):
        assert (extent == 3).any() and (extent == 5).any()


def test_resolution_forgets_what_is_finer_than_its_pixels() -> None:
    board = torch.tensor([0.0, 1.0]).repeat(32)
    x = (board[:, None] * board).expand(1, 3, 64, 64)
    assert torch.allclose(corrupted("resolution", 5, torch.full_like(x, 0.3)), torch.tensor(0.3))
    found = corrupted("resolution", 5, x)
    assert float(found.std()) < 0.1 * float(x.std()) and float(found.mean()) == pytest.approx(0.25, abs=0.01)


def test_bias_is_a_smooth_factor_within_its_bounds() -> None:
    x = torch.full((8, 3, 60, 80), 0.3)
    strength = STRENGTHS["bias"][4]
    gain = (corrupted("bias", 5, x) / x).log()
    assert gain.amax((1, 2, 3)).numpy() == pytest.approx(np.full(8, strength), abs=1e-4)
    assert gain.amin((1, 2, 3)).numpy() == pytest.approx(np.full(8, -strength), abs=1e-4)
    assert gain.diff(dim=3).abs().max() < strength * 4 * math.pi / 80
    assert (gain[0] - gain[1]).abs().max() > 0.1, "each item has its own"


# ---------------------------------------------------------------------------------------------------------------- specs


def test_a_spec_that_leaves_options_open_stands_for_all() -> None:
    every = [f"corrupt:kind={kind},severity={severity}" for kind in KINDS for severity in SEVERITIES]
    assert list(map(str, attacks.parse_all(["corrupt"]))) == every and len(every) == 45
    assert list(map(str, attacks.parse_all(["corrupt:severity=3"]))) == every[2::5]
    assert list(map(str, attacks.parse_all(["corrupt:kind=jpeg"]))) == every[25:30]
    mixed = attacks.parse_all(["clean", "corrupt:severity=3,kind=jpeg", "pgd", "corrupt:kind=jpeg", "pgd:eps=4/255"])
    assert list(map(str, mixed)) == ["clean", every[27], "pgd:eps=4/255,steps=10", *every[25:27], *every[28:30]]
    assert all(attacks.parse(str(one)) == one for one in mixed)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("corrupt", "needs kind"),
        ("corrupt:kind=jpeg", "needs severity"),
        ("corrupt:kind=jpg,severity=1", "did you mean 'jpeg'"),
        ("corrupt:kind=jpeg,severity=6", "severity goes from 1 to 5, got 6"),
        ("corrupt:kind=jpeg,severity=1,eps=4/255", "unknown option 'eps'"),
    ],
)
def test_bad_specs_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse(spec)
    if "severity=" in spec:
        with pytest.raises(SpecError, match=message):
            attacks.parse_all([spec])
