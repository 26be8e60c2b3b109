"""Patches against the closed form on the linear toy, and against the edges of their square."""

from __future__ import annotations

import itertools

import pytest
import torch
from toys import ABCD, SHAPE, Net, generators, grid_canvases, linear, middle_canvases, run

from safemed_eval import attacks, evaluate, load_data, load_model
from safemed_eval.errors import DataError, SpecError
from safemed_eval.models.toy import Brightness, Linear
from safemed_eval.models.waist import Waist
from safemed_eval.threat import Rectangle, Threat

SIZE = 3
EVERYWHERE = [
    Rectangle(top=top, left=left, height=SIZE, width=SIZE)
    for top, left in itertools.product(range(SHAPE[1] - SIZE + 1), range(SHAPE[2] - SIZE + 1))
]


def confident(weight: torch.Tensor) -> tuple[Linear, torch.Tensor]:
    """A linear model that answers every row with A, whatever a patch does, and the labels."""
    return Linear(weight, bias=1000.0), torch.zeros(6, dtype=torch.int64)


def best_margin(toy: Linear, image: torch.Tensor, square: Rectangle) -> float:
    """The lowest margin with a patch in this square: each pixel is 0 where its weight is above 0, else 1."""
    patched = image.clone()
    square.inside(patched).copy_((square.inside(toy.weight) < 0).float())
    return float(toy.margin(patched[None]))


def test_the_best_of_all_positions_is_the_closed_form_optimum() -> None:
    (toy, labels), x = confident(linear().weight), middle_canvases()
    found = run(f"patch:size={SIZE},positions=1000,steps=4", toy, x, labels)
    for image, attacked, square in zip(x, found.canvas, found.rectangles or (), strict=True):
        margins = {square: best_margin(toy, image, square) for square in EVERYWHERE}
        assert square == min(margins, key=margins.__getitem__)
        assert float(toy.margin(attacked[None])) == pytest.approx(margins[square], abs=1e-4)


def test_the_best_of_few_positions_is_the_optimum_in_its_square() -> None:
    """The first positions of a row are those of a search that tries more, so that the best can only get better."""
    (toy, labels), x = confident(linear().weight), middle_canvases()
    margins = []
    for positions in (1, 3, 9):
        found = run(f"patch:size={SIZE},positions={positions},steps=4", toy, x, labels)
        assert found.steps == [4 * positions] * len(x)
        best = [best_margin(toy, image, square) for image, square in zip(x, found.rectangles or (), strict=True)]
        assert toy.margin(found.canvas).tolist() == pytest.approx(best, abs=1e-4)
        margins.append(torch.tensor(best))
    assert (margins[0] >= margins[1]).all() and (margins[1] >= margins[2]).all() and (margins[0] > margins[2]).any()


def test_a_patch_for_any_place_is_the_optimum_at_the_place_where_it_is_judged() -> None:
    """Weights of one sign in each channel have one best patch for all positions."""
    weight = linear().weight.abs() * torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    (toy, labels), x = confident(weight), middle_canvases()
    found = run(f"patch:size={SIZE},positions=2,steps=5,placement=random", toy, x, labels)
    best = [best_margin(toy, image, square) for image, square in zip(x, found.rectangles or (), strict=True)]
    assert toy.margin(found.canvas).tolist() == pytest.approx(best, abs=1e-4)
    assert len(set(found.rectangles or ())) > 1, "each row has its own position"
    assert found.climb is None and found.dead == [0.0] * len(x) and found.steps == [5] * len(x)


def test_a_patch_for_any_place_does_not_know_where_it_is_judged() -> None:
    """The mean gradient: with weights that differ from place to place it cannot be the optimum of a single one."""
    (toy, labels), x = confident(linear().weight), middle_canvases()
    found = run(f"patch:size={SIZE},positions=40,steps=5,placement=random", toy, x, labels)
    best = [best_margin(toy, image, square) for image, square in zip(x, found.rectangles or (), strict=True)]
    assert (toy.margin(found.canvas) > torch.tensor(best) + 0.1).all()


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("placement", ["best", "random"])
def test_nothing_changes_outside_the_square(placement: str, quantize: bool) -> None:
    net, x = Net(), grid_canvases(20)
    labels = net.scores(x, None).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # wrong without a patch
    spec = f"patch:size={SIZE},positions=2,steps=3,placement={placement}"
    found = run(spec, net, x, labels, quantize=quantize)
    assert found.rectangles is not None
    for image, attacked, square in zip(x, found.canvas, found.rectangles, strict=True):
        changed = attacked != image
        if square:
            assert square.inside(changed).any() and square in EVERYWHERE
            square.inside(changed).fill_(False)
        assert not changed.any()
    assert found.rectangles[0] is None and found.steps[0] == 0


def test_a_search_that_leaves_its_region_is_stopped() -> None:
    x, threat = middle_canvases(2), Threat(norm="linf", eps=1.0)
    square = Rectangle(top=1, left=2, height=3, width=4)
    moved = x.clone()
    square.inside(moved).fill_(1.0)
    threat.check(x, moved, rectangles=[square, square])
    for rectangles in ([square, None], [square, Rectangle(top=1, left=2, height=3, width=3)]):
        with pytest.raises(RuntimeError, match="outside its rectangle"):
            threat.check(x, moved, rectangles=rectangles)
    moved[0, 0, 0, 2] = torch.nextafter(moved[0, 0, 0, 2], torch.tensor(1.0))
    with pytest.raises(RuntimeError, match="outside its rectangle"):
        threat.check(x, moved, rectangles=[square, square])


def test_a_patch_larger_than_the_canvas_is_refused_before_the_model_is_loaded() -> None:
    with pytest.raises(SpecError, match="size=65 does not fit on a canvas of 64x64 pixels; name a smaller one"):
        evaluate("builtin:sft", "phantom", attacks=["patch:size=65"])


def test_a_patch_larger_than_an_image_fails_the_item() -> None:
    classify = Waist(Net(), torch.device("cpu")).classify([ABCD] * 6)
    with pytest.raises(DataError, match="patch: size=9 does not fit on a canvas of 8x9 pixels"):
        attacks.parse("patch:size=9")(classify, grid_canvases(), torch.zeros(6, dtype=torch.int64), generators())


def test_the_record_has_the_square() -> None:
    spec = "patch:size=16,steps=2,positions=1"
    records = evaluate(load_model(Brightness()), load_data("phantom:images=2", limit=20), attacks=[spec]).answers.under(
        spec
    )
    assert {record.rectangle is None for record in records} == {True, False}
    for record in records:
        if record.rectangle:
            assert (record.rectangle.height, record.rectangle.width) == (16, 16)
            assert record.rectangle.top <= 48 and record.rectangle.left <= 48
            assert record.to_json()["rectangle"] == vars(record.rectangle)
        else:
            assert record.linf == 0 and "rectangle" not in record.to_json()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("patch:size=0", "size must be at least 1"),
        ("patch:positions=0", "positions must be at least 1"),
        ("patch:placement=everywhere", "not a choice"),
        ("patch:eps=4/255", "unknown option 'eps'"),
    ],
)
def test_bad_specs_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse(spec)
