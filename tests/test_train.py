"""Training: the adversary's promises, GRPO's arithmetic, three real steps of each method, and the command."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback, TrainerState
from trl.trainer.utils import RepeatSampler
from typer.testing import CliRunner

from safemed_eval import data, models
from safemed_eval.cli import app
from safemed_eval.core import Question
from safemed_eval.errors import RunError, UserError
from safemed_eval.models.checkpoints.prompts import TEMPLATES
from safemed_eval.seeds import generator
from safemed_eval.train import Ablation, Groups, Lora, Method, Recipe, Threats, _rows, _trainers, recipe_of, rewards
from safemed_eval.train._agreeing import replaced
from safemed_eval.train._log import Log
from safemed_eval.train._rows import Rows, completion, to_canvas
from safemed_eval.train._vllm import refuse_vllm
from safemed_eval.train.fit import _arguments, _lora, fit
from safemed_eval.train.inner import adversary as adversary_module
from safemed_eval.train.inner.adversary import Adversary, Perturbed
from safemed_eval.train.inner.modes import inner_loop
from safemed_eval.train.log import WORK, read_log
from safemed_eval.train.make import _is_complete, _settings
from safemed_eval.train.rewards import called
from safemed_eval.train.watch.settings import Watch
from safemed_eval.train.watch.trainer import Means

FAMILY = "qwen2_5_vl"
PHANTOM = data.load("phantom:split=train,images=16")
THREATS = Threats(eps=8 / 255, steps=2, share=1.0, warm_up=0.0)
ASKED = models.Asking(template=TEMPLATES["instruct"])


def recipe(method: Method, **settings: Any) -> Recipe:
    """A recipe of seconds: three steps of eight rows."""
    return Recipe(
        method=method,
        **{
            "threats": THREATS if method.startswith("at-") else None,
            "groups": Groups(size=4, max_new_tokens=4, mask_truncated=False) if method.endswith("grpo") else None,
            "steps": 3,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "samples": 0,
            **settings,
        },
    )


@pytest.fixture
def train(checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Fit a tiny checkpoint on phantom and return the new one's folder."""
    monkeypatch.setattr("safemed_eval.train._loop.LOG_EVERY", 1)

    def run(wanted: Recipe, folder: str = "new", start: Path | None = None, callbacks: Any = ()) -> Path:
        source, out = models.resolve(str(start or checkpoint(FAMILY))), tmp_path / folder
        policy, model = models.load_to_train(source, asking=ASKED)
        base = (source.base or source).reference
        fit(policy, model, PHANTOM.items, PHANTOM.canvas, wanted, out, base=base, about={}, callbacks=callbacks)
        return out

    return run


@pytest.fixture
def adversary(checkpoint: Callable[[str], Path]) -> Adversary:
    _, model = models.load_to_train(models.resolve(str(checkpoint(FAMILY))), asking=ASKED)
    return Adversary(model=model, threats=THREATS)


ROWS = [
    Rows(items=PHANTOM.items, canvas=PHANTOM.canvas, template=ASKED.template).row(item) for item in PHANTOM.items[:6]
]


# --------------------------------------------------------------------------------------------- parts of the trainers


def test_the_reference_of_an_adapter_is_the_network_without_it_or_with_the_one_it_began_as() -> None:
    """Without a network of its own the reference is the one in training, which must see clean images then."""
    settings = LoraConfig(target_modules=["0"], r=1)
    network = get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), settings)
    network.add_adapter("ref", settings)
    accelerator = SimpleNamespace(unwrap_model=lambda wrapped: wrapped.whole)
    trainer, wrapped = SimpleNamespace(ref_model=None, accelerator=accelerator), SimpleNamespace(whole=network)
    is_reference: Callable[[Any, Any], object] = _trainers.AdversarialGRPO._is_reference
    assert is_reference(trainer, wrapped) is False
    with network.disable_adapter():
        assert is_reference(trainer, wrapped) is True
    network.set_adapter("ref")
    assert is_reference(trainer, wrapped) is True
    trainer.ref_model = object()
    assert is_reference(trainer, trainer.ref_model) is True and is_reference(trainer, wrapped) is False


