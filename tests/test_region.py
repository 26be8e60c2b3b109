"""Attacks that may change a region only: containment, closed forms, masks on disk, and what a run says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_api import Brightness
from test_attacks import ALL
from toys import AB, ABCD, SHAPE, WritingLinear, WritingNet, generators, grid_canvases, linear, middle_canvases

import safemed_eval as se
from safemed_eval import attacks
from safemed_eval.attacks import Attack, Attacked, BallAttack, Problem
from safemed_eval.cli import main
from safemed_eval.core import Item, Question
from safemed_eval.data import Canvas, DataSet, region_of, verify_masks
from safemed_eval.data.regions import background_of, otsu
from safemed_eval.errors import DataError, SpecError
from safemed_eval.models.waist import Waist
from safemed_eval.threat import border_width

BALLS = [spec for spec in ALL if isinstance(attacks.parse(spec), BallAttack)]


def half(rows: int = 6) -> torch.Tensor:
    """A region that differs from row to row, some 40 % of the pixels."""
    return torch.rand((rows, 1, *SHAPE[1:]), generator=torch.Generator().manual_seed(4)) < 0.4


def searched(
    attack: str | Attack,
    model: object,
    x: torch.Tensor,
    labels: torch.Tensor,
    region: torch.Tensor | None,
    question: Question = ABCD,
    **options: bool,
) -> Attacked:
    attack = attacks.parse(attack) if isinstance(attack, str) else attack
    classify = Waist(model, torch.device("cpu")).classify([question] * len(x))
    return attack(classify, x, labels, generators(len(x)), region=region, **options)


# ---------------------------------------------------------------------------------------------------------- containment


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("spec", BALLS)
def test_nothing_changes_outside_in_any_attack(spec: str, quantize: bool) -> None:
    net, x, region = WritingNet(), grid_canvases(), half()
    region[0] = False
    labels = net.scores(x, None).argmax(1)
    found = searched(spec, net, x, labels, region, quantize=quantize)
    moved = found.canvas - x
    assert not moved[~region.expand_as(x)].any()
    assert not moved[0].any(), "an empty region leaves the canvas clean"
    assert found.dead is None or found.dead[0] is None
    assert moved[1:].any(), "it searches at all"


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("spec", [spec for spec in BALLS if not spec.startswith("art:H")])
def test_all_of_the_image_is_no_region_bit_for_bit(spec: str, quantize: bool) -> None:
    net, x = WritingNet(), grid_canvases()
    labels = net.scores(x, None).argmax(1)
    whole = searched(spec, net, x, labels, torch.ones_like(half()), quantize=quantize)
    free = searched(spec, net, x, labels, None, quantize=quantize)
    assert torch.equal(whole.canvas, free.canvas)
    assert (whole.steps, whole.parts, whole.climb, whole.dead) == (free.steps, free.parts, free.climb, free.dead)


def test_an_attack_that_knows_of_no_region_is_contained_too() -> None:
    class Careless(BallAttack):
        def search(self, problem: Problem) -> Attacked:
            assert torch.equal(problem.classify(problem.canvas), problem.classify(moved(problem.canvas)))
            return Attacked(canvas=moved(problem.canvas), steps=[1] * len(problem))

    def moved(canvas: torch.Tensor) -> torch.Tensor:
        return canvas + 0.01 * ~region

    net, x, region = WritingNet(), middle_canvases(), half()
    found = searched(Careless(eps=0.1), net, x, net.scores(x, None).argmax(1), region)
    assert torch.equal(found.canvas, x)


def test_the_smoothed_model_gets_noise_outside_as_well() -> None:
    """What is put back is the image, not the noise on it."""
    from safemed_eval.smoothing import Gaussian
    from safemed_eval.smoothing.scores import SmoothedClassify

    net, x, region = WritingNet(), middle_canvases(), half()
    seen: list[torch.Tensor] = []

    class Watched(WritingNet):
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            seen.append(canvas.detach())
            return super().scores(canvas, questions)

    inner = Waist(Watched(), torch.device("cpu")).classify([ABCD] * len(x))
    smooth = SmoothedClassify(inner, noise=Gaussian(0.1), m=3, generators=generators(len(x), "eot"))
    attack = attacks.parse("pgd:eps=0.1,steps=3").on_smoothed
    found = attack(smooth, x, net.scores(x, None).argmax(1), generators(len(x)), region=region)
    assert not (found.canvas - x)[~region.expand_as(x)].any()
    outside = (seen[-1] - x.repeat_interleave(3, dim=0))[~region.repeat_interleave(3, dim=0).expand(-1, 3, -1, -1)]
    assert float(outside.std()) == pytest.approx(0.1, rel=0.1)


# --------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        ("fgsm:eps=4/255", 1),
        ("fgsm:eps=0.3,norm=l2", 1),
        ("pgd:eps=4/255,start=zero", 1),
        ("pgd:eps=4/255", 0.99),
        ("pgd:eps=0.3,norm=l2", 0.99),
        ("pgd:eps=4/255,loss=pm,start=zero", 1),
        ("apgd:eps=4/255,steps=10", 1),
        ("apgd:eps=0.3,norm=l2,steps=10", 0.99),
        ("transfer:eps=4/255,from=itself", 0.99),
        ("adaptive:eps=4/255", 0.99),
    ],
)
def test_the_margin_falls_by_eps_times_the_dual_norm_within_the_region(spec: str, share: float) -> None:
    """L-infinity: eps ||w||_1 over the region's pixels; L2: eps ||w||_2 over them."""
    toy, x, region = linear(WritingLinear), middle_canvases(), half()
    toy.bias = 40.0
    found = searched(spec, toy, x, torch.zeros(len(x), dtype=torch.int64), region, AB).canvas
    threat = attacks.parse(spec).threat
    weights = (toy.weight * region).flatten(1)
    best = threat.eps * (weights.abs().sum(1) if threat.norm == "linf" else weights.norm(dim=1))
    # `margin` is the difference of two scores, of which each moves by half of it.
    scale = toy.best_drop(threat) / (
        threat.eps * float(toy.weight.abs().sum() if threat.norm == "linf" else toy.weight.norm())
    )
    drop = toy.margin(x) - toy.margin(found)
    assert (drop <= scale * best * (1 + 1e-5)).all()
    assert (drop >= scale * best * (share - 1e-5)).all()


