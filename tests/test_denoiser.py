"""Denoisers before a model: the seam, the names, the training, and their place in runs and reports."""

from __future__ import annotations

import functools
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats as sps
from synthetic import evaluated, numbers, write_run
from test_cli import TOY, call, summary_of
from transformers import TrainerCallback

from safemed_eval import attacks, data, models
from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, ModelOutputError, UserError
from safemed_eval.models.check import check
from safemed_eval.models.denoiser import ResidualDenoiser, Shape, load_denoiser, save_denoiser
from safemed_eval.models.files.denoiser_source import resolve_denoiser
from safemed_eval.models.toy import Brightness, Linear
from safemed_eval.models.waist import Denoise, Waist
from safemed_eval.report import Run
from safemed_eval.report.compare import compare
from safemed_eval.report.page import write_page
from safemed_eval.runs import read_lines, read_meta
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Smoothing
from safemed_eval.smoothing.certify import certify
from safemed_eval.train import DenoiserRecipe
from safemed_eval.train.denoise import _Denoising, fit_denoiser
from safemed_eval.train.log import read_log
from safemed_eval.train.watch.trainer import Means

CPU = torch.device("cpu")
AB = Question(text="Which?", options=("A", "B"))
SMALL = Shape(width=8, blocks=1)
PHANTOM = data.load("phantom:split=train,images=8")
FEW = PHANTOM.items[:4]
HERE = Path(__file__).stem


def doubled(seed: int = 0) -> ResidualDenoiser:
    """A small denoiser that does something."""
    torch.manual_seed(seed)
    denoiser = ResidualDenoiser(SMALL)
    torch.nn.init.normal_(denoiser.tail.weight, std=0.02)
    return denoiser


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_denoiser(doubled(), tmp_path / "denoiser")
    return tmp_path / "denoiser"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same denoiser as a program of torch.export, for any batch."""
    sizes = {0: torch.export.Dim("batch")}
    exported = torch.export.export(doubled(), (torch.rand(2, 3, 64, 64),), dynamic_shapes={"canvas": sizes})
    file = tmp_path_factory.mktemp("program") / "denoiser.pt2"
    torch.export.save(exported, file)
    return file


# ------------------------------------------------------------------------------------------------------- the seam


@pytest.mark.parametrize("identity", [lambda canvas: canvas, torch.clone, ResidualDenoiser(SMALL)])
def test_the_identity_changes_no_bit(
    identity: Denoise, waist: Callable[[str], Waist], questions: list[Question], canvases: torch.Tensor
) -> None:
    bare = waist("qwen2_5_vl")
    behind = Waist(bare.scorer, CPU, identity)
    seen = []
    for model in (bare, behind):
        x = canvases.clone().requires_grad_()
        log_probs = model.classify(questions)(x)
        slope = torch.autograd.grad(log_probs[:, 0].sum(), x)[0]
        seen.append([log_probs, slope, model.vote(questions[0])(canvases)])
        assert model.answer(canvases, questions) == bare.answer(canvases, questions)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


class Scribe:
    """Writes A for what is bright, B else; its votes and its texts are one."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        return ["<answer> A </answer>" if bright else "<answer> B </answer>" for bright in canvas.mean((1, 2, 3)) > 0.5]


class Voter:
    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        return (canvas.mean((1, 2, 3)) <= 0.5).long()


@pytest.mark.parametrize("scorer", [Brightness(), Scribe(), Voter()])
def test_every_way_to_answer_is_behind_the_denoiser_once(scorer: object) -> None:
    """Twice the negative would be the image itself."""
    canvas = torch.full((2, 3, 8, 8), 0.1)
    canvas[1] = 0.8
    model = Waist(scorer, CPU, lambda x: 1 - x)
    assert model.vote(AB)(canvas).tolist() == [0, 1]
    assert model.answer(canvas, [AB, AB]).predictions == [0, 1]
    if model.differentiable:
        assert model.classify([AB, AB])(canvas).argmax(1).tolist() == [0, 1]