def test_fresh_rewards_are_measured_in_the_first_step_and_before_each_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Metrics count once for each attacked row, and those of a batch once."""
    fresh, told = list[int](), list[dict[str, object]]()

    def perturb(rows: object, **how: object) -> Perturbed:
        told.append(how)
        return Perturbed(rows=[], attacked=[0, 2, 3], eps=0.5, flipped=0.25)

    monkeypatch.setattr(
        _trainers, "_fresh_rewards", lambda *asked: fresh.append(asked[-1]) or {"adversary/reward": 2.0}
    )
    adversary = SimpleNamespace(policy="the policy", perturb=perturb)
    state, means = TrainerState(global_step=0, max_steps=10), Means()
    args, accelerator = SimpleNamespace(logging_steps=4), SimpleNamespace(autocast=contextlib.nullcontext)
    trainer: Any = SimpleNamespace(state=state, means=means, args=args, accelerator=accelerator)
    for state.global_step in range(10):
        done = _trainers._perturb(trainer, adversary, [])  # type: ignore[arg-type]
        assert done.attacked == [0, 2, 3]
    assert fresh == [0, 3, 7]
    assert [how["step"] for how in told] == [*range(10)]
    assert [how["progress"] for how in told] == [(step + 1) / 10 for step in range(10)]
    found = means.gather()
    assert found["adversary/flipped"] == (10 * 3 * 0.25, 30) and found["adversary/reward"] == (3 * 3 * 2.0, 9)
    assert found["adversary/eps"] == (10 * 0.5, 10)
    adversary.policy = None
    state.global_step = 11
    _trainers._perturb(trainer, adversary, [])  # type: ignore[arg-type]
    assert fresh == [0, 3, 7], "without a policy there are none"
    assert told[-1]["progress"] == 1.0


@pytest.mark.parametrize("longer", ["batch", "again"])
def test_completions_that_are_drawn_again_take_the_places_of_the_others(longer: str) -> None:
    def batch(first: int, rows: int, width: int) -> dict[str, torch.Tensor]:
        ids = first + torch.arange(rows * width).view(rows, width)
        ones = torch.ones_like(ids)
        return {
            "completion_ids": ids,
            "completion_mask": ones,
            "advantages": first + torch.arange(rows).float(),
            "old_per_token_logps": -ids.float(),
            "token_type_ids": torch.ones(rows, width + 2, dtype=torch.int64),
            "num_items": torch.tensor(7),
        }

    wide, narrow = (4, 2) if longer == "batch" else (2, 4)
    old, new = batch(100, 3, wide), batch(500, 2, narrow)
    found = replaced(old, new, torch.tensor([0, 2]), torch.tensor([1, 0]), pad=-7)

    def padded(rows: list[list[float]], value: float) -> list[list[float]]:
        return [[*row, *[value] * (4 - len(row))] for row in rows]

    def mixed(name: str) -> list[Any]:
        return [new[name][1].tolist(), old[name][1].tolist(), new[name][0].tolist()]

    assert found["completion_ids"].tolist() == padded(mixed("completion_ids"), -7)
    assert found["completion_mask"].tolist() == padded(mixed("completion_mask"), 0)
    assert found["old_per_token_logps"].tolist() == padded(mixed("old_per_token_logps"), 0)
    assert found["advantages"].tolist() == mixed("advantages")
    assert found["token_type_ids"].tolist() == [[1] * (wide + 2) + [0] * (4 - wide)] * 3
    assert found["num_items"] is old["num_items"] and "ref_per_token_logps" not in found
    assert old["completion_ids"].tolist() == batch(100, 3, wide)["completion_ids"].tolist(), "what is given stays"


def test_a_loss_that_is_not_finite_ends_the_training_after_it_is_logged(tmp_path: Path) -> None:
    log, state = Log(tmp_path / "log.jsonl"), TrainerState(global_step=3, is_world_process_zero=True)
    log.on_log(None, state, None, {"loss": 1.5, "eval_my_eval_": 2, "reward": math.inf, "model": object()})
    for loss in (math.nan, math.inf):
        with pytest.raises(RunError, match=r"the loss is not finite at step 3: .* lower --learning-rate"):
            log.on_log(None, state, None, {"loss": loss})
    lines = [{"step": 3, "loss": 1.5, "eval/my_eval_": 2, "reward": None}, *[{"step": 3, "loss": None}] * 2]
    assert read_log(log.file) == lines
    state.is_world_process_zero = False
    log.on_log(None, state, None, {"loss": 1.0})
    assert read_log(log.file) == lines, "one process writes"


# ------------------------------------------------------------------------------------------------------ the adversary


def test_adversarial_rows_are_harder_and_inside_the_ball(adversary: Adversary) -> None:
    found = adversary.perturb(ROWS)
    moved = [
        np.abs(np.int16(new["image"]) - np.int16(old["image"])).max() for new, old in zip(found.rows, ROWS, strict=True)
    ]
    assert 0 < max(moved) <= 8
    assert found.adversarial_loss is not None and found.clean_loss is not None
    assert found.adversarial_loss > found.clean_loss
    assert [row["id"] for row in found.rows] == [row["id"] for row in ROWS]


def test_reported_losses_are_those_of_the_returned_images(adversary: Adversary) -> None:
    found = adversary.perturb(ROWS)
    labels = torch.tensor([row["label"] for row in ROWS])
    for rows, reported in ((ROWS, found.clean_loss), (found.rows, found.adversarial_loss)):
        canvas = torch.stack([to_canvas(row["image"]) for row in rows])
        with torch.no_grad():
            log_probs = adversary.model.classify([row["question"] for row in rows])(canvas)
        assert reported == pytest.approx(float(torch.nn.functional.nll_loss(log_probs, labels)), abs=1e-5)


def test_the_inner_loop_leaves_weights_gradients_and_mode_alone(adversary: Adversary) -> None:
    network = adversary.model.scorer.model.train()
    network.get_input_embeddings().requires_grad_(False)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: (p.clone(), p.requires_grad) for name, p in network.named_parameters()}
    modes: set[bool] = set()
    network.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    adversary.perturb(ROWS)
    assert network.training and modes == {False}
    for name, parameter in network.named_parameters():
        value, wanted = before[name]
        assert torch.equal(parameter, value) and parameter.requires_grad == wanted
        assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_an_easier_image_is_never_returned(adversary: Adversary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the attack helps the model: it walks down the loss."""

    slope = adversary_module._slope
    monkeypatch.setattr(adversary_module, "_slope", lambda *given: -slope(*given))
    found = adversary.perturb(ROWS)
    same = [new["image"].tobytes() == old["image"].tobytes() for new, old in zip(found.rows, ROWS, strict=True)]
    assert sum(same) >= 5
    assert found.adversarial_loss >= found.clean_loss  # type: ignore[operator]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_letters_ascent_is_the_attack_pgd(adversary: Adversary, norm: Any) -> None:
    """Bit by bit, whatever fits into memory."""
    eps = 8 / 255 if norm == "linf" else 1.0
    threats = replace(THREATS, eps=eps, norm=norm, steps=3)
    found = replace(adversary, threats=threats, at_once=4).perturb(ROWS, step=5).rows
    canvas = torch.stack([to_canvas(row["image"]) for row in ROWS])
    classify = adversary.model.classify([row["question"] for row in ROWS])
    rngs = [generator("cpu", 0, "adversary", 5, row["id"]) for row in ROWS]
    labels = torch.tensor([row["label"] for row in ROWS])
    pgd = threats.attack(1.0)(classify, canvas, labels, rngs, quantize=True).canvas
    for new, old, clean in zip(found, pgd, canvas, strict=True):
        assert torch.equal(to_canvas(new["image"]), old) or torch.equal(to_canvas(new["image"]), clean)
    assert sum(torch.equal(to_canvas(new["image"]), old) for new, old in zip(found, pgd, strict=True)) >= 5


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_memory_is_that_of_the_rows_that_go_together_and_of_checkpointing(adversary: Adversary) -> None:
    """Saved activations: half for half of the rows, and a fraction with checkpointing; the images stay the same."""
    network = adversary.model.scorer.model
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}

    def measured(**how: Any) -> tuple[int, list[bytes]]:
        live: dict[int, int] = {}
        most = [0]

        def pack(saved: torch.Tensor) -> torch.Tensor:
            storage = saved.untyped_storage()
            if storage.data_ptr() not in weights:
                live[storage.data_ptr()] = storage.nbytes()
            most[0] = max(most[0], sum(live.values()))
            return saved

        slope = adversary_module._slope

        def fresh(*given: Any) -> torch.Tensor:
            live.clear()
            return slope(*given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adversary_module, "_slope", fresh)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
                rows = replace(adversary, **how).perturb(ROWS).rows
        return most[0], [row["image"].tobytes() for row in rows]

    network.train()
    whole, images = measured()
    halves, same = measured(at_once=3)
    assert halves < 0.7 * whole and same == images
    network.gradient_checkpointing_enable({"use_reentrant": False})
    modes = {name: module.training for name, module in network.named_modules()}
    checkpointed, same = measured()
    assert checkpointed < 0.5 * whole and same == images
    assert {name: module.training for name, module in network.named_modules()} == modes


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_checkpointing_leaves_dropout_off_and_statistics_alone(adversary: Adversary) -> None:
    network = adversary.model.scorer.model.train()
    network.gradient_checkpointing_enable({"use_reentrant": False})
    layer = next(m for m in network.modules() if getattr(m, "gradient_checkpointing", False))
    layer.some_dropout = 0.5
    with inner_loop(network):
        assert layer.training and not any(child.training for child in layer.children())
        assert layer.some_dropout == 0.0
    assert layer.some_dropout == 0.5 and all(module.training for module in network.modules())