def test_l2_starts_fill_the_ball_of_the_region() -> None:
    """With one free pixel of one channel, the share of starts within half of the ball is a half."""
    threat = attacks.parse("pgd:eps=0.4,norm=l2").threat
    x, region = torch.full((400, 1, 2, 2), 0.5), torch.zeros((400, 1, 2, 2), dtype=torch.bool)
    region[:, :, 0, 1] = True
    moved = threat.sample(x, generators(400), region) - x
    assert not moved[~region].any()
    size = threat.size(moved)
    assert size.max() <= 0.4 + 1e-6
    assert float((size < 0.2).double().mean()) == pytest.approx(0.5, abs=0.08)


# -------------------------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize("seed", range(8))
def test_otsu_is_the_threshold_of_least_variance_within_classes(seed: int) -> None:
    """Found by trying all 255, on the other side of the identity total = within + between; and OpenCV's."""
    rng = np.random.default_rng(seed)
    grey = np.concatenate([rng.normal(70, 20, 500), rng.normal(170, 10 + 5 * seed, 300)])
    grey = grey.clip(0, 255).astype(np.uint8).reshape(20, 40)
    within = {}
    for level in range(255):
        low, high = grey[grey <= level], grey[grey > level]
        if len(low) and len(high):
            within[level] = low.var() * len(low) + high.var() * len(high)
    assert otsu(grey) == min(within, key=lambda level: within[level])
    cv2 = pytest.importorskip("cv2")
    assert otsu(grey) == int(cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)[0])


@pytest.mark.parametrize(("outside", "inside"), [(0, 200), (240, 30)])
def test_the_background_is_the_side_at_the_border(outside: int, inside: int) -> None:
    pixels = np.full((20, 30, 3), outside, dtype=np.uint8)
    pixels[5:15, 8:22] = inside
    expected = np.ones((20, 30), dtype=bool)
    expected[5:15, 8:22] = False
    assert np.array_equal(background_of(pixels), expected)
    assert not background_of(np.full((4, 4, 3), 90, dtype=np.uint8)).any(), "of one grey level: none"


def test_a_border_is_a_frame() -> None:
    item, canvas = Item(id="a", question=AB, label=0, image="a.png", root=Path()), Canvas(size=(7, 9))
    clean = torch.zeros((3, 7, 9))
    frame = region_of("border:2", clean, item, canvas)
    assert frame.shape == (1, 7, 9) and int(frame.sum()) == 7 * 9 - 3 * 5
    assert not frame[0, 2:5, 2:7].any()
    assert region_of("border:4", clean, item, canvas).all()


@pytest.mark.parametrize(
    ("text", "written"), [("Background", "background"), ("border:016", "border:16"), ("mask", "mask")]
)
def test_regions_have_one_spelling(text: str, written: str) -> None:
    attack = attacks.parse(f"pgd:region={text}")
    assert str(attack) == f"pgd:eps=4/255,region={written},steps=10"
    assert attacks.parse(str(attack)) == attack
    assert attacks.facts_of(str(attack), attack.described).region == written


@pytest.mark.parametrize("text", ["border", "border:0", "border:-1", "border:x", "edge", "border:3.5"])
def test_other_regions_are_refused(text: str) -> None:
    assert border_width(text) is None
    with pytest.raises(SpecError, match=r"region is background, border:PIXELS .* or mask, got"):
        attacks.parse(f"fgsm:region={text}")


