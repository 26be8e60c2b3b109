"""Watching a training: validation and the best checkpoint, samples, whole logs, and rewards of one's own."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torture.kills import PATIENCE_S
from transformers import Trainer, TrainerCallback, get_cosine_schedule_with_warmup
from typer.testing import CliRunner

import safemed_eval as se
from safemed_eval import data, models
from safemed_eval.cli import app
from safemed_eval.errors import RunError, SpecError, UserError
from safemed_eval.models.checkpoints.prompts import TEMPLATES
from safemed_eval.models.waist import Waist
from safemed_eval.train import Groups, Lora, Method, Recipe, Threats, _trainers, rewards
from safemed_eval.train.fit import _arguments, fit
from safemed_eval.train.inner.adversary import Adversary
from safemed_eval.train.log import CHECKPOINTS, IMAGES, SAMPLES, WORK, read_log
from safemed_eval.train.make import _settings
from safemed_eval.train.rewards.functions import rewards_of
from safemed_eval.train.watch import settings
from safemed_eval.train.watch.held_out import check_attack, held_out_of, verified
from safemed_eval.train.watch.samples import MOST_TIMES, stride
from safemed_eval.train.watch.settings import Validation, Watch
from safemed_eval.train.watch.trainer import Means, Watched, rate
from safemed_eval.train.watch.validate import Accuracy, Validator

FAMILY = "qwen2_5_vl"
PHANTOM = data.load("phantom:split=train,images=6")
HELD_OUT = data.load("phantom:split=validation,images=2")
PHANTOM_CANVAS = data.Canvas(size=(64, 64))
ASKED = models.Asking(template=TEMPLATES["instruct"])
WEAK = "pgd:eps=2/255,steps=1"
TIMES = ("seconds", "runtime", "per_second", "step_time", "total_flos")
"""Parts of the names of logged values that differ from start to start."""


def recipe(method: Method, **changes: Any) -> Recipe:
    """A recipe of seconds, with everything watched."""
    return Recipe(
        method=method,
        **{
            "threats": Threats(eps=8 / 255, steps=1, share=0.6, warm_up=0.0) if method.startswith("at-") else None,
            "groups": Groups(size=2, mask_truncated=False, max_new_tokens=3) if method.endswith("grpo") else None,
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "validation": Validation(every=1, attack=WEAK),
            "samples": 0,
            **changes,
        },
    )


@pytest.fixture
def train(checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Fit a tiny checkpoint on phantom and return the new one's folder."""
    monkeypatch.setattr("safemed_eval.train._loop.LOG_EVERY", 1)

    def run(wanted: Recipe, folder: str = "new", callbacks: Any = (), log_every: int = 1) -> Path:
        monkeypatch.setattr("safemed_eval.train._loop.LOG_EVERY", log_every)
        source, out = models.resolve(str(checkpoint(FAMILY))), tmp_path / folder
        policy, model = models.load_to_train(source, asking=ASKED)
        held_out = HELD_OUT.items if wanted.validation else ()
        base = source.reference
        fit(
            policy, model, PHANTOM.items, PHANTOM.canvas, wanted, out, base=base, about={}, held_out=held_out,
            callbacks=callbacks,
        )  # fmt: skip
        return out

    return run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let evaluations find these robust accuracies, by step; returns the list of steps that were evaluated."""

    def script(*robust: float) -> list[int]:
        steps: list[int] = []

        def measure(self: Validator, **_: Any) -> Accuracy:
            step = STEP[0]
            steps.append(step)
            return Accuracy(clean_accuracy=1 - robust[step - 1], robust_accuracy=robust[step - 1], items=10)

        monkeypatch.setattr(Validator, "measure", measure)
        return steps

    return script


@pytest.fixture
def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward half of what a tiny model writes: it never answers, and groups that agree teach nothing."""
    monkeypatch.setattr(rewards, "correct", lambda text, *_: float(len(text) % 2))


STEP = [0]


class Counted(TrainerCallback):  # type: ignore[misc]
    """Notes the step for `scripted`, and presses Ctrl-C before a step if asked to."""

    def __init__(self, stop_before: int = -1) -> None:
        self.stop_before = stop_before

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        STEP[0] = state.global_step + 1
        if state.global_step + 1 == self.stop_before:
            raise KeyboardInterrupt


def log_of(out: Path) -> list[dict[str, Any]]:
    return read_log(out / WORK / "log.jsonl")


def evaluated(out: Path) -> dict[int, float]:
    return {line["step"]: line["eval/robust_accuracy"] for line in log_of(out) if "eval/items" in line}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = [folder / name for name in ("model.safetensors", "adapter_model.safetensors") if (folder / name).exists()]
    weights: dict[str, torch.Tensor] = load_file(file)
    return weights