def test_share_and_warm_up(adversary: Adversary) -> None:
    half = replace(adversary, threats=replace(THREATS, share=0.5, steps=1))
    batches = [half.perturb(ROWS, step=step).rows for step in range(10)]
    attacked = [new["image"] is not old["image"] for rows in batches for new, old in zip(rows, ROWS, strict=True)]
    assert 20 <= sum(attacked) <= 40
    single = [half.perturb(ROWS[:1], step=step).rows[0]["image"] is not ROWS[0]["image"] for step in range(10)]
    assert single == attacked[::6]
    growing = replace(THREATS, warm_up=0.5)
    assert [growing.attack(p).eps * 255 for p in (0.125, 0.25, 0.5, 1.0)] == pytest.approx([2, 4, 8, 8])


def test_the_same_step_gives_the_same_rows_in_any_batch(adversary: Adversary) -> None:
    whole, alone = adversary.perturb(ROWS, step=3).rows, adversary.perturb(ROWS[2:3], step=3).rows
    other = adversary.perturb(ROWS, step=4).rows
    assert whole[2]["image"].tobytes() == alone[0]["image"].tobytes()
    assert whole[2]["image"].tobytes() != other[2]["image"].tobytes()


def test_the_seed_changes_the_attack(adversary: Adversary) -> None:
    one, other = (replace(adversary, seed=seed).perturb(ROWS[:1]).rows[0]["image"] for seed in (0, 1))
    assert one.tobytes() != other.tobytes()


def test_half_precision_keeps_the_letters_apart(adversary: Adversary) -> None:
    """Under autocast, too, letters are scored in float32."""
    canvas = to_canvas(ROWS[0]["image"])[None]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert adversary.model.scorer.scores(canvas, [ROWS[0]["question"]]).dtype == torch.float32


def test_noise_is_added_beyond_the_range_of_pixels(adversary: Adversary) -> None:
    noisy = replace(adversary, threats=None, noise_sigma=0.25).perturb(ROWS).rows
    change = torch.stack([new["image"] / 255 - to_canvas(old["image"]) for new, old in zip(noisy, ROWS, strict=True)])
    assert change.std() == pytest.approx(0.25, rel=0.02)
    assert min(float(row["image"].min()) for row in noisy) < 0


def test_ablated_images_show_one_band_in_a_place_of_its_own(adversary: Adversary) -> None:
    """After the attack, for each row and step anew, with wrap-around; the rest has the colour that becomes 0."""
    ablating = replace(adversary, threats=None, ablate=Ablation(band=20, share=1))
    fill, starts = torch.tensor(adversary.model.fill), set()
    for step in range(4):
        for old, new in zip(ROWS, ablating.perturb(ROWS, step=step).rows, strict=True):
            clean, shown = to_canvas(old["image"]), new["image"] / 255
            width = clean.shape[2]
            hidden = ((shown - fill.view(3, 1, 1)).abs() < 1e-6).all(0).all(0)
            (start,) = [first for first in range(width) if not hidden[first] and hidden[first - 1]]
            columns = [(start + number) % width for number in range(width)]
            assert not hidden[columns[:20]].any() and hidden[columns[20:]].all()
            torch.testing.assert_close(shown[..., columns[:20]], clean[..., columns[:20]])
            starts.add(start)
    assert len(starts) > 12 and max(starts) > width - 20, "some wrap around"
    alone, other = ablating.perturb(ROWS[2:3], step=3).rows[0], replace(ablating, seed=1).perturb(ROWS, step=3).rows[2]
    assert torch.equal(alone["image"], ablating.perturb(ROWS, step=3).rows[2]["image"])
    assert not torch.equal(alone["image"], other["image"])
    values = adversary.model.scorer.image_inputs(fill.view(3, 1, 1).expand(3, 56, 56), ROWS[0]["question"])[2]
    assert float(values.abs().max()) < 1e-5


def test_a_share_of_rows_stays_whole_and_attacks_come_first(adversary: Adversary) -> None:
    ablating = replace(adversary, ablate=Ablation(band=20, share=0.5))
    attacked = {step: adversary.perturb(ROWS, step=step).rows for step in range(8)}
    whole = 0
    for step, before in attacked.items():
        for old, new in zip(before, ablating.perturb(ROWS, step=step).rows, strict=True):
            same = torch.isclose(new["image"] / 255, to_canvas(old["image"]), atol=1e-6).all(0).all(0)
            assert int(same.sum()) >= 20, "the band shows the attacked image"
            whole += bool(same.all())
    assert 12 <= whole <= 36, "about half of 48"


# ---------------------------------------------------------------------------------------------------- rewards, groups


@pytest.mark.parametrize(
    ("text", "right", "instruct", "think", "after"),
    [
        ("<answer> B </answer>", 1, 1, 0, 0),
        ("<answer>B</answer>", 1, 1, 0, 0),
        ("<answer> A </answer>", 0, 1, 0, 0),
        ("<think> a disc </think><answer> B </answer>", 1, 0, 1, 0),
        ("<think> a disc </think>\n<answer> A </answer>\n", 0, 0, 1, 0),
        ("<think></think><answer> B </answer>", 1, 0, 0, 0),
        ("<think> a <answer> A </answer> </think><answer> B </answer>", 1, 0, 0, 0),
        ("B", 1, 0, 0, 0),
        ("<answer> B </answer> for sure", 1, 0, 0, 0),
        ("<answer> E </answer>", 0, 1, 0, 0),
        ("<answer> B", 1, 0, 0, 0),
        ("", 0, 0, 0, 0),
        ("<answer> B </answer><think> a ring </think>", 1, 0, 0, 1),
        (" <answer>A</answer>\n<think> a disc </think>\n", 0, 0, 0, 1),
        ("<answer> B </answer><think></think>", 1, 0, 0, 0),
        ("<answer> B </answer><think> a disc", 1, 0, 0, 0),
        ("<answer> B </answer><think> a disc </think> B", 1, 0, 0, 0),
    ],
)
def test_rewards(text: str, right: int, instruct: int, think: int, after: int) -> None:
    question = Question(text="What is it?", options=("a ring", "a disc", "a stripe", "a dot"))
    assert rewards.correct(text, question, 1) == right
    names = ("instruct", "think", "think-after")
    assert [rewards.kept(text, TEMPLATES[name]) for name in names] == [instruct, think, after]


def test_what_is_taught_has_the_form_that_is_rewarded_and_the_answer_in_its_place() -> None:
    item = data.load("phantom:images=1").items[0]
    letter, option = item.question.letters[item.label], item.question.options[item.label]
    taught = {name: completion(item, template) for name, template in TEMPLATES.items()}
    assert taught["think-after"] == f"<answer> {letter} </answer><think> {option} </think>"
    for name, text in taught.items():
        assert rewards.kept(text, TEMPLATES[name]) == rewards.correct(text, item.question, item.label) == 1
        assert [other for other in taught if rewards.kept(text, TEMPLATES[other])] == [name]


