"""`evaluate --domain file`: attacks that are bounded on the image's own pixels, and judged by 8-bit files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_table
from PIL import Image
from test_cli import call

import safemed_eval as se
from safemed_eval.core import Answers, Question
from safemed_eval.data.images.files import fit
from safemed_eval.data.images.resample import Resize
from safemed_eval.errors import RunError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.report.figures._groups import by_scale, canvas_words
from safemed_eval.report.findings.canvas import grey_levels
from safemed_eval.runs.images import kept

SIZE, CANVAS = (48, 64), (12, 16)
RESIZE = Resize(before=SIZE, size=CANVAS)
WEIGHT = torch.randn((3, *CANVAS), generator=torch.Generator().manual_seed(0)) * 0.3
AB = Question(text="?", options=("A", "B"))
ATTACKS = ["fgsm:eps=2/255", "pgd:eps=2/255,steps=4", "pgd:eps=1.5,norm=l2,steps=8", "patch:size=8,steps=4,positions=5"]
BORDER = "pgd:eps=8/255,region=border:4,steps=2"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images of 48 x 64 pixels, of mid-grey levels, so that no attack is stopped by black or white."""
    path = draw_table(tmp_path / "data")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(90, 165, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path.parent / f"{number}.png")
    return path


def model_for(data: Path, distance: float) -> Linear:
    """A linear model whose margin for gold, B, is `distance` at the nearest of the images."""
    model = Linear(WEIGHT)
    margins = [float(model.margin(_shown(data.parent / f"{number}.png")[None])) for number in range(8)]
    model.bias = -max(margins) - distance
    return model


def test_attacked_files_stay_in_their_ball_and_are_judged_as_files(data: Path, tmp_path: Path) -> None:
    model = model_for(data, 1.0)
    out = tmp_path / "run"
    run = se.evaluate(
        model,
        se.load_data(f"table:{data}", canvas="12x16"),
        attacks=[*ATTACKS, BORDER],
        domain="file",
        keep_images=8,
        out=out,
    )
    frame, clean = run.frame(), np.stack([_pixels(data.parent / f"{number}.png") for number in range(8)])
    for attack in [*ATTACKS, BORDER]:
        for number in range(8):
            images = kept(out, f"q{number}", attack)
            assert images is not None
            before, after = (np.rint(image * 255).astype(int) for image in images)
            row = frame[(frame["attack"] == attack) & (frame["item"] == f"q{number}")].iloc[0]
            assert (before == clean[number]).all()
            change = (after - before) / 255
            assert row["linf"] == pytest.approx(np.abs(change).max(), abs=1e-6)
            assert row["l2"] == pytest.approx(np.linalg.norm(change), abs=1e-5)
            if "norm=l2" in attack:
                assert np.linalg.norm(change) <= 1.5 + 1e-9
            elif attack == BORDER:
                assert (after == before)[4:-4, 4:-4].all() and (after != before).any()
            elif "patch" not in attack:
                assert np.abs(after - before).max() <= 2
            file = tmp_path / "attacked.png"
            Image.fromarray(after.astype(np.uint8)).save(file)
            scores = model.scores(_shown(file)[None], [AB]).log_softmax(1)[0]
            assert row["log_probs"][:2] == pytest.approx(scores.tolist(), abs=1e-4)
            assert row["correct"] == (scores[1] > scores[0])
    assert not frame[frame["attack"] != "clean"]["correct"].all()


@pytest.mark.parametrize(("attack", "norm"), [("pgd:eps=3/255,steps=10", 1), ("pgd:eps=6,norm=l2,steps=20", 2)])
def test_an_attack_on_the_file_lowers_the_margin_as_far_as_the_resize_lets_it(
    data: Path, attack: str, norm: int
) -> None:
    """Closed form: in the file's ball the margin w . R x falls by eps ||R^T w||, up to rounding to 8 bits."""
    model = model_for(data, 100.0)  # too far to be reached: PGD goes as far as it can
    run = se.evaluate(model, se.load_data(f"table:{data}", canvas="12x16"), attacks=[attack], domain="file")
    frame = run.frame()
    margins = {name: _margins(frame[frame["attack"] == name]) for name in ("clean", attack)}
    eps = 3 / 255 if norm == 1 else 6.0
    image = torch.zeros((3, *SIZE), dtype=torch.float64, requires_grad=True)
    (transposed,) = torch.autograd.grad(RESIZE(image), image, WEIGHT.double())
    best = eps * float(transposed.norm(p=norm))
    drop = margins[attack] - margins["clean"]
    noise = float(WEIGHT.norm()) / 255  # of rounding on the canvas: independent, at most half a level twice
    assert (drop <= best + 3 * noise).all()
    assert (drop >= 0.93 * best - 3 * noise).all()