def same(one: Path, other: Path) -> bool:
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def note_of(out: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((out / "safemed_eval.json").read_text())
    return note


# --------------------------------------------------------------------------------------------------- lines of the log


def test_the_last_line_of_the_log_is_of_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a resumption: transformers counts the loss and the seconds from there."""
    told: list[dict[str, float]] = []
    monkeypatch.setattr(Trainer, "log", lambda self, logs, *_, **__: told.append(logs))
    trainer: Any = object.__new__(Watched)
    trainer.means, trainer.state = Means(), SimpleNamespace(global_step=8)
    trainer._total_loss_scalar, trainer._earlier_s = 4.0, 100.0
    trainer.means.add("adversary/loss", 1.0, 3)
    trainer.means.add("adversary/loss", 5.0, 1)
    trainer.means.add("adversary/reward", 0.0, 0)
    trainer.log({"loss": 0.25})
    trainer.log({"train_loss": 9.0, "train_runtime": 3.0})
    assert told == [{"loss": 0.25, "adversary/loss": 2.0}, {"train_loss": 0.5, "train_runtime": 103.0}]
    for trainer.state.global_step in (1, 0):
        trainer.log({"train_loss": 9.0, "train_runtime": 3.0})
        assert told[-1]["train_loss"] == 4.0


def test_means_of_several_processes_are_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Means(), Means()
    one.add("loss", 1.0, 3)
    other.add("loss", 5.0, 1)
    other.add("mine", 2.0, 2)
    monkeypatch.setattr("safemed_eval.train.watch.trainer.gather_object", lambda sums: [*sums, other._sums])
    assert one.gather() == {"loss": (8.0, 4), "mine": (4.0, 2)}


# ----------------------------------------------------------------------------------------------------------- validation


def test_each_accuracy_is_the_share_of_all_items_that_are_right_under_its_condition() -> None:
    """A model that knows the answers about all images but the first, and about noisy images the second only."""
    items = HELD_OUT.items
    clean = torch.stack([data.canvas_of(item, PHANTOM_CANVAS) for item in items])

    class Knows:
        template, model = ASKED.template, torch.nn.Identity()

        def scores(self, canvas: torch.Tensor, questions: Any) -> list[torch.Tensor]:
            return [self.row(*pair) for pair in zip(canvas, questions, strict=True)]

        def row(self, shown: torch.Tensor, question: Any) -> torch.Tensor:
            far = {
                at: float((shown - clean[at]).abs().max()) for at in range(len(items)) if items[at].question == question
            }
            place = min(far, key=lambda at: far[at])
            right = place > 0 and (place == 1 or far[place] < 1e-6)
            answer = (items[place].label + (not right)) % len(question.options)
            return torch.eye(len(question.options))[answer]

    model, spec = Waist(Knows(), torch.device("cpu")), "noise:eps=4/255"
    validator = Validator(model, items, PHANTOM_CANVAS, spec, seed=0, max_new_tokens=4)
    found = validator.measure()
    assert found == Accuracy(clean_accuracy=1 - 1 / len(items), robust_accuracy=1 / len(items), items=len(items))


def test_accuracies_are_those_that_evaluate_measures_of_the_saved_checkpoint(train: Callable[..., Path]) -> None:
    wanted = recipe("at-sft", validation=Validation(every=2, attack=WEAK, best="last"), seed=3, steps=3)
    out = train(wanted)
    lines = [line for line in log_of(out) if "eval/items" in line]
    assert [line["step"] for line in lines] == [2, 3], "the last step is evaluated, too"
    run = se.evaluate(str(out), se.load_data("phantom:split=validation,images=2"), attacks=[WEAK], seed=3)
    row = run.accuracy().iloc[0]
    clean, robust = (np.mean([r.correct for r in run.records if r.attack == name]) for name in ("clean", WEAK))
    assert lines[-1]["eval/items"] == len(HELD_OUT.items) == row["n"]
    assert (lines[-1]["eval/clean_accuracy"], lines[-1]["eval/robust_accuracy"]) == pytest.approx((clean, robust))
    assert 0 < clean < 1, "a tiny model guesses"


@pytest.mark.slow
@pytest.mark.usefixtures("uneven")
@pytest.mark.parametrize("method", ["at-sft", "grpo"])
def test_weights_are_bitwise_the_same_with_and_without_watching(
    method: Method, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout and sampling draw from the global generators, whatever an evaluation draws from them."""
    measure = Validator.measure

    def careless(self: Validator, **how: Any) -> Accuracy:
        random.random(), np.random.rand(), torch.rand(1)
        return measure(self, **how)

    monkeypatch.setattr(Validator, "measure", careless)
    lora = Lora(r=2, dropout=0.3)
    watched = train(
        recipe(method, lora=lora, samples=1, steps=3, validation=Validation(every=1, attack=WEAK, best="last")), "a"
    )
    plain = train(recipe(method, lora=lora, validation=None, steps=3), "b")
    assert same(watched, plain)
    assert [line["loss"] for line in log_of(watched) if "loss" in line] == [
        line["loss"] for line in log_of(plain) if "loss" in line
    ]
    assert any(bool(value.any()) for name, value in weights_of(plain).items() if "lora_B" in name), "it learns"


def test_the_best_is_saved_and_of_equal_ones_the_earlier(
    train: Callable[..., Path], scripted: Callable[..., list[int]]
) -> None:
    scripted(0.2, 0.6, 0.6, 0.5)
    out = train(recipe("at-sft", save_every=1, watch=Watch(keep=2, keep_checkpoints=True)), callbacks=[Counted()])
    kept = {int(path.name.split("-")[1]) for path in (out / WORK / CHECKPOINTS).glob("checkpoint-*")}
    assert kept == {2, 4}, "the best one and the newest"
    assert same(out, out / WORK / CHECKPOINTS / "checkpoint-2")
    assert not same(out, out / WORK / CHECKPOINTS / "checkpoint-4")
    assert note_of(out)["validation"] == {
        "step": 2, "clean_accuracy": 0.4, "robust_accuracy": 0.6, "items": 10, "attack": WEAK, "chosen_by": "robust",
        "last_step": 4, "ended_by_patience": False,
    }  # fmt: skip
    assert evaluated(out) == {1: 0.2, 2: 0.6, 3: 0.6, 4: 0.5}


def test_clean_accuracy_chooses_if_it_is_named_and_checkpoints_go_at_the_end(
    train: Callable[..., Path], scripted: Callable[..., list[int]]
) -> None:
    scripted(0.2, 0.6, 0.1, 0.5)
    out = train(recipe("sft", validation=Validation(every=1, attack=WEAK, best="clean")), callbacks=[Counted()])
    assert note_of(out)["validation"]["step"] == 3
    assert not (out / WORK / CHECKPOINTS).exists()


@pytest.mark.usefixtures("uneven")
def test_an_adapter_of_grpo_gets_its_best_weights_back(
    train: Callable[..., Path], scripted: Callable[..., list[int]]
) -> None:
    scripted(0.2, 0.6, 0.1)
    out = train(recipe("grpo", lora=Lora(r=2), steps=3, watch=Watch(keep_checkpoints=True)), callbacks=[Counted()])
    assert same(out, out / WORK / CHECKPOINTS / "checkpoint-2")
    assert not same(out, out / WORK / CHECKPOINTS / "checkpoint-3")


def test_patience_ends_the_training(train: Callable[..., Path], scripted: Callable[..., list[int]]) -> None:
    steps = scripted(0.2, 0.6, 0.6, 0.5, 0.9, 0.9)
    wanted = recipe("sft", steps=6, validation=Validation(every=1, attack=WEAK, patience=2))
    out = train(wanted, callbacks=[Counted()])
    assert steps == [1, 2, 3, 4]
    about = note_of(out)["validation"]
    assert (about["step"], about["last_step"], about["ended_by_patience"]) == (2, 4, True)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 5])