def test_the_form_is_that_of_the_template() -> None:
    assert [rewards.kept(text, TEMPLATES["letter"]) for text in ("Answer: B", "Answer: B.", "B")] == [1, 1, 0]
    assert rewards.kept("<answer> B </answer>", TEMPLATES["letter"]) == 0


@pytest.mark.parametrize("noisy", [False, True])
def test_a_choice_after_the_thought_is_rewarded_by_what_the_letters_score(adversary: Adversary, noisy: bool) -> None:
    """On the image that the completion is about, whatever answer is written; a thought cut off earns nothing."""
    vlm = adversary.model.scorer
    (correct, _), _ = called.reward_functions(Groups(size=2, readout="think-choice"), vlm)
    rows = replace(adversary, threats=None, noise_sigma=0.1).perturb(ROWS).rows if noisy else ROWS
    tokenizer = vlm.processor.tokenizer
    thought = "<think> bright </think>"
    written = [tokenizer(f"{thought}<answer> {letter} </answer>")["input_ids"] for letter in "ABCDAB"]
    columns = {name: [row[name] for row in rows] for name in ("question", "image")}
    canvas = torch.stack([to_canvas(row["image"]) for row in rows])
    with torch.no_grad():
        best = vlm.scores_after(canvas, columns["question"], [thought] * 6).argmax(1).tolist()
    assert correct(completion_ids=written, label=best, **columns) == [1.0] * 6
    assert correct(completion_ids=written, label=[(one + 1) % 4 for one in best], **columns) == [0.0] * 6
    cut, ended = (
        tokenizer("<think> bright")["input_ids"],
        [*tokenizer("<think> bright")["input_ids"], tokenizer.eos_token_id],
    )
    assert correct(completion_ids=[cut] * 6, label=best, **columns) == [0.0] * 6
    with torch.no_grad():
        best = vlm.scores_after(canvas, columns["question"], ["<think> bright"] * 6).argmax(1).tolist()
    assert correct(completion_ids=[ended] * 6, label=best, **columns) == [1.0] * 6


class CaughtError(Exception):
    pass


def caught(
    train: Callable[..., Path], wanted: Recipe, monkeypatch: pytest.MonkeyPatch, start: Path | None = None
) -> tuple[Any, list[Any], Any]:
    """Return a GRPO trainer's first batch, the image inputs of each pass for log-probabilities, and it."""
    passes: list[Any] = []
    log_probs = _trainers.GRPOTrainer._get_per_token_logps_and_entropies
    score = _trainers.AdversarialGRPO._generate_and_score_completions
    found: list[Any] = []

    def watch(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append((model is self.ref_model, kwargs["pixel_values"]))
        return log_probs(self, model, *args, **kwargs)

    def stop(self: Any, inputs: Any) -> Any:
        found.extend([score(self, inputs), self, inputs])
        raise CaughtError

    monkeypatch.setattr(_trainers.GRPOTrainer, "_get_per_token_logps_and_entropies", watch)
    monkeypatch.setattr(_trainers.AdversarialGRPO, "_generate_and_score_completions", stop)
    with pytest.raises(CaughtError):
        train(wanted, start=start)
    return found[0], passes, found[1:]


def test_advantages_by_hand(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of four: (r - mean) / (std + 1e-4), std with n - 1; a group that agrees has none."""
    told = itertools.cycle([1, 0, 0, 1, 1, 1, 1, 1])
    monkeypatch.setattr(rewards, "correct", lambda *_: float(next(told)))
    monkeypatch.setattr(rewards, "kept", lambda *_: 1.0)
    batch, _, (trainer, _) = caught(train, recipe("at-grpo"), monkeypatch)
    std = (4 * 0.25 / 3) ** 0.5
    high = 0.5 / (std + 1e-4)
    assert batch["advantages"].tolist() == pytest.approx([high, -high, -high, high, 0, 0, 0, 0], abs=2e-3)
    assert trainer._metrics["train"]["frac_reward_zero_std"] == [0.5]


def test_the_reference_sees_the_clean_image_and_the_policy_the_attacked_one(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe("at-grpo")
    assert wanted.groups is not None
    wanted = replace(wanted, groups=replace(wanted.groups, readout="think-choice"))
    batch, passes, (trainer, rows) = caught(train, wanted, monkeypatch)
    ((is_reference, shown),) = passes
    images = [row["image"] for row in rows]
    clean = trainer.processing_class.image_processor(images=images, return_tensors="pt")["pixel_values"]
    assert is_reference
    assert torch.equal(shown, clean)
    assert not torch.equal(batch["pixel_values"], clean)


@pytest.mark.parametrize("continued", [False, True])
def test_the_reference_of_an_adapter_sees_the_clean_image(
    continued: bool, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = train(recipe("sft", lora=Lora(r=2), steps=1), folder="start") if continued else None
    wanted = recipe("at-grpo", lora=None if continued else Lora(r=2))
    _, passes, (trainer, rows) = caught(train, wanted, monkeypatch, start=start)
    clean = trainer.processing_class.image_processor(images=[row["image"] for row in rows], return_tensors="pt")
    ((_, shown),) = passes
    assert torch.equal(shown, clean["pixel_values"])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_what_trl_is_told() -> None:
    """Each figure of the recipe arrives, and what GRPO is here."""
    groups = Groups(size=4, beta=0.03, temperature=1.3, max_new_tokens=5)
    asked = recipe("grpo", groups=groups, accumulate=2, weight_decay=0.1, seed=7, save_every=9, bf16=True)
    told = _arguments(asked, Path("x"), cpu=True)
    assert (told.num_generations, told.beta, told.temperature, told.max_completion_length) == (4, 0.03, 1.3, 5)
    assert (told.loss_type, told.scale_rewards, told.epsilon, told.num_iterations) == ("grpo", "group", 0.2, 1)
    assert not told.use_bias_correction_kl, "DeepSeekMath's divergence, equation 4"
    assert (told.gradient_accumulation_steps, told.steps_per_generation, told.weight_decay) == (2, 2, 0.1)
    assert (told.seed, told.save_steps, told.bf16, told.use_cpu, told.learning_rate) == (7, 9, True, True, 1e-3)
    assert told.mask_truncated_completions
    lora = _lora(recipe("sft", lora=Lora(r=3, dropout=0.1)), network=None)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (3, 6, 0.1, "all-linear")


def test_completions_depend_on_step_item_and_place_alone(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the other rows of the batch, nor on torch's own generator; drawn again, they are others."""
    drawn: list[dict[str, list[list[int]]]] = []
    score = _trainers.AdversarialGRPO._generate_and_score_completions

    def twice(self: Any, inputs: Any) -> Any:
        for step, rows in ((0, inputs), (1, inputs[:4]), (1, inputs[:4]), (0, inputs[4:]), (0, inputs[4:])):
            self.state.global_step = step
            made = score(self, rows)["completion_ids"].tolist()
            torch.rand(1)
            drawn.append({row["id"]: made[i - i % 4 : i - i % 4 + 4] for i, row in enumerate(rows)})
        raise CaughtError

    monkeypatch.setattr(_trainers.AdversarialGRPO, "_generate_and_score_completions", twice)
    with pytest.raises(CaughtError):
        train(recipe("grpo"))
    (first, second), third = drawn[0], 2
    assert drawn[1][first] != drawn[0][first], "another step"
    assert drawn[third][first] != drawn[1][first], "drawn again in the same step"
    assert drawn[3][second] == drawn[0][second], "in another batch"
    assert drawn[4][second] != drawn[3][second]
    assert len({tuple(tokens) for tokens in drawn[0][first]}) > 1, "the completions of a group differ"


def test_completions_are_drawn_from_the_softmax() -> None:
    """The frequencies of 20,000 draws lie within five standard errors of softmax(logits / temperature)."""
    logits, count = torch.tensor([1.0, 0.0, -1.0, 2.0]), 20_000
    sampler = _trainers._Chosen(2.0, [torch.Generator().manual_seed(number) for number in range(count)])
    left = sampler(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, -1))
    assert ((left == 0).sum(1) == 1).all() and (left.isneginf().sum(1) == 3).all()
    share, expected = (left == 0).float().mean(0), (logits / 2).softmax(0)
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt()).all()