def test_clean_answers_are_those_of_the_canvas(data: Path) -> None:
    model, chosen = model_for(data, 0.1), se.load_data(f"table:{data}", canvas="16x9", fit="pad")
    model.weight = torch.randn((3, 16, 9), generator=torch.Generator().manual_seed(1))
    canvas, file = (se.evaluate(model, chosen, circular=True, domain=domain).frame() for domain in ("canvas", "file"))
    assert canvas["log_probs"].tolist() == file["log_probs"].tolist()
    assert canvas["prediction"].tolist() == file["prediction"].tolist()


def test_images_of_different_sizes_are_attacked_together(data: Path) -> None:
    Image.new("RGB", (31, 90), (120, 130, 140)).save(data.parent / "3.png")
    model = model_for(data, 0.05)
    run = se.evaluate(model, se.load_data(f"table:{data}", canvas="12x16"), attacks=["fgsm:eps=4/255"], domain="file")
    assert not run.failed
    assert run.frame()["linf"].max() <= 4 / 255 + 1e-6


def test_official_judges_the_attacked_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An official path that answers gold, B, where the top left pixel is even: it tells which image it was shown."""

    def official(waist: Waist, image: Image.Image, question: Question) -> Answers:
        return Answers(predictions=[1 - int(np.asarray(image)[0, 0, 0]) % 2])

    monkeypatch.setattr(Waist, "official", official)
    chosen, out = se.load_data(f"table:{data}", canvas="64x64"), tmp_path / "run"
    asked = {"attacks": ["noise:eps=60/255"], "official": True}
    run = se.evaluate("builtin:sft", chosen, domain="file", keep_images=8, out=out, **asked)
    frame = run.frame()
    attacked = frame["attack"] == "noise:eps=60/255"
    assert frame[~attacked]["official"].isna().all()
    right = []
    for number, said in zip(frame[attacked]["item"], frame[attacked]["official"], strict=True):
        images = kept(out, number, "noise:eps=60/255")
        assert images is not None
        right.append(round(255 * float(images[1][0, 0, 0])) % 2 == 0)
        assert said == right[-1]
    assert len(set(right)) == 2
    (said,) = [finding.text for finding in run.findings if finding.key == "attacked-files"]
    assert f"right about {100 * np.mean(right):.1f} %" in said
    assert "official" not in se.evaluate("builtin:sft", chosen, **asked).frame()


def test_figures_never_mix_domains_and_compare_refuses_them(data: Path, tmp_path: Path) -> None:
    model, chosen = "builtin:sft", se.load_data(f"table:{data}", canvas="64x64")
    canvas, file = (
        se.evaluate(model, chosen, attacks=["fgsm"], domain=domain, out=tmp_path / domain)
        for domain in ("canvas", "file")
    )
    assert [suffix for suffix, _ in by_scale([canvas, file])] == ["-64x64-stretch", "-64x64-stretch-file"]
    assert canvas_words(file) == "the file's own pixels, canvas 64x64"
    assert grey_levels(file) is None
    with pytest.raises(RunError, match="domain"):
        se.compare(canvas, file)
    assert (
        call(
            "evaluate",
            "--model",
            model,
            "--data",
            f"table:{data}",
            "--canvas",
            "64x64",
            "--domain",
            "file",
            "--attack",
            "fgsm",
            "--out",
            tmp_path / "file",
        )[0]
        == 0
    )  # the same run: nothing is left to do


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--canvas", "native"], "--domain file --canvas native"),
        (["--smooth", "sigma=0.25"], "--domain file asks the model without noise"),
        (["--attack", "universal:eps=8/255"], "leave out --domain file"),
    ],
)
def test_what_has_no_meaning_is_refused(data: Path, more: list[str], words: str) -> None:
    code, text = call("evaluate", "--model", "builtin:sft", "--data", f"table:{data}", "--domain", "file", *more)
    assert code == 2
    assert words in text


def test_real_images(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """A real image at its own size, by the real L2 length of the change of the file."""
    source = next(path for path in sorted(real_data("omnimed_real").rglob("*")) if path.suffix in (".png", ".jpg"))
    path = draw_table(tmp_path / "data", rows=2)
    for number in range(2):
        with Image.open(source) as image:
            image.convert("RGB").save(path.parent / f"{number}.png")
    out = tmp_path / "run"
    attack = "pgd:eps=2,norm=l2,steps=3"
    chosen = se.load_data(f"table:{path}", canvas="64x64", fit="pad")
    run = se.evaluate("builtin:sft", chosen, attacks=[attack], domain="file", keep_images=2, out=out)
    assert not run.failed
    images = kept(out, "q0", attack)
    assert images is not None
    assert images[0].shape == _pixels(source).shape
    assert np.linalg.norm(images[1].astype(float) - images[0]) <= 2 + 1e-4


def _margins(rows: object) -> np.ndarray:
    return np.array([a - b for a, b, *_ in rows["log_probs"]])  # type: ignore[index]


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def _shown(path: Path) -> torch.Tensor:
    return (
        torch.from_numpy(fit(_pixels(path).astype(np.uint8), CANVAS, "stretch").copy()).permute(2, 0, 1).float() / 255
    )