def test_a_killed_training_goes_on_to_the_same_best_checkpoint(
    stop: int, train: Callable[..., Path], scripted: Callable[..., list[int]]
) -> None:
    """Evaluations before the stop count, in what is best, in patience, and in the log."""
    scripted(0.2, 0.6, 0.6, 0.5, 0.4)
    wanted = recipe("sft", steps=6, save_every=2, validation=Validation(every=1, attack=WEAK, patience=3))
    whole = train(wanted, "whole", callbacks=[Counted()])
    with pytest.raises(KeyboardInterrupt):
        train(wanted, "cut", callbacks=[Counted(stop_before=stop)])
    cut = train(wanted, "cut", callbacks=[Counted()])
    assert note_of(cut)["validation"] == note_of(whole)["validation"]
    assert note_of(cut)["validation"]["last_step"] == 5
    assert evaluated(cut) == evaluated(whole) and len(evaluated(cut)) == 5
    assert [line["step"] for line in log_of(cut) if "loss" in line] == [1, 2, 3, 4, 5]
    assert same(cut, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("best", "patience", "evaluations"),
    [("robust", None, [1, 2, 3, 4]), ("last", None, [1, 2, 3, 4]), ("clean", 2, [1, 2, 3, 3])],
)
def test_a_training_killed_before_it_was_saved_is_saved(
    best: Any,
    patience: int | None,
    evaluations: list[int],
    train: Callable[..., Path],
    scripted: Callable[..., list[int]],
) -> None:
    """It goes on from its last checkpoint, which patience does not make in the end: it would go on from there."""
    steps = scripted(0.2, 0.6, 0.5, 0.7)
    chosen = Validation(every=1, attack=WEAK, best=best, patience=patience)
    wanted = recipe("sft", save_every=1, validation=chosen, watch=Watch(keep_checkpoints=True))
    out = train(wanted, callbacks=[Counted()])
    before, note = weights_of(out), note_of(out)
    for name in ("safemed_eval.json", "model.safetensors"):
        (out / name).unlink()
    train(wanted, callbacks=[Counted()])
    assert note_of(out) == note and steps == evaluations
    assert all(torch.equal(value, before[name]) for name, value in weights_of(out).items())