def test_completions_that_are_cut_off_train_nothing(
    train: Callable[..., Path], checkpoint: Callable[[str], Path]
) -> None:
    out = train(recipe("grpo", groups=Groups(size=4, max_new_tokens=2), steps=2))
    steps = [line for line in read_log(out / WORK / "log.jsonl") if "loss" in line]
    assert [line["completions/clipped_ratio"] for line in steps] == [1, 1]
    assert [line["loss"] for line in steps] == [line["grad_norm"] for line in steps] == [0, 0]
    old, new = (models.load(models.resolve(str(place))).scorer.model for place in (checkpoint(FAMILY), out))
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_what_trl_is_told_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mode", "gpu_memory_utilization", "max_model_length", "tensor_parallel_size", "server_base_url")

    def told(vllm: str) -> list[Any]:
        groups = recipe_of("grpo", vllm=vllm).groups  # type: ignore[union-attr]
        arguments = _arguments(recipe("grpo", groups=groups), Path("x"), cpu=True)
        assert arguments.use_vllm
        return [groups.vllm, *(getattr(arguments, f"vllm_{name}") for name in names)]

    assert told("colocate") == ["colocate", "colocate", 0.3, None, 1, None]
    of_all = "colocate:memory=0.5,context=4096,tensor_parallel=2"
    assert told("Colocate:tensor_parallel=2,context=4096,memory=1/2") == [of_all, "colocate", 0.5, 4096, 2, None]
    assert told("server") == ["server", "server", 0.3, None, 1, None]
    assert told("server:url=http://host:8000")[-1] == "http://host:8000"
    monkeypatch.setattr("safemed_eval.train._vllm.find_spec", lambda name: object())
    refuse_vllm(of_all, processes=4)
    with pytest.raises(UserError, match="tensor_parallel=2 does not divide the 3 processes"):
        refuse_vllm(of_all, processes=3)


def test_thoughts_may_be_longer_than_answers() -> None:
    lengths = [
        recipe_of("grpo", thinks=thinks, max_new_tokens=given).groups.max_new_tokens  # type: ignore[union-attr]
        for thinks, given in ((False, None), (True, None), (True, 7))
    ]
    assert lengths == [256, 512, 7]


def test_a_group_shares_its_attacked_image(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _, (trainer, rows) = caught(train, recipe("at-grpo"), monkeypatch)
    groups = batch["pixel_values"].view(2, 4, -1)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))
    expected = trainer._adversary.perturb(rows[::4], step=0).rows
    images = trainer.processing_class.image_processor(images=[row["image"] for row in expected], return_tensors="pt")
    assert torch.equal(groups[:, 0], images["pixel_values"].view(2, -1))