def blocks(canvas: torch.Tensor) -> torch.Tensor:
    """Each 2 x 2 block becomes its mean: a linear projection P, which is symmetric."""
    return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(canvas, 2), scale_factor=2, mode="nearest")


def linear(margin: float) -> tuple[Linear, Linear, torch.Tensor]:
    """A linear model, the one that it is behind `blocks` (w . P x = P w . x), and a canvas of that margin to both."""
    weight = torch.randn((3, 6, 6), generator=torch.Generator().manual_seed(0))
    canvas = torch.full((3, 6, 6), 0.5)
    bias = margin - float(Linear(weight).margin(canvas[None]))
    return Linear(weight, bias), Linear(blocks(weight[None])[0], bias), canvas


def test_a_linear_denoiser_has_the_margins_and_the_radius_of_the_closed_form() -> None:
    toy, effective, canvas = linear(2.5)
    model = Waist(toy, CPU, blocks)
    noisy = canvas + torch.randn((5, *canvas.shape), generator=torch.Generator().manual_seed(1))
    log_probs = model.classify([AB] * 5)(noisy)
    assert (log_probs[:, 0] - log_probs[:, 1]).tolist() == pytest.approx(effective.margin(noisy).tolist(), abs=1e-4)
    truth, bare = float(effective.radius(canvas[None])), float(toy.radius(canvas[None]))
    assert truth > 1.5 * bare, "the denoiser drops most of the weight that noise goes through"
    smoothing = Smoothing(sigma=0.3, n0=20, n=200, alpha=0.05)
    radii = [
        certify(model.vote(AB), canvas, smoothing, rng=lambda *k, s=seed: generator("cpu", s, *k), batch=220).radius
        for seed in range(200)
    ]
    known = [radius for radius in radii if radius is not None]
    assert sum(radius > truth for radius in known) <= sps.binom.ppf(0.999, 200, smoothing.alpha)
    assert np.median(known) > max(1.3 * bare, 0.75 * truth) and len(known) == 200


@pytest.mark.parametrize("spec", ["fgsm:eps=4/255", "pgd:eps=0.3,norm=l2,start=zero"])
def test_attacks_go_through_the_denoiser(spec: str) -> None:
    """The optimum is that of the weight behind it; the bare weight's attack would fall short of it."""
    toy, effective, canvas = linear(40.0)
    classify = Waist(toy, CPU, blocks).classify([AB])
    attack, label = attacks.parse(spec), torch.zeros(1, dtype=torch.int64)
    found = attack(classify, canvas[None], label, [generator("cpu", 0)]).canvas
    drop = float(effective.margin(canvas[None]) - effective.margin(found))
    assert drop == pytest.approx(effective.best_drop(attack.threat), rel=1e-4)


def one_nan(canvas: torch.Tensor) -> torch.Tensor:
    broken = torch.zeros(len(canvas))
    broken[-1] = torch.nan
    return canvas + broken.view(-1, 1, 1, 1)


def angry(canvas: torch.Tensor) -> torch.Tensor:
    raise ValueError("too noisy")


@pytest.mark.parametrize("scorer", [Brightness(), Scribe(), Voter()])
@pytest.mark.parametrize(
    ("denoiser", "said"),
    [
        (lambda x: x[..., 1:], r"the denoiser returned torch.float32 \(3, 3, 8, 7\) on cpu, expected"),
        (lambda x: x[:1], r"\(1, 3, 8, 8\)"),
        (torch.Tensor.double, "torch.float64"),
        (lambda x: [x], "the denoiser returned pixels of type list"),
        (one_nan, "the denoiser returned NaN or infinite pixels for 1 of 3 rows"),
        (lambda x: x / 0, "for 3 of 3 rows"),
        (lambda x: x.mul_(1), "the denoiser writes into its input"),
        (angry, f"the denoiser raised ValueError at {HERE}.py"),
    ],
)
def test_a_denoiser_that_breaks_its_promise(denoiser: Any, said: str, scorer: object) -> None:
    with pytest.raises(ModelOutputError, match=said):
        Waist(scorer, CPU, denoiser).vote(AB)(torch.full((3, 3, 8, 8), 0.5))