def test_a_broken_network_has_no_accuracy(checkpoint: Callable[[str], Path]) -> None:
    _, model = models.load_to_train(models.resolve(str(checkpoint(FAMILY))), asking=ASKED)
    validator = Validator(model, HELD_OUT.items, HELD_OUT.canvas, WEAK, seed=0, max_new_tokens=4)
    before = validator.measure()
    assert validator.measure() == before
    next(iter(model.scorer.model.parameters())).data.fill_(math.nan)
    with pytest.raises(se.errors.ModelOutputError, match="on the validation data, the model returned NaN"):
        validator.measure()


def test_a_template_that_asks_for_a_thought_is_answered_by_what_is_written(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as `evaluate --readout generate`."""
    folder = str(checkpoint(FAMILY))
    asked = models.Asking(template=TEMPLATES["think"])
    _, model = models.load_to_train(models.resolve(folder), asking=asked)
    validator = Validator(model, HELD_OUT.items, HELD_OUT.canvas, WEAK, seed=0, max_new_tokens=4)
    judged = se.load_model(folder, template="think", readout="generate", max_new_tokens=4)
    texts = "safemed_eval.models.outputs.parse"
    monkeypatch.setattr(texts, lambda text, question: len(text) % len(question.options))  # a tiny model gives no answer
    run = se.evaluate(judged, se.load_data("phantom:split=validation,images=2"), attacks=[WEAK])
    shares = [np.mean([r.correct for r in run.records if r.attack == name]) for name in ("clean", WEAK)]
    accuracy = validator.measure()
    assert [accuracy.clean_accuracy, accuracy.robust_accuracy] == pytest.approx(shares)
    assert 0 < shares[0] < 1


@pytest.mark.parametrize(
    ("template", "attack", "warned"), [("think", WEAK, 1), ("instruct", WEAK, 0), ("think", "adaptive", 0)]
)
def test_an_attack_that_is_weak_on_a_thinking_model_is_named(
    template: str, attack: str, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    check_attack(Validation(attack=attack), PHANTOM_CANVAS, models.Asking(template=TEMPLATES[template]))
    assert [message.split(":")[0] for message in caplog.messages] == ["--eval-attack pgd"] * warned


def test_images_that_are_trained_on_are_counted_and_another_canvas_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train = se.load_data("phantom:split=train,images=3")
    with caplog.at_level("WARNING"):
        assert verified(se.load_data("phantom:split=validation,images=2"), train)
        assert not caplog.records
        shared = verified(held_out_of("phantom:split=train,images=2", train), train)
    assert shared is not None
    (said,) = caplog.messages
    assert said.startswith(f"--eval-data: {len(shared)} of {len(shared)} items are about images that are trained on")
    wide = se.load_data("phantom:split=validation,images=2", canvas="96x96")
    with pytest.raises(SpecError, match="is on the canvas 96x96 stretch, --data on 64x64 stretch"):
        held_out_of(wide, train)
    with pytest.raises(SpecError, match="is the test split"):
        held_out_of(se.load_data("phantom:images=2"), train)
    assert held_out_of("phantom:split=validation,images=2", wide).canvas == wide.canvas  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- the log


@pytest.mark.slow
@pytest.mark.usefixtures("uneven")
@pytest.mark.parametrize("method", ["at-sft", "grpo"])
def test_a_log_is_whole_after_a_resumption(method: Method, train: Callable[..., Path]) -> None:
    """Stopped before step 5, it goes on from step 2, in the middle of a window of three steps: every value is there."""
    wanted = recipe(method, steps=6, save_every=2, validation=None)
    whole = log_of(train(wanted, "whole", log_every=3))
    with pytest.raises(KeyboardInterrupt):
        train(wanted, "cut", callbacks=[Counted(stop_before=4)], log_every=3)
    cut = log_of(train(wanted, "cut", log_every=3))
    assert [line["step"] for line in cut] == [line["step"] for line in whole] == [1, 3, 6, 6]
    for here, there in zip(cut, whole, strict=True):
        assert here.keys() == there.keys()
        for key in here:
            if not any(part in key for part in TIMES):
                assert here[key] == pytest.approx(there[key], rel=1e-4, nan_ok=True), key
    assert "train_loss" in cut[-1] and cut[2]["num_tokens"] > cut[1]["num_tokens"] > cut[0]["num_tokens"]


def test_train_loss_is_the_mean_of_all_steps(train: Callable[..., Path]) -> None:
    log = log_of(train(recipe("sft", validation=None)))
    losses = [line["loss"] for line in log if "loss" in line]
    assert log[-1]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_means_weigh_every_attacked_row_alike(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    perturb = Adversary.perturb

    def note(self: Adversary, rows: Any, **how: Any) -> Any:
        made.append(perturb(self, rows, **how))
        return made[-1]

    monkeypatch.setattr(Adversary, "perturb", note)
    log = log_of(train(recipe("at-sft", steps=5, validation=None), log_every=6))
    counts = [len(done.attacked) for done in made]
    assert len(set(counts[1:])) > 1, "batches differ in their attacked rows"
    for key, name in (("adversary/loss", "adversarial_loss"), ("adversary/clean_loss", "clean_loss")):
        sums = sum(count * getattr(done, name) for count, done in zip(counts[1:], made[1:], strict=True) if count)
        assert log[-1][key] == pytest.approx(sums / sum(counts[1:]), rel=1e-6)


def test_the_first_step_trains(train: Callable[..., Path], checkpoint: Callable[[str], Path]) -> None:
    """Its rate is a whole step of the warm-up; behind the warm-up it is transformers' schedule."""
    out = train(recipe("sft", steps=1, validation=None))
    old = weights_of(Path(models.resolve(str(checkpoint(FAMILY))).name))
    assert any(not torch.equal(value, old[name]) for name, value in weights_of(out).items() if name in old)
    assert log_of(out)[0]["learning_rate"] == pytest.approx(1e-3)
    rates = [rate(step, warm_up=4, steps=100) for step in range(100)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1] and min(rates) > 0
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=4, num_training_steps=100).lr_lambdas[0]
    assert rates[4:] == pytest.approx([theirs(step) for step in range(4, 100)])
    assert rate(0, warm_up=1, steps=1) == 1


