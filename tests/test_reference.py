"""The gate on the toolkit itself: a shipped checkpoint, run again as the committed reference runs were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import call

import safemed_eval
from safemed_eval.attacks import Attacked, Problem, fgsm, pgd
from safemed_eval.attacks._common.base import BallAttack
from safemed_eval.models import resolve
from safemed_eval.runs import read_meta
from safemed_eval.threat import Threat

REFERENCE = Path(__file__).parents[1] / "reports" / "reference"


def again(name: str, out: Path, model: str | None = None) -> Path:
    """Run the reference's own command once more."""
    arguments = list(read_meta(REFERENCE / name)["sessions"][0]["argv"])
    arguments[arguments.index("--out") + 1] = str(out)
    if model:
        arguments[arguments.index("--model") + 1] = model
    code, text = call(*arguments)
    assert code == 0, text
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate-sft", "certify-sft"])
def test_the_toolkit_gives_what_the_reference_says(name: str, tmp_path: Path) -> None:
    found = safemed_eval.compare(REFERENCE / name, again(name, tmp_path / name))
    assert found.same_weights, "the shipped checkpoint changed: make -C reports/reference"
    assert found.verdict == "no regression" and found.exit_code() == 0, found.overall
    assert call("compare", REFERENCE / name, tmp_path / name)[0] == 0


@pytest.mark.parametrize("name", ["evaluate-at-grpo", "certify-at-grpo", "../denoiser/certify-stock"])
def test_every_reference_is_of_the_shipped_checkpoint(name: str) -> None:
    meta = read_meta(REFERENCE / name)
    assert meta["spec"]["model"] == resolve(meta["names"]["model"]).identity


def test_the_denoiser_is_measured_before_the_shipped_checkpoint_and_buys_what_is_said() -> None:
    stock, denoised = (REFERENCE / f"../denoiser/certify-{name}" for name in ("stock", "denoised"))
    specs = [read_meta(out)["spec"]["model"] for out in (stock, denoised)]
    assert specs[1] == specs[0] | {"denoiser": specs[1]["denoiser"]}
    found = safemed_eval.compare(denoised, stock)
    assert found.verdict == "regression", "without it less is certified"


def test_an_attack_that_does_nothing_turns_the_gate_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: object, problem: Problem) -> Attacked:
        return Attacked(canvas=problem.canvas, steps=[0] * len(problem))

    for attack in (fgsm, pgd):
        monkeypatch.setattr(attack.ATTACK, "search", nothing)
    found = safemed_eval.compare(REFERENCE / "evaluate-sft", again("evaluate-sft", tmp_path / "run"))
    assert found.verdict == "toolkit changed" and found.exit_code() == 1
    assert found.overall[-1].drop < -0.3, "accuracy under attack rose"


@pytest.mark.slow
def test_an_attack_with_half_its_budget_turns_the_gate_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halved = property(lambda self: Threat(norm=self.norm, eps=self.eps / 2))
    monkeypatch.setattr(BallAttack, "threat", halved)
    again("evaluate-sft", tmp_path / "run")
    assert call("compare", REFERENCE / "evaluate-sft", tmp_path / "run")[0] == 1


def test_a_weakened_checkpoint_turns_the_gate_red(tmp_path: Path) -> None:
    folder = resolve("builtin:sft").folder
    assert folder is not None
    weak = Path(shutil.copytree(folder, tmp_path / "weak"))
    torch.manual_seed(0)
    weights = load_file(weak / "model.safetensors")
    for name, weight in weights.items():
        weights[name] = weight + 0.5 * weight.float().std(correction=0).to(weight) * torch.randn_like(weight)
    save_file(weights, weak / "model.safetensors", metadata={"format": "pt"})
    again("evaluate-sft", tmp_path / "run", model=str(weak))
    found = safemed_eval.compare(REFERENCE / "evaluate-sft", tmp_path / "run")
    assert not found.same_weights and found.overall[0].measure == "clean"
    assert found.overall[0].verdict == found.verdict == "regression"
    assert call("compare", REFERENCE / "evaluate-sft", tmp_path / "run")[0] == 1