def test_a_model_may_not_write_into_what_it_is_shown() -> None:
    class Writes(Brightness):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            return super().scores(canvas.add_(1), questions)

    with pytest.raises(ModelOutputError, match="the model writes into its input"):
        Waist(Writes(), CPU, torch.clone).classify([AB])(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("denoiser", "failed"),
    [
        (lambda x: 1 - x, {}),
        (torch.detach, {}),
        (lambda x: x - x.mean((0, 1, 2, 3)) + x, {"rows are independent": "with other questions beside it"}),
        (torch.zeros_like, {"the image matters": ""}),  # the gradient goes straight through what cuts the graph
        (one_nan, {"answers": "the denoiser returned NaN"}),
    ],
)
def test_the_model_check_sees_the_denoiser(
    denoiser: Denoise, failed: dict[str, str], waist: Callable[[str], Waist]
) -> None:
    """All but the comparison with the 8-bit path, which the negative would fail."""
    found = {one.name: one for one in check(Waist(waist("qwen2_5_vl").scorer, CPU, denoiser), (56, 56))}
    assert {name for name, one in found.items() if one.status == "fail"} == set(failed)
    assert all(words in found[name].detail for name, words in failed.items())
    assert "answers" in failed or found["float path against 8-bit path"].status == "pass"


def test_the_official_path_has_no_denoiser(waist: Callable[[str], Waist]) -> None:
    from PIL import Image

    bare = waist("qwen2_5_vl")
    image = Image.new("RGB", (56, 56), (90, 30, 200))
    assert Waist(bare.scorer, CPU, angry).official(image, AB) == bare.official(image, AB)


# ------------------------------------------------------------------------------------------------- files and names


def test_a_denoiser_whose_weights_are_not_finite_is_refused(tmp_path: Path) -> None:
    broken = doubled()
    broken.blocks[0].second.weight.data[0, 0, 0, 0] = torch.inf
    save_denoiser(broken, tmp_path)
    with pytest.raises(CheckpointError, match=r"--denoiser .*: 1 of \d+ values of the weight blocks.0.second.weight"):
        load_denoiser(resolve_denoiser(str(tmp_path)), CPU)


@pytest.mark.parametrize("size", [(64, 64), (17, 30), (2, 5)])
def test_the_network_keeps_every_size_and_every_row_to_itself(size: tuple[int, int]) -> None:
    x = torch.rand((3, 3, *size), generator=torch.Generator().manual_seed(0))
    denoiser = doubled()
    whole = denoiser(x)
    assert whole.shape == x.shape and not torch.equal(whole, x)
    torch.testing.assert_close(denoiser(x[1:2]), whole[1:2])


def test_saved_and_loaded_it_gives_the_same(saved: Path, program: Path) -> None:
    x = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    truth = doubled()(x)
    for name in (str(saved), str(program)):
        denoise = load_denoiser(resolve_denoiser(name, allow_pickle=True), CPU)
        for rows in (x, x[:1]):
            assert torch.equal(denoise(rows), doubled()(rows))
        seen = x.clone().requires_grad_()
        slope = torch.autograd.grad(denoise(seen).square().sum(), seen)[0]
        other = x.clone().requires_grad_()
        torch.testing.assert_close(slope, torch.autograd.grad(doubled()(other).square().sum(), other)[0])
        assert not denoise(x).requires_grad, "its own weights are frozen"
    assert truth.requires_grad