@pytest.mark.parametrize("names", [(), ("wandb",), ("trackio", "mlflow")])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_trackers_are_passed_on(names: Any) -> None:
    told = _arguments(recipe("sft", watch=Watch(report_to=names, keep=5)), Path("x"), cpu=True)
    assert told.report_to == [*names] and told.save_total_limit == 5


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None if name == "wandb" else object())
    assert settings.reporters(["trackio", "tensorboard", "trackio"]) == ("tensorboard", "trackio")
    assert settings.reporters("none") == settings.reporters(()) == ()
    for names, said in (("wandb", "pip install wandb"), ("tb", "not known"), (["none", "mlflow"], "leave one out")):
        with pytest.raises(SpecError, match=said):
            settings.reporters(names)


def test_watching_is_no_part_of_what_was_asked_but_what_chooses_weights_is() -> None:
    plain = _settings(recipe("grpo", validation=None))
    assert plain.keys().isdisjoint({"watch", "samples", "validation"})
    assert plain["groups"].keys().isdisjoint({"loss", "functions"})
    watch = Watch(keep=7, keep_checkpoints=True, report_to=("mlflow",))
    assert _settings(recipe("grpo", validation=None, watch=watch, samples=9)) == plain
    asked = _settings(recipe("grpo", groups=Groups(size=2, mask_truncated=False, max_new_tokens=3, loss="dapo")))
    assert asked["validation"] == {"every": 1, "attack": WEAK, "best": "robust", "patience": None}
    assert asked["groups"]["loss"] == "dapo"


# ------------------------------------------------------------------------------------------------------------- samples


def samples_of(out: Path) -> list[dict[str, Any]]:
    return read_log(out / WORK / SAMPLES)