def test_runs_without_a_region_keep_their_identity() -> None:
    assert "region" not in attacks.parse("pgd").described
    assert attacks.parse("pgd:region=mask").described["region"] == "mask"


def test_an_attack_on_a_region_must_be_told_its_pixels() -> None:
    x = middle_canvases(2)
    with pytest.raises(TypeError, match="needs the pixels of its region"):
        searched("fgsm:region=mask", WritingNet(), x, torch.zeros(2, dtype=torch.int64), None)


# ---------------------------------------------------------------------------------------------------------------- masks


def write_table(folder: Path, masks: dict[str, Any], size: tuple[int, int] = (16, 24)) -> Path:
    """A table of images, 16 high and 24 wide, with the masks of this dict, (H, W) arrays, beside them."""
    lines = ["image,question,option_a,option_b,answer"]
    for number, (name, mask) in enumerate(masks.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        if mask is not None:
            Image.fromarray(np.asarray(mask)).save(folder / f"{name}.mask.png")
        lines.append(f"{name}.png,Is it?,Yes,No,{'AB'[number % 2]}")
    table = folder / "data.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def left_half() -> np.ndarray[Any, Any]:
    mask = np.zeros((16, 24), dtype=np.uint8)
    mask[:, :12] = 255
    return mask


def test_a_mask_is_brought_to_the_canvas_as_its_image_is(tmp_path: Path) -> None:
    """Stretched, the left half stays the left half; padded, the bars above and below stay clean."""
    table = write_table(tmp_path, {"a": left_half(), "b": left_half() > 0})
    item = se.load_data(f"table:{table}").items[0]
    stretched = region_of("mask", torch.zeros((3, 32, 32)), item, Canvas(size=(32, 32)))
    assert torch.equal(stretched[0], (torch.arange(32) < 16).expand(32, 32))
    padded = region_of("mask", torch.zeros((3, 24, 24)), item, Canvas(size=(24, 24), fit="pad"))
    assert padded[0, 4:20, :12].all() and int(padded.sum()) == 16 * 12


def test_a_run_on_masks_changes_nothing_else_and_says_how_much_it_may(tmp_path: Path) -> None:
    table = write_table(
        tmp_path, {"a": left_half(), "b": np.zeros((16, 24), np.uint8), "c": np.full((16, 24), 255, np.uint8)}
    )
    data = se.load_data(f"table:{table}", canvas="32x32")
    run = se.evaluate(
        Brightness(), data, attacks=["noise:region=mask", "noise:region=border:4"], keep_images=3, out=tmp_path / "run"
    )
    records = {(record.item, record.attack): record for record in run.records}
    masked = [records[f"row {row}", "noise:eps=4/255,region=mask"] for row in (1, 2, 3)]
    assert [record.region for record in masked] == [0.5, 0, 1]
    assert [record.linf == 0 for record in masked] == [False, True, False]
    assert not any(record.failed for record in run.records)
    (text,) = [finding.sentence for finding in run.findings if "region=mask" in finding.sentence]
    assert "1 of 3 items" in text and "50.0 %" in text
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["spec"]["masks"]
    assert kept == verify_masks(data.items)
    write_table(tmp_path, {"a": ~left_half(), "b": left_half(), "c": left_half()})
    assert verify_masks(data.items) != kept, "another mask is another run"


GREY = np.full((16, 24), 255, np.uint8)
GREY[0, 0] = 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "b.png: mask not found: "),
        (np.full((16, 23), 255, np.uint8), "b.png: its mask has 23 x 16 pixels, the image 24 x 16"),
        (GREY, "b.png: the mask is not an 8-bit image of black (0) and white (255) alone, it has the levels 1, 255"),
        (np.full((16, 24), 65535, np.uint16), "deep greys stretched to 8 bits"),
    ],
)
def test_a_mask_that_cannot_be_used_ends_the_command_in_one_line(
    tmp_path: Path, mask: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path, {"a": left_half(), "b": mask})
    given = ["--model", "builtin:sft", "--data", f"table:{table}", "--attack", "pgd:region=mask"]
    monkeypatch.setattr("sys.argv", ["safemed-eval", "evaluate", *given, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (text,) = capsys.readouterr().err.splitlines()
    assert "--attack pgd:eps=4/255,region=mask,steps=10: 1 of 2 images have no usable mask, b.png: " in text
    assert message in text and "case12.mask.png for case12.png" in text
    assert not (tmp_path / "run").exists()


def test_drawn_images_have_no_masks() -> None:
    data = se.load_data("phantom:images=1", limit=2)
    with pytest.raises(DataError, match="the image is drawn and has no file"):
        verify_masks(data.items)
    assert isinstance(data.set, DataSet)