def test_the_identity_is_of_contents(saved: Path, program: Path, tmp_path: Path) -> None:
    bare = models.resolve("builtin:sft").identity
    assert set(bare) == {"weights_sha256", "settings_sha256"}, "as it was before there were denoisers"
    behind = models.resolve("builtin:sft", denoiser=str(saved)).identity
    assert behind == bare | {"denoiser": resolve_denoiser(str(saved)).identity}
    twin = saved.rename(tmp_path / "twin")
    assert models.resolve("builtin:sft", denoiser=str(twin)).identity == behind
    save_denoiser(doubled(seed=1), twin)
    assert models.resolve("builtin:sft", denoiser=str(twin)).identity != behind
    copy = shutil.copy(program, tmp_path / "copy.pt2")
    one, two = (resolve_denoiser(str(file), allow_pickle=True).identity for file in (program, copy))
    assert one == two and len(one["weights_sha256"]) == 64
    python = resolve_denoiser(f"python:{HERE}:make_blocks").identity
    assert python["factory"].endswith("make_blocks") and len(python["module_sha256"]) == 64


def make_blocks() -> Denoise:
    return blocks


def make_nothing() -> None:
    return None


def broken_files(tmp_path: Path) -> None:
    for name in ("settings", "size", "weights", "unfinished"):
        save_denoiser(doubled(), tmp_path / name)
    (tmp_path / "settings/denoiser.json").write_text("{")
    (tmp_path / "size/denoiser.json").write_text('{"width": 9, "blocks": 1}')
    (tmp_path / "weights/denoiser.safetensors").write_bytes(b"torn")
    (tmp_path / "unfinished/denoiser.safetensors").unlink()
    (tmp_path / "text.pt2").write_text("no zip")
    (tmp_path / "notes.txt").write_text("no denoiser")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/b", "c")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("python:mine", "write python:package.module:factory"),
        (f"python:{HERE}:make_block", "did you mean 'make_blocks'?"),
        (f"python:{HERE}:make_nothing", "what the factory returned cannot be called"),
        (f"python:{HERE}:angry", "the factory raised ValueError"),
        ("nowhere", "no such folder or file; name a folder"),
        ("notes.txt", "a file, but not one of torch.export"),
        ("", "there is no denoiser.json in it; `safemed-eval train denoiser` makes one"),
        ("unfinished", "there is no denoiser.safetensors in it"),
        ("settings", "cannot be read as JSON"),
        ("size", "cannot be read: RuntimeError: Error(s) in loading state_dict"),
        ("weights", "cannot be read: SafetensorError"),
        ("text.pt2", "not a program of torch.export, which is a zip archive"),
        ("other.pt2", "torch.export cannot load it"),
    ],
)
def test_what_is_no_denoiser_gets_one_line(name: str, said: str, tmp_path: Path, capfd: Any) -> None:
    broken_files(tmp_path)
    place = name if name.startswith("python:") else str(tmp_path / name)
    with pytest.raises(UserError) as error:
        load_denoiser(resolve_denoiser(place, allow_pickle=True), CPU)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == "", "torch.export is silent about it"


def test_a_program_needs_trust(program: Path, tmp_path: Path) -> None:
    asked = ["models", "check", TOY, "--denoiser", program, "--canvas", "64x64"]
    code, text = call(*asked)
    assert code == 1 and "which can run code when it is read; pass --allow-pickle" in " ".join(text.split())
    code, text = call(*asked, "--allow-pickle")
    assert code == 0 and "behind" in text


# -------------------------------------------------------------------------------------------------------- training


def recipe(**settings: Any) -> DenoiserRecipe:
    """A recipe of seconds: steps of four rows."""
    small = {"width": 8, "blocks": 1, "batch_size": 4, "learning_rate": 1e-2}
    return DenoiserRecipe(**{"sigma": 0.25, **small, **settings})