def test_the_loss_on_attacked_images_by_hand(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """b KL over right completions less c A log pi, each a mean over tokens and then completions; row by row."""
    monkeypatch.setattr(rewards, "correct", lambda text, question, label: float(sum(map(ord, text)) % 2))
    found: list[float] = []

    def compare(self: Any, model: Any, inputs: Any) -> Any:
        ours = self._robust_loss(model, inputs)
        total, some = 0.0, 0
        for i in range(len(inputs["place"])):
            clean, attacked = self._pairs[inputs["place"][i]]
            tokens = tuple(inputs["completion_ids"][i][inputs["completion_mask"][i].bool()].tolist())
            if not bool(inputs["attacked"][i]) or not tokens:
                continue
            p, q = (self._distributions(model, inputs, torch.tensor([i]), [row])[0] for row in (clean, attacked))
            kl = (p.exp() * (p - q)).sum(1).mean() * bool(inputs["right"][i])
            said = torch.stack([q[place, token] for place, token in enumerate(tokens)])
            texts = [
                torch.cat([inputs[f"prompt_{x}"], inputs[f"completion_{x}"]], 1)[i : i + 1] for x in ("ids", "mask")
            ]
            images = self._image_inputs([attacked]) | {"num_images": [1]}
            images["mm_token_type_ids"] = inputs["mm_token_type_ids"][i : i + 1]
            trl = self._get_per_token_logps_and_entropies(model, *texts, len(tokens), **images)[0][0]
            assert said.tolist() == pytest.approx(trl.tolist(), abs=1e-4)
            said = said.mean()
            total += float(3.0 * kl - 0.5 * inputs["advantages"][i] * said) / len(inputs["place"])
            some += 1
        assert 0 < some < len(inputs["place"])
        found.extend([float(ours), total])
        ours.backward()
        assert all(weight.grad is not None for weight in model.model.visual.parameters())
        raise CaughtError

    monkeypatch.setattr(_trainers.AdversarialGRPO, "_compute_loss", compare)
    threats = replace(THREATS, aim="kl", kl_weight=3.0, gain_weight=0.5, share=0.6)
    groups = Groups(size=4, max_new_tokens=4, mask_truncated=False)
    with pytest.raises(CaughtError):
        train(recipe("at-grpo", threats=threats, groups=groups, batch_size=16))
    ours, by_hand = found
    assert ours == pytest.approx(by_hand, abs=2e-5) and abs(by_hand) > 1e-3


def test_groups_that_agree_are_drawn_again(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of four; the first agrees twice, and keeps its third draw; the second keeps its first."""
    told = iter([[1, 1, 1, 1, 1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    asked: list[int] = []
    written: list[list[list[int]]] = []

    def functions(groups: Any, vlm: Any) -> Any:
        def correct(completion_ids: Any, **_: Any) -> list[float]:
            asked.append(len(completion_ids))
            written.append([list(ids) for ids in completion_ids])
            return [float(value) for value in next(told)]

        return [correct], [1.0]

    monkeypatch.setattr("safemed_eval.train.fit.reward_functions", functions)
    groups = Groups(size=4, max_new_tokens=4, resample_agreeing=5, mask_truncated=False)
    batch, _, (trainer, _) = caught(train, recipe("grpo", groups=groups), monkeypatch)
    assert asked == [8, 4, 4], "the others are not drawn again, and no further draw is made once all differ"
    half, std = 0.25, 0.5
    assert batch["advantages"].tolist() == pytest.approx(
        [3 * half / std, *[-half / std] * 3, *[x / (1 / 3) ** 0.5 for x in (0.5, -0.5, -0.5, 0.5)]], abs=2e-3
    )
    kept = [*written[2], *written[0][4:]]
    for ids, mask, tokens in zip(batch["completion_ids"], batch["completion_mask"], kept, strict=True):
        assert ids[mask.bool()].tolist() == tokens
    assert written[1] != written[0][:4]
    assert trainer._metrics["train"]["frac_reward_zero_std"] == [0.0]
    assert trainer._metrics["train"]["reward"] == [pytest.approx(6 / 8)], "the log has the rewards of the first draw"
    texts = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    images = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    with torch.no_grad():
        again = trainer._get_per_token_logps_and_entropies(
            trainer.ref_model, texts, mask, batch["completion_ids"].shape[1], **images
        )[0]
    shown = batch["completion_mask"].bool()
    assert batch["ref_per_token_logps"][shown].tolist() == pytest.approx(again[shown].tolist(), abs=1e-3)


@pytest.mark.parametrize("aim", ["answer", "reward", "kl"])
def test_each_aim_trains_and_logs_the_expected_reward(aim: Any, train: Callable[..., Path]) -> None:
    out = train(recipe("at-grpo", threats=replace(THREATS, aim=aim), steps=2))
    first = read_log(out / "training" / "log.jsonl")[0]
    assert {"adversary/clean_reward", "adversary/reward", "adversary/loss"} <= first.keys()
    assert ("adversary/kl" in first) == (aim == "kl")


@pytest.mark.parametrize("settings", [{}, {"noise_sigma": 0.1}, {"ablate": Ablation(band=20)}])
def test_sft_is_trained_on_the_rows_of_the_adversary(
    settings: dict[str, Any], train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    made: list[Any] = []
    perturb = Adversary.perturb

    def note(self: Adversary, rows: Any, **how: Any) -> Any:
        made.append((perturb(self, rows, **how), how))
        return made[-1][0]

    def stop(self: Any, model: Any, inputs: Any, **_: Any) -> None:
        seen.extend([inputs["pixel_values"], self.processing_class.image_processor])
        raise CaughtError

    monkeypatch.setattr(Adversary, "perturb", note)
    monkeypatch.setattr(_trainers.SFTTrainer, "compute_loss", stop)
    with pytest.raises(CaughtError):
        train(recipe("at-sft", threats=replace(THREATS, warm_up=1.0), **settings))
    (((found, how),), (pixels, processor)) = made, seen
    assert how == {"step": 0, "progress": pytest.approx(1 / 3), "right": None}
    assert found.eps == pytest.approx(8 / 255 / 3)
    images = [row["image"] for row in found.rows]
    assert torch.equal(pixels, processor(images=images, return_tensors="pt")["pixel_values"])
    assert isinstance(images[0], torch.Tensor) == bool(settings)


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("method", ["sft", "at-sft", "grpo", "at-grpo"])
def test_three_steps_make_a_checkpoint_that_can_be_evaluated(
    method: Method, train: Callable[..., Path], checkpoint: Callable[[str], Path]
) -> None:
    out = train(recipe(method))
    steps = [line for line in read_log(out / "training" / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    if method.startswith("at-"):
        assert all(line["adversary/loss"] > line["adversary/clean_loss"] for line in steps)
    new, old = (
        models.load(source, asking=models.Asking(template=source.template or ASKED.template))
        for source in (models.resolve(str(out)), models.resolve(str(checkpoint(FAMILY))))
    )
    assert new.scorer.asking.template == ASKED.template
    weights = zip(new.scorer.model.parameters(), old.scorer.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in weights)
    canvas = torch.stack([data.canvas_of(item, PHANTOM.canvas) for item in PHANTOM.items[:2]])
    assert new.answer(canvas, [item.question for item in PHANTOM.items[:2]]).log_probs


def test_sft_learns(train: Callable[..., Path]) -> None:
    log = read_log(train(recipe("sft", steps=12, learning_rate=3e-3)) / "training" / "log.jsonl")
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]


def test_trl_asks_as_we_ask(
    train: Callable[..., Path], checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens that are trained on: our prompt, the cue, the letter that is scored, and the end of the turn."""
    batches: list[Any] = []

    def stop(self: Any, model: Any, inputs: Any, **_: Any) -> None:
        batches.append(inputs)
        raise CaughtError

    monkeypatch.setattr(_trainers.SFTTrainer, "compute_loss", stop)
    with pytest.raises(CaughtError):
        train(recipe("at-sft", batch_size=1))
    vlm = models.load(models.resolve(str(checkpoint(FAMILY))), asking=ASKED).scorer
    ids = batches[0]["input_ids"][0].tolist()
    prompts = {
        item.id: vlm.sides.one(vlm.prompt(item.question, ASKED.template.cue), 64, 64)[0]["input_ids"][0].tolist()
        for item in PHANTOM.items
    }
    (item,) = [item for item in PHANTOM.items if ids[: len(prompts[item.id])] == prompts[item.id]]
    rest = ids[len(prompts[item.id]) :]
    assert rest[0] == int(vlm.letters(4)[item.label])
    assert rest[-2:].count(vlm.processor.tokenizer.eos_token_id) == 1


@pytest.mark.slow
def test_lora_trains_an_adapter_that_can_be_trained_on(train: Callable[..., Path]) -> None:
    first = train(recipe("at-grpo", lora=Lora(r=2)))
    assert (first / "adapter_model.safetensors").is_file() and not (first / "model.safetensors").exists()
    second = train(recipe("at-grpo"), folder="second", start=first)
    source = models.resolve(str(second))
    assert not (second / "ref").exists()
    assert Path(json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"]).is_absolute()
    assert source.base is not None and source.template == ASKED.template
    assert models.load(source).differentiable


def test_bf16_and_gradient_checkpointing(train: Callable[..., Path]) -> None:
    out = train(recipe("at-sft", bf16=True, gradient_checkpointing=True))
    assert len([line for line in read_log(out / "training" / "log.jsonl") if "adversary/loss" in line]) == 3


def test_noise_reaches_the_trainer(train: Callable[..., Path]) -> None:
    for method in ("sft", "grpo"):
        assert (train(recipe(method, noise_sigma=0.5), folder=method) / "model.safetensors").is_file()  # type: ignore[arg-type]


def test_ablation_reaches_the_trainer(train: Callable[..., Path]) -> None:
    wanted = recipe("at-grpo", ablate=Ablation(band=20), steps=1)
    assert (train(wanted, folder="at-grpo") / "model.safetensors").is_file()
    assert _settings(wanted)["ablate"] == {"band": 20, "share": 0.5} and "ablate" not in _settings(recipe("sft"))


class Stop(TrainerCallback):  # type: ignore[misc]
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_same_end(train: Callable[..., Path]) -> None:
    wanted = recipe("at-sft", steps=4, save_every=2, ablate=Ablation(band=20), watch=Watch(keep_checkpoints=True))
    whole = train(wanted, folder="whole")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, folder="cut", callbacks=[Stop()])
    cut = train(wanted, folder="cut")
    logs = [[line for line in read_log(out / "training" / "log.jsonl") if "loss" in line] for out in (whole, cut)]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4]
    assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4)
    shutil.rmtree(cut / "training" / "checkpoints" / "checkpoint-4")
    (cut / "training" / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text('{"epo')  # torn by a kill
    again = read_log(train(wanted, folder="cut") / "training" / "log.jsonl")
    assert [line["step"] for line in again if "loss" in line] == [1, 2, 3, 4]


def test_accumulated_steps_are_one_larger_batch(train: Callable[..., Path]) -> None:
    runs = [
        train(recipe("at-sft", batch_size=size, accumulate=8 // size, steps=1), folder=str(size)) for size in (8, 2)
    ]
    first, second = (read_log(out / "training" / "log.jsonl")[0] for out in runs)
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)


@pytest.mark.slow
def test_each_image_is_decoded_once_a_step(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four completions of two questions in each of four accumulated steps, of images that are never kept."""
    decoded: list[str] = []
    canvas_of = _rows.canvas_of

    def note(item: Any, canvas: Any) -> torch.Tensor:
        decoded.append(item.image)
        return canvas_of(item, canvas)

    monkeypatch.setattr(_rows, "canvas_of", note)
    train(recipe("at-grpo", accumulate=4, steps=2))
    images = {item.image for item in PHANTOM.items}
    assert set(decoded) <= images and len(decoded) == len(set(decoded)), "kept images are not decoded again"
    decoded.clear()
    monkeypatch.setattr(_rows, "_PIXELS_KEPT", 0)
    train(recipe("at-grpo", accumulate=4, steps=2), folder="none kept")
    once_a_step = 2 * (8 + 3)  # 8 questions, and one row for each of the other three batches; 256 rows in all
    assert len(decoded) <= once_a_step + 8, "one batch is read ahead"


def test_batches_that_trl_does_not_look_at_hold_one_row() -> None:
    order = RepeatSampler(range(12), mini_repeat_count=2, batch_size=3, repeat_count=3, seed=5)
    trl, ours = list(order), list(_trainers._Once(RepeatSampler(range(12), 2, 3, 3, seed=5)))
    assert len(ours) == len(trl) == 12 * 2 * 3
    for start in range(0, len(trl), 18):
        assert ours[start : start + 6] == trl[start : start + 6]
        assert ours[start + 6 : start + 18] == [trl[start]] * 12


def test_workers_change_nothing(train: Callable[..., Path]) -> None:
    runs = [train(recipe("at-grpo", loader_workers=count, steps=2), folder=str(count)) for count in (0, 2)]
    first, second = (read_log(out / "training" / "log.jsonl")[0] for out in runs)
    for key in ("loss", "reward", "adversary/loss", "grad_norm"):
        assert first[key] == second[key], key


@pytest.mark.parametrize("method", ["sft", "at-sft", "grpo", "at-grpo"])
def test_a_broken_model_is_not_saved(method: Method, train: Callable[..., Path], tmp_path: Path) -> None:
    """Whoever meets the NaN first, loss, adversary or sampling: it is one sentence."""
    with pytest.raises(UserError, match="not finite"):
        train(recipe(method, learning_rate=1e38))
    assert not (tmp_path / "new" / "model.safetensors").exists()


def test_too_few_data_are_not_a_training(train: Callable[..., Path]) -> None:
    few = recipe("grpo", batch_size=512, groups=Groups(size=2, max_new_tokens=2))
    with pytest.raises(UserError, match="only 0 of 3 steps"):
        train(few)


# ------------------------------------------------------------------------------------------------------------ command


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


def test_the_command_makes_log_figure_and_spec_and_is_done_once(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    start, out = str(checkpoint(FAMILY)), tmp_path / "new"
    asked = ["at-sft", "--model", start, "--data", "phantom:split=train,images=8", "--out", str(out), "--steps", "2"]
    asked += ["--batch-size", "4", "--attack-steps", "1", "--modality", "CT"]
    result = command(*asked)
    assert result.exit_code == 0, result.output
    for name in ("log.jsonl", "run.json", "training.png", "training.pdf"):
        assert (out / "training" / name).stat().st_size
    about = json.loads((out / "safemed_eval.json").read_text())
    assert about["recipe"]["method"] == "at-sft" and about["select"]["modality"] == ["ct"]
    assert about["model"] == models.resolve(start).identity, "by which an adapter knows its base again"
    assert "complete" in command(*asked).output
    other = command(*asked, "--seed", "1")
    assert "differs" in str(other.exception) and isinstance(other.exception, UserError)
    assert json.loads((out / "config.json").read_text()).get("use_cache", True)
    assert "local_files_only" not in (out / "tokenizer_config.json").read_text()
    shutil.rmtree(out / "training")
    assert "not how it was trained" in str(command(*asked).exception)


def test_a_training_that_was_killed_as_it_began_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    assert not _is_complete(tmp_path, {"command": "train"})
    (tmp_path / WORK / "run.json.new").write_text("{")
    assert not _is_complete(tmp_path, {"command": "train"})
    (tmp_path / WORK / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not a run folder, it holds thesis\.txt"):
        _is_complete(tmp_path, {"command": "train"})


OF_0_1_0 = """{"command": "train", "load": {"dtype": "auto", "attn": null},
"template": {"user": "{question}\\n{options}\\nGive the letter of the correct option in <answer> </answer> tags.",
"cue": "<answer>"}, "select": {"modality": ["ct"], "question_type": [], "per_group": null, "limit": 8}, "skipped": 0,
"canvas": "64x64 stretch", "processes": 1, "recipe": """
RECIPES_OF_0_1_0 = {
    "at-grpo": """{"method": "at-grpo", "threats": {"eps": null, "steps": 5, "step": null, "norm": "linf",
"share": 0.75, "warm_up": 0.2}, "groups": {"size": 4, "beta": 0.04, "temperature": 1.0, "max_new_tokens": 4,
"correct": 1.0, "kept": 0.2, "readout": "generate", "vllm": null}, "noise_sigma": 0.0, "lora": null, "steps": 1,
"epochs": 1.0, "batch_size": 8, "accumulate": 1, "learning_rate": 1e-06, "weight_decay": 0.0, "bf16": false,
"gradient_checkpointing": false, "seed": 0}""",
    "sft": """{"method": "sft", "threats": null, "groups": null, "noise_sigma": 0.0, "lora": {"r": 2, "alpha": null,
"dropout": 0.0}, "steps": 1, "epochs": 1.0, "batch_size": 16, "accumulate": 1, "learning_rate": 0.0001,
"weight_decay": 0.0, "bf16": false, "gradient_checkpointing": false, "seed": 0}""",
    "denoiser": """{"method": "denoiser", "sigma": 0.25098039215686274, "mse_share": 0.5, "width": 4, "blocks": 1,
"steps": 1, "batch_size": 32, "learning_rate": 0.001, "stability_learning_rate": 3e-05, "seed": 0}""",
}
"""What version 0.1.0 wrote as the spec into `training/run.json`, without the hashes of model and data."""


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("at-grpo", ["--batch-size", "8", "--group-size", "4", "--max-new-tokens", "4"]),
        ("sft", ["--lora", "r=2"]),
        ("denoiser", ["--sigma", "64/255", "--width", "4", "--blocks", "1"]),
    ],
)
def test_a_training_of_version_0_1_0_counts_as_the_same(method: str, options: list[str], tmp_path: Path) -> None:
    spec = json.loads(OF_0_1_0 + RECIPES_OF_0_1_0[method] + "}")
    chosen = data.load_data("phantom:split=train,images=8", modality="CT", limit=8)
    spec |= {"model": models.resolve("builtin:sft").identity, "data": chosen.set.sha256}
    (tmp_path / WORK).mkdir()
    run = {"schema": 1, "spec": spec, "model": {}, "sessions": [{"versions": {"safemed_eval": "0.1.0"}}]}
    run |= {"names": {}, "items": 8, "skipped": [], "conditions": [], "sampled": None, "image_notes": {}}
    (tmp_path / WORK / "run.json").write_text(json.dumps(run))
    (tmp_path / "safemed_eval.json").write_text("{}")
    (tmp_path / WORK / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    asked = ["--model", "builtin:sft", "--data", "phantom:split=train,images=8", "--modality", "CT", "--limit", "8"]
    result = command(method, *asked, "--steps", "1", *options, "--out", str(tmp_path))
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads((tmp_path / WORK / "run.json").read_text()) == run, "it is complete, and not begun again"
    other = command(method, *asked, "--steps", "2", *options, "--out", str(tmp_path))
    assert "steps" in str(other.exception) and isinstance(other.exception, UserError)


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "thesis.txt").write_text("mine")
    result = command("sft", "--model", "builtin:sft", "--data", "phantom:split=train,images=8", "--out", str(tmp_path))
    assert isinstance(result.exception, UserError) and "not a run folder" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["at-sft", "--eps", "4"], "eps=4 is more than all of"),
        (["at-sft", "--eps", "four"], "--eps: 'four' is not a number"),
        (["at-sft", "--attack-steps", "0"], "steps must be at least 1"),
        (["at-grpo", "--group-size", "5"], "a group of 5 does not divide the 16 rows"),
        (["grpo", "--group-size", "1"], "a group needs at least 2"),
        (["grpo", "--beta", "-1"], "beta must be at least 0"),
        (["grpo", "--beta", "inf"], "beta must be at least 0"),
        (["grpo", "--reward-correct", "0"], "the reward of a right answer must be above 0"),
        (["grpo", "--reward-kept", "nan"], "the reward of a right answer must be above 0"),
        (["grpo", "--limit", "1"], "1 items do not fill one batch of GRPO, which needs 2"),
        (["grpo", "--resample-agreeing", "-1"], "resample_agreeing must be in 0 to"),
        (["grpo", "--resample-agreeing", "1", "--vllm", "server"], "does not work with vllm"),
        (["at-grpo", "--kl-weight", "2"], "have no effect without adversary kl"),
        (["at-grpo", "--adversary", "kl", "--gain-weight", "nan"], "must be at least 0"),
        (["at-grpo", "--adversary", "kl", "--loss", "dapo"], "averages as loss grpo does"),
        (["at-grpo", "--adversary", "kl", "--noise-sigma", "0.1"], "leave noise_sigma and ablate out"),
        (["sft", "--loader-workers", "-1"], "loader_workers must be in 0 to"),
        (["grpo", "--vllm", "server", "--noise-sigma", "1"], "vLLM takes 8-bit images"),
        (["grpo", "--vllm", "elsewhere"], "--vllm: 'elsewhere' is not a mode"),
        (["grpo", "--vllm", "colocate:memory=2"], "memory is a share of a GPU's memory"),
        (["grpo", "--vllm", "colocate:url=http://host:8000"], "unknown option 'url'"),
        (["grpo", "--vllm", "server:memory=0.3"], "unknown option 'memory'"),
        (["grpo", "--vllm", "server:url=host"], "'host' is not an address"),
        (["grpo", "--vllm", "colocate"], "vLLM is not installed"),
        (["at-grpo", "--vllm", "server:url=http://host:8000"], "vLLM is not installed"),
        (["grpo", "--max-new-tokens", "0"], "max_new_tokens must be at least 1"),
        (["sft", "--freeze", "vision", "--lora", "r=2"], "an adapter leaves all weights as they are"),
        (["sft", "--freeze", "vision", "--freeze", "language", "--freeze", "projector"], "leaves nothing to train"),
        (["sft", "--freeze", "visual"], "'visual' is not a part"),
        (["sft", "--lora", "r=2,targets=("], "'(' is not a regular expression"),
        (["at-sft", "--norm", "l2"], "norm=l2 needs eps"),
        (["at-sft", "--eps", "0.5/255"], "eps is below 1/255"),
        (["sft", "--learning-rate", "0"], "learning_rate must be above 0"),
        (["sft", "--weight-decay", "nan"], "weight_decay must be at least 0"),
        (["sft", "--seed", "-1"], "seed must be in"),
        (["sft", "--lora", ""], "--lora: needs r="),
        (["sft", "--dtype", "bfloat16"], "small steps would round away"),
        (["sft", "--lora", "rank=4"], "unknown option 'rank'"),
        (["sft", "--data", "phantom"], "is the test split"),
        (["sft", "--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        (["sft", "--model", "builtin:nothing"], "no such checkpoint ships"),
        (["sft", "--model", "python:a:b"], "only a transformers checkpoint can be trained"),
        (["sft", "--template", "shout"], "no such template"),
        (["sft", "--steps", "0"], "steps must be at least 1"),
        (["sft", "--modality", "Sonar"], "--modality 'Sonar'"),
    ],
)
def test_bad_input_is_told_before_any_compute(arguments: list[str], said: str, tmp_path: Path) -> None:
    method, *rest = arguments
    result = command(
        method,
        *("--model", "builtin:sft", "--data", "phantom:split=train,images=8", "--out", str(tmp_path / "new")),
        *rest,
    )
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)
    assert not (tmp_path / "new").exists()