def pixels(out: Path, name: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    with Image.open(out / WORK / IMAGES / name) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


@pytest.mark.usefixtures("uneven")
def test_samples_show_texts_rewards_and_images_clean_and_attacked(train: Callable[..., Path]) -> None:
    out = train(recipe("at-grpo", samples=2, steps=3, save_every=2, validation=None))
    lines = samples_of(out)
    assert [line["step"] for line in lines] == [2, 2, 3, 3], "without validation data, at each save and at the end"
    assert {line["item"] for line in lines} <= {item.id for item in PHANTOM.items}
    assert lines[0]["item"] == lines[2]["item"] != lines[1]["item"]
    changes = []
    for line in lines:
        assert line["attack"] == "pgd:eps=8/255,steps=10,early_stop=no"
        for side in ("clean", "attacked"):
            assert len(line[side]["texts"]) == 2
            for said in line[side]["texts"]:
                values, text = said["rewards"], said["text"]
                assert values == {"correct": len(text) % 2, "kept": 0, "reward": pytest.approx(len(text) % 2)}
        clean, attacked = (pixels(out, line[side]["image"]) for side in ("clean", "attacked"))
        changes.append(np.abs(clean - attacked).max())
        item = next(item for item in PHANTOM.items if item.id == line["item"])
        assert np.array_equal(clean, np.asarray(item.drawn()))  # type: ignore[misc]
    assert 0 < max(changes) <= 8
    files = [file.stat().st_size for file in (out / WORK / IMAGES).iterdir()]
    assert len(files) == 2 * (1 + 2) and max(files) < 30_000


def test_samples_are_of_validation_data_and_whole_after_a_resumption(train: Callable[..., Path]) -> None:
    wanted = recipe("sft", samples=1, save_every=2, validation=Validation(every=1, attack=WEAK, best="last"))
    whole = samples_of(train(wanted, "whole"))
    assert [line["step"] for line in whole] == [1, 2, 3, 4] and whole[0]["item"] in {item.id for item in HELD_OUT.items}
    with pytest.raises(KeyboardInterrupt):
        train(wanted, "cut", callbacks=[Counted(stop_before=4)])
    assert samples_of(train(wanted, "cut")) == whole
    (said,) = whole[0]["clean"]["texts"]
    assert said["rewards"] in ({"correct": 0.0}, {"correct": 1.0})


def test_samples_are_few() -> None:
    assert [stride(steps, 100) for steps in (50, 3200, 3300, 10**6)] == [1, 1, 2, 313]
    assert 10**6 // 100 // stride(10**6, 100) <= MOST_TIMES


# ------------------------------------------------------------------------------------------- rewards and losses of GRPO


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of reward functions in the current folder."""
    (tmp_path / "own_rewards_of_a_test.py").write_text(
        "def short(text, question, label):\n    return 1 / (1 + len(text))\n"
        "def seldom(text, question, label):\n    return float(label) if len(question.options) == 2 else None\n"
        "def broken(text, question, label):\n    return {}[label]\n"
        "def words(text, question, label):\n    return 'good'\n"
        "def nothing(text, question, label):\n    return float('nan')\n"
        "def two(text, question):\n    return 0\n"
        "def kept(text, question, label):\n    return 0\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_rewards_of_a_test", None)


def own(*names: str) -> Groups:
    return Groups(
        size=2,
        mask_truncated=False,
        max_new_tokens=3,
        functions=rewards_of([f"python:own_rewards_of_a_test:{n}" for n in names]),
    )


@pytest.mark.usefixtures("own_rewards")
def test_functions_of_the_user_reward_with_their_weights_under_their_names(train: Callable[..., Path]) -> None:
    out = train(recipe("grpo", groups=own("short,weight=0.5", "seldom"), validation=None, samples=1, steps=2))
    log = [line for line in log_of(out) if "loss" in line]
    for line in log:
        mine = line["rewards/short/mean"]
        assert 0 < mine < 1
        known = {name: line.get(f"rewards/{name}/mean") for name in ("correct", "kept", "seldom")}
        if known["seldom"] is None:
            assert line["reward"] == pytest.approx(known["correct"] + 0.2 * known["kept"] + 0.5 * mine, rel=1e-4)
    (said, _) = samples_of(out)[0]["clean"]["texts"]
    values = said["rewards"]
    assert values["short"] == pytest.approx(1 / (1 + len(said["text"])))
    total = values["correct"] + 0.2 * values["kept"] + 0.5 * values["short"] + (values["seldom"] or 0)
    assert values["reward"] == pytest.approx(total)
    asked = _settings(recipe("grpo", groups=own("short,weight=0.5")))["groups"]["functions"]
    assert asked[0]["function"] == "python:own_rewards_of_a_test:short" and len(asked[0]["module_sha256"]) == 64


@pytest.mark.usefixtures("own_rewards")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "raised KeyError"),
        ("words", "returned 'good', which is no finite number"),
        ("nothing", "returned nan, which is no finite number"),
    ],
)
def test_a_function_that_fails_is_one_line_that_names_it(name: str, said: str, train: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match=f"--reward python:own_rewards_of_a_test:{name}: {said}"):
        train(recipe("grpo", groups=own(name), validation=None))


@pytest.mark.usefixtures("own_rewards")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["own_rewards_of_a_test.short"], "write python:package.module:function"),
        (["python:own_rewards_of_a_test:short,0.5"], "'0.5' is not weight=NUMBER"),
        (["python:own_rewards_of_a_test:short,weight=much"], "'much' is not a number"),
        (["python:own_rewards_of_a_test:short,height=1"], "'height' is not weight=NUMBER"),
        (["python:own_rewards_of_a_test:shirt"], "did you mean 'short'"),
        (["python:own_rewards_of_a_test:number"], "has no function 'number'"),
        (["python:own_rewards_of_a_test:two"], r"is called with \(text, question, label\), but too many"),
        (["python:no_such_module_here:f"], "No module named"),
        (["python:own_rewards_of_a_test:kept"], "another reward is called 'kept'"),
        (["python:own_rewards_of_a_test:short"] * 2, "another reward is called 'short'"),
    ],
)
def test_a_reward_that_cannot_be_called_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rewards_of(given)


class CaughtError(Exception):
    pass


@pytest.mark.parametrize("loss", ["grpo", "dr-grpo", "dapo", "bnpo"])
def test_losses_by_hand(loss: Any, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ratio of 1 and no KL term a token's loss is minus its advantage: what is left is how they are averaged."""
    told = iter([1.0, 0.0, 0.0, 1.0])
    monkeypatch.setattr(rewards, "correct", lambda *_: next(told))
    monkeypatch.setattr(rewards, "kept", lambda *_: 0.0)
    compute, found = _trainers.GRPOTrainer._compute_loss, list[Any]()

    def shorten(self: Any, model: Any, inputs: Any) -> Any:
        inputs["completion_mask"] = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])[
            : len(inputs["advantages"])
        ]
        inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
        found.extend([compute(self, model, inputs).item(), inputs["advantages"], inputs["completion_mask"]])
        raise CaughtError

    monkeypatch.setattr(_trainers.GRPOTrainer, "_compute_loss", shorten)
    with pytest.raises(CaughtError):
        train(
            recipe(
                "grpo",
                groups=Groups(size=2, beta=0.0, max_new_tokens=3, loss=loss, mask_truncated=False),
                validation=None,
            )
        )
    value, advantages, mask = found
    high = 0.5 if loss == "dr-grpo" else 0.5 / (0.5**0.5 + 1e-4)
    assert sorted(advantages.tolist()) == pytest.approx([-high, -high, high, high], abs=1e-3)
    tokens = -(advantages[:, None] * mask)
    by_hand = {
        "grpo": (tokens.sum(1) / mask.sum(1)).mean(),
        "dr-grpo": tokens.sum() / (4 * 3),
        "dapo": tokens.sum() / mask.sum(),
        "bnpo": tokens.sum() / mask.sum(),
    }
    assert value == pytest.approx(float(by_hand[loss]), abs=1e-5)