def test_both_losses_and_the_share_of_kept_answers_by_hand() -> None:
    """Next to no noise, and a denoiser that darkens the brightest of four flat images, which turns its answer."""
    levels = torch.tensor([0.2, 0.3, 0.4, 0.9])
    clean = levels.view(4, 1, 1, 1).expand(4, 3, 8, 8)
    items = [SimpleNamespace(id=str(number), question=AB) for number in range(4)]
    trainer: Any = object.__new__(_Denoising)
    trainer._frozen, trainer._recipe = Waist(Brightness(), CPU), recipe(sigma=1 / 255, mse_share=0.5, steps=4)
    for step, phase in ((1, "mse"), (2, "answer")):
        trainer.state, trainer.means = SimpleNamespace(global_step=step), Means()
        loss = trainer.compute_loss(lambda x: x.clamp_max(0.45), {"items": items, "canvas": clean})
        found = {name: total / weight for name, (total, weight) in trainer.means.gather().items()}
        assert found["denoiser/mse"] == pytest.approx(0.45**2 / 4, rel=0.02)
        if phase == "mse":
            assert float(loss) == pytest.approx(found["denoiser/mse"]) and len(found) == 1
        else:
            of_their_answers = torch.tensor([10 - 20 * 0.2, 10 - 20 * 0.3, 10 - 20 * 0.4, 20 * 0.45 - 10])
            assert float(loss) == pytest.approx(float(-of_their_answers.sigmoid().log().mean()), rel=0.02)
            assert found["denoiser/same_answer"] == 0.75


@pytest.fixture(scope="module")
def frozen() -> Waist:
    return models.load(models.resolve("builtin:sft"), device="cpu")


@pytest.fixture
def train(frozen: Waist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Train a denoiser for builtin:sft on phantom and return its folder."""
    monkeypatch.setattr("safemed_eval.train._loop.LOG_EVERY", 1)

    def run(wanted: DenoiserRecipe, folder: str = "new", callbacks: Sequence[TrainerCallback] = ()) -> Path:
        out = tmp_path / folder
        fit_denoiser(frozen, FEW, PHANTOM.canvas, wanted, out, about={}, callbacks=callbacks)
        return out

    return run


def logged(out: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(out / "training" / "log.jsonl") if "loss" in line]


def test_the_first_losses_by_hand(train: Callable[..., Path], frozen: Waist) -> None:
    """An untrained denoiser is the identity: the mean of the squared noise, or the model's own answers under noise."""
    clean = torch.stack([data.canvas_of(item, PHANTOM.canvas) for item in FEW])
    rngs = [generator("cpu", 0, "denoiser", 0, item.id) for item in FEW]
    noise = torch.stack([torch.empty(clean[0].shape).normal_(0, 0.25, generator=rng) for rng in rngs])
    classify = frozen.classify([item.question for item in FEW])
    with torch.no_grad():
        own, log_probs = classify(clean).argmax(1), classify(clean + noise)
    stability = -log_probs.gather(1, own[:, None]).mean()
    for share, loss in ((1.0, noise.square().mean()), (0.0, stability)):
        (line,) = logged(train(recipe(mse_share=share, steps=1), folder=str(share)))
        assert line["loss"] == pytest.approx(float(loss), rel=1e-4)
        assert line["denoiser/mse"] == pytest.approx(0.0625, rel=0.02)


def test_a_few_steps_lower_both_losses_and_leave_the_model_alone(train: Callable[..., Path], frozen: Waist) -> None:
    before = {name: value.clone() for name, value in frozen.scorer.model.state_dict().items()}
    out = train(recipe(steps=24, mse_share=0.5, stability_learning_rate=1e-2))
    lines = logged(out)
    mse, stability = [line["loss"] for line in lines[:12]], [line["loss"] for line in lines[12:]]
    assert mse[-1] < 0.8 * mse[0]
    assert np.mean(stability[-4:]) < 0.95 * np.mean(stability[:4])
    assert ["denoiser/same_answer" in line for line in lines] == [False] * 12 + [True] * 12
    assert all(torch.equal(value, before[name]) for name, value in frozen.scorer.model.state_dict().items())
    assert (out / "safemed_eval.json").is_file()
    assert json.loads((out / "denoiser.json").read_text()) == {"width": 8, "blocks": 1}


def test_noise_is_new_in_every_step(train: Callable[..., Path]) -> None:
    """Four items are one batch; a denoiser that does not learn stays the identity."""
    lines = logged(train(recipe(steps=3, mse_share=1.0, learning_rate=1e-30)))
    assert len({line["loss"] for line in lines}) == 3


def test_each_objective_has_its_own_warm_up_and_cosine() -> None:
    rates = recipe(steps=300, mse_share=2 / 3, learning_rate=1.0, stability_learning_rate=0.1).rate
    assert [rates(0), rates(200)] == pytest.approx([1 / 6, 0.1 / 3]), "after 3 % of 200, and of 100, at the highest"
    assert [rates(100), rates(250)] == pytest.approx([0.5, 0.05]), "half-way down"
    assert rates(199) < 1e-3 and rates(299) < 1e-4 and rates(300) == pytest.approx(0)
    assert recipe(steps=5, mse_share=1.0).rate(5) == pytest.approx(0, abs=1e-4), "asked for after the last step, too"
    assert recipe(steps=5, mse_share=0.0).mse_steps == 0


class Stop(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


class Began(TrainerCallback):  # type: ignore[misc]
    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.at = state.global_step


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_same_end(train: Callable[..., Path]) -> None:
    wanted = recipe(steps=5, save_every=2, batch_size=2)
    whole = train(wanted, folder="whole")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, folder="cut", callbacks=[Stop()])
    assert not (whole.parent / "cut/denoiser.json").exists()
    began = Began()
    cut = train(wanted, folder="cut", callbacks=[began])
    assert began.at == 2
    one, two = (load_file(out / "denoiser.safetensors") for out in (whole, cut))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [line["loss"] for line in logged(cut)] == [line["loss"] for line in logged(whole)]
    other = load_file(train(replace(wanted, seed=1), folder="other") / "denoiser.safetensors")
    assert not torch.equal(one["tail.weight"], other["tail.weight"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_broken_denoiser_is_not_saved(share: float, train: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"try a lower --.*learning-rate"):
        train(recipe(learning_rate=1e30, stability_learning_rate=1e30, mse_share=share, steps=3))
    assert not (tmp_path / "new/denoiser.json").exists()


def asked(out: Path, *more: object) -> list[object]:
    small = ["--steps", 2, "--batch-size", 4, "--width", 4, "--blocks", 1, "--learning-rate", 0.1]
    where = ["--model", "builtin:sft", "--data", "phantom:split=train,images=4", "--sigma", "1/4", "--out", out]
    return ["train", "denoiser", *where, *small, *more]


def test_from_the_command_to_certificates_and_a_comparison(tmp_path: Path) -> None:
    out = tmp_path / "denoiser"
    code, text = call(*asked(out))
    assert code == 0, text
    for name in ("log.jsonl", "run.json", "training.png", "training.pdf"):
        assert (out / "training" / name).stat().st_size
    about = json.loads((out / "safemed_eval.json").read_text())
    assert (about["recipe"]["sigma"], about["recipe"]["method"], about["canvas"]) == (0.25, "denoiser", "64x64 stretch")
    assert "complete" in call(*asked(out))[1]
    code, text = call(*asked(out, "--seed", 1))
    assert code == 2 and "recipe.seed was 0, now 1" in text
    shared = ["certify", "--model", "builtin:sft", "--data", "phantom:images=16", "--limit", 2]
    shared += ["--sigma", 0.25, "--n0", 5, "--n", 30]
    bare = summary_of(*shared, "--out", tmp_path / "bare")
    found = summary_of(*shared, "--denoiser", out, "--out", tmp_path / "behind")
    assert (bare["asked"]["denoiser"], found["asked"]["denoiser"]) == (None, str(out))
    specs = [read_meta(tmp_path / name)["spec"]["model"] for name in ("bare", "behind")]
    assert "denoiser" not in specs[0] and specs[1] == specs[0] | {"denoiser": resolve_denoiser(str(out)).identity}
    code, text = call(*shared, "--out", tmp_path / "behind")
    assert code == 2 and "holds another run; what was asked differs: model.denoiser was" in text
    assert [r["votes"] for r in read_lines(tmp_path / "bare")] != [r["votes"] for r in read_lines(tmp_path / "behind")]
    assert Run.read(tmp_path / "behind").name == "builtin:sft + denoiser"
    other = compare(tmp_path / "bare", tmp_path / "behind", radii="0")
    assert not other.same_weights and f"the denoisers differ: none, now {out}" in other.notes
    write_page([Run.read(tmp_path / name) for name in ("bare", "behind")], tmp_path / "page.html", title="two")
    page = (tmp_path / "page.html").read_text()
    assert f"builtin:sft, behind the denoiser {out}" in page and "<dt>denoiser</dt>" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sigma", "0"], "sigma must be above 0"),
        (["--sigma", "a quarter"], "--sigma: 'a quarter' is not a number"),
        (["--mse-share", "1.5"], "mse_share is a share of the steps"),
        (["--width", "0"], "width must be at least 1"),
        (["--blocks", "0"], "blocks must be at least 1"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--learning-rate", "nan"], "learning_rate must be above 0"),
        (["--stability-learning-rate", "0"], "stability_learning_rate must be above 0"),
        (["--seed", "-1"], "seed must be in"),
        (["--canvas", "native"], "the images of a batch must have one size"),
        (["--data", "phantom"], "is the test split"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        (["--model", "builtin:nothing"], "no such checkpoint ships"),
        (["--model", TOY, "--dtype", "bfloat16"], "--dtype has no effect on a python: model"),
        (["--model", f"python:{HERE}:Voter"], "the model has no 'scores', only votes"),
    ],
)
def test_bad_input_is_told_before_any_training(arguments: list[str], said: str, tmp_path: Path) -> None:
    code, text = call(*asked(tmp_path / "new", *arguments))
    assert code == 2 and said in text
    assert not (tmp_path / "new").exists()


# --------------------------------------------------------------------------------------------------------- reports


def test_another_denoiser_is_another_model_to_the_gate(tmp_path: Path) -> None:
    def run(name: str, right: int, denoiser: dict[str, str] | None) -> Path:
        model: dict[str, Any] = {"weights_sha256": "w"} | ({"denoiser": denoiser} if denoiser else {})
        records = [evaluated(i, "clean", i < right) for i in range(100)]
        names = {"denoiser": name} if denoiser else {}
        out = tmp_path / name
        return write_run(out, records, "evaluate", conditions=("clean",), spec={"model": model}, names=names)

    hashed = functools.partial(dict, settings_sha256="s")
    one = run("one", 90, hashed(weights_sha256="d"))
    found = compare(one, run("again", 60, hashed(weights_sha256="d")))
    assert found.same_weights and found.verdict == "toolkit changed"
    found = compare(one, run("other", 60, hashed(weights_sha256="e")))
    assert not found.same_weights and found.verdict == "regression"
    python = {"factory": "python:a:b", "module_sha256": "m"}
    found = compare(run("python", 90, python), run("python again", 60, python))
    assert not found.same_weights, "what its function reads is not hashed"
    assert not compare(run("none", 90, None), one).same_weights


def test_the_price_of_the_canvas_is_not_that_of_a_denoiser(tmp_path: Path) -> None:
    records = [
        evaluated(i, name, i < right, steps=None) for name, right in (("clean", 2), ("official", 9)) for i in range(10)
    ]
    for denoiser, cost in ((None, pytest.approx(0.7)), ("d", None)):
        out = write_run(
            tmp_path / str(denoiser),
            records,
            "evaluate",
            conditions=("clean", "official"),
            names={"denoiser": denoiser},
        )
        assert numbers(out).notes.get("canvas_cost") == cost


def test_default_folders_name_the_denoiser_and_stay_as_they_were_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_denoiser(ResidualDenoiser(SMALL), tmp_path / "quiet")
    shared = ["evaluate", "--model", TOY, "--data", "phantom:images=8", "--limit", 4]
    bare, behind = (summary_of(*shared, *more) for more in ([], ["--denoiser", "quiet"]))
    assert "brightness-quiet-images-8" in behind["out"] and "brightness-images-8" in bare["out"]
    records = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in read_lines(Path(run["out"]))]
        for run in (bare, behind)
    ]
    assert records[0] == records[1], "the untrained denoiser is the identity"