# ----------------------------------------------------------------------------------------------------------- command


@pytest.mark.slow
def test_the_command_from_validation_to_the_page_in_two_processes(tmp_path: Path) -> None:
    """Two processes share the validation items, and find what `evaluate` finds; one of them samples."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += ["-m", "safemed_eval"]
    asked = ["train", "at-sft", "--model", "builtin:sft", "--data", "phantom:split=train,images=4", "--device", "cpu"]
    asked += ["--eval-data", "phantom:split=validation,images=8", "--eval-limit", "5", "--eval-attack", WEAK]
    asked += ["--steps", "2", "--batch-size", "2", "--attack-steps", "1", "--samples", "1", "--best", "last"]
    done = subprocess.run(
        [*launch, *asked, "--out", str(tmp_path / "new")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "new" / WORK / "run.json").read_text())["spec"]["processes"] == 2
    (first, second) = [line for line in log_of(tmp_path / "new") if "eval/items" in line]
    held_out = se.load_data("phantom:split=validation,images=8", limit=5)
    run = se.evaluate(str(tmp_path / "new"), held_out, attacks=[WEAK])
    shares = [np.mean([r.correct for r in run.records if r.attack == name]) for name in ("clean", WEAK)]
    assert [second["eval/clean_accuracy"], second["eval/robust_accuracy"]] == pytest.approx(shares)
    assert first["eval/items"] == second["eval/items"] == 5
    assert [sample["step"] for sample in samples_of(tmp_path / "new")] == [1, 2]
    assert se.report([tmp_path / "new"], tmp_path / "page").page.stat().st_size > 10_000


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft", "--eval-every", "5"], "--eval-every: has no effect without --eval-data"),
        (["sft", "--patience", "5"], "--patience: has no effect without --eval-data"),
        (["sft", "--best", "clean"], "--best: has no effect without --eval-data"),
        (["sft", "--eval-attack", "pgd"], "--eval-attack: has no effect without --eval-data"),
        (["sft", "--eval-limit", "5"], "--eval-limit: has no effect without --eval-data"),
        (["sft", "EVAL", "--eval-every", "0"], "eval_every must be at least 1"),
        (["sft", "EVAL", "--eval-every", "11"], "eval_every=11 is more than the 10 steps"),
        (["sft", "EVAL", "--best", "robusst"], "best must be 'robust', 'clean', 'last' or None, got 'robusst'"),
        (["sft", "EVAL", "--patience", "0"], "patience must be at least 1"),
        (["sft", "EVAL", "--patience", "2", "--best", "last"], "it has no effect with best=last"),
        (["sft", "EVAL", "--eval-attack", "pgd:eps=4"], "--eval-attack pgd: eps=4 is more than all of"),
        (["sft", "EVAL", "--eval-attack", "clean"], "name an attack that searches the judged model"),
        (["sft", "EVAL", "--eval-attack", "noise"], "name an attack that searches the judged model"),
        (["sft", "EVAL", "--eval-attack", "universal:eps=4/255"], "name an attack that searches the judged model"),
        (["sft", "EVAL", "--eval-attack", "transfer:from=builtin:sft"], "name an attack that searches"),
        (["sft", "EVAL", "--eval-attack", "adaptive"], "is for models that write a thought"),
        (["sft", "EVAL", "--eval-attack", "patch:size=99"], "--eval-attack patch:"),
        (["sft", "--eval-data", "phantom"], "--eval-data phantom: is the test split"),
        (["sft", "--eval-data", "phantom:split=nope"], "--eval-data: phantom: split: 'nope' is not a choice"),
        (["sft", "--eval-data", "table:nowhere.csv"], "--eval-data: "),
        (["sft", "EVAL", "--eval-limit", "0"], "--eval-data: "),
        (["sft", "--keep", "0"], "keep must be at least 1"),
        (["denoiser", "--sigma", "0.25", "--keep", "0"], "keep must be at least 1"),
        (["sft", "--samples", "17"], "samples must be at least 0, and at most 16"),
        (["sft", "--report-to", "tb"], "--report-to tb: not known"),
        (["sft", "--report-to", "none", "--report-to", "none"], None),
        (["grpo", "--reward", "mine"], "--reward mine: write python:package.module:function"),
    ],
)
def test_bad_input_is_one_line_before_any_compute(arguments: list[str], said: str | None, tmp_path: Path) -> None:
    method, *rest = arguments
    if "EVAL" in rest:
        rest[rest.index("EVAL")] = "--eval-data=phantom:split=validation,images=2"
    asked = ["--model", "builtin:sft", "--data", "phantom:split=train,images=8", "--out", str(tmp_path / "new")]
    steps = ["--steps", "10"] if said else ["--steps", "0"]
    result = CliRunner().invoke(app, ["train", method, *asked, *steps, *rest])
    assert isinstance(result.exception, UserError), result.output
    assert (said or "steps must be at least 1") in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_unreadable_validation_data_are_refused_before_torch(table: Path, tmp_path: Path) -> None:
    (table.parent / "3.png").write_bytes(b"no image")
    asked = ["train", "sft", "--model", "builtin:sft", "--data", "phantom:split=train,images=8", "--out", str(tmp_path)]
    asked += ["--eval-data", f"table:{table}", "--fit", "pad", "--canvas", "64x64"]
    code = f"import sys; from safemed_eval.cli import main; sys.argv[1:] = {asked!r}\n"
    code += "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2 and done.stdout.strip() == "False"
    assert f"--eval-data: table:{table}: 1 of 8 items cannot be used" in " ".join(done.stderr.split())


@pytest.mark.parametrize("option", [["--loss", "dapo"], ["--reward", "python:a:b"]])
def test_supervised_fine_tuning_has_no_rewards(option: list[str]) -> None:
    result = CliRunner().invoke(app, ["train", "at-sft", *option])
    assert result.exit_code == 2 and "No such option" in result.output
    for method in ("sft", "denoiser"):
        with pytest.raises(SpecError, match=f"train {method}: has no option loss"):
            se.train.recipe_of(method, loss="dapo", sigma=0.25)  # type: ignore[arg-type]
