"""Models that write their answers: decoding, sampling, stopping, and the way from a text to votes and records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from running import answers
from test_cli import call, summary_of
from test_pipeline import evaluation, items

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.errors import ModelOutputError, SpecError
from safemed_eval.models import Asking, load, resolve
from safemed_eval.models.checkpoints.generate import Sampler, Writer
from safemed_eval.models.checkpoints.prompts import TEMPLATES, read_template
from safemed_eval.models.waist import Waist
from safemed_eval.runs import read_lines
from safemed_eval.seeds import generator

CPU = torch.device("cpu")
ABC = Question(text="Which?", options=("a lung", "a liver", "an eye"))


@pytest.fixture
def writer(checkpoint: Callable[[str], Path]) -> Callable[..., Waist]:
    def make(**settings: Any) -> Waist:
        given = {"template": TEMPLATES["instruct"], "max_new_tokens": 6, **settings}
        return load(resolve(str(checkpoint("qwen2_5_vl"))), device="cpu", asking=Asking(readout="generate", **given))

    return make


# ------------------------------------------------------------------ decoding


def test_sampling_draws_from_the_softmax() -> None:
    """20,000 rows with their own generators: frequencies against softmax(logits / T), within five standard errors."""
    logits, temperature, n = torch.tensor([1.0, 0.0, -1.0, 2.0, -torch.inf]), 0.7, 20_000
    noisy = Sampler(temperature, [generator(CPU, "test", row) for row in range(n)])(None, logits.repeat(n, 1))
    found = torch.bincount(noisy.argmax(1), minlength=5) / n
    true = (logits / temperature).softmax(0)
    assert ((found - true).abs() <= 5 * (true * (1 - true) / n).sqrt()).all()
    assert found[4] == 0, "a token that is ruled out stays so"


def test_a_token_that_stands_for_an_image_is_never_sampled() -> None:
    logits = torch.tensor([[9.0, 50.0, 1.0]]).repeat(200, 1)
    rngs = [generator(CPU, "test", row) for row in range(200)]
    assert set(Sampler(1.0, rngs, without=[1, 7])(None, logits).argmax(1).tolist()) <= {0, 2}
    assert Sampler(0.0, rngs, without=[1])(None, logits).argmax(1).tolist() == [0] * 200
    assert float(logits.max()) == 50, "the model's own logits stay as they are"


def test_log_probabilities_of_tokens_are_those_that_are_sampled_from(
    writer: Callable[..., Waist], canvases: torch.Tensor
) -> None:
    """A distribution at each place, at the temperature; without one they add up to those of the text."""
    text, questions, greedy = " B <", [ABC] * 2, writer().scorer
    hot = Writer(greedy.model, greedy.processor, replace(greedy.asking, temperature=0.5))
    tokens = greedy.turn.tokens(text)
    written = [tokens, tokens[:1]]
    plain, warm = (vlm.token_log_probs(canvases[:2], questions, written) for vlm in (greedy, hot))
    assert len(tokens) > 1 and [row.shape[0] for row in plain] == [len(tokens), 1]
    for row, sharp in zip(plain, warm, strict=True):
        torch.testing.assert_close(row.exp().sum(1), torch.ones(len(row)))
        torch.testing.assert_close(sharp, (row / 0.5).log_softmax(1))
    forced = torch.stack([row[at, token] for row in plain[:1] for at, token in enumerate(tokens)]).mean()
    torch.testing.assert_close(forced, greedy.text_log_probs(canvases[:1], questions[:1], [text])[0])


def test_a_sampled_row_is_answered_alike_in_any_batch(writer: Callable[..., Waist], canvases: torch.Tensor) -> None:
    hot = writer(temperature=1.5, seed=1)
    together = hot.answer(canvases, [ABC] * 3).texts
    assert together == [hot.answer(row[None], [ABC]).texts[0] for row in canvases]
    assert together == hot.answer(canvases.flip(0), [ABC] * 3).texts[::-1]
    assert together != writer(temperature=1.5, seed=2).answer(canvases, [ABC] * 3).texts
    nearly = canvases + 1e-6
    assert together != hot.answer(nearly, [ABC] * 3).texts, "every noisy copy is a draw of its own"
    greedy = writer()
    assert greedy.answer(nearly, [ABC] * 3).texts == greedy.answer(canvases, [ABC] * 3).texts


def test_the_checkpoints_own_sampling_settings_are_left_out(
    checkpoint: Callable[[str], Path], tmp_path: Path, canvases: torch.Tensor
) -> None:
    import shutil

    folder = shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "m")
    settings = json.loads((folder / "generation_config.json").read_text())
    changed = settings | {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "max_new_tokens": 1}
    asking = Asking(readout="generate", max_new_tokens=6)
    expected = load(resolve(str(folder)), device="cpu", asking=asking).answer(canvases, [ABC] * 3)
    (folder / "generation_config.json").write_text(json.dumps(changed))
    assert load(resolve(str(folder)), device="cpu", asking=asking).answer(canvases, [ABC] * 3) == expected


def test_rows_stop_at_the_closing_tag(
    writer: Callable[..., Waist], canvases: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made to write these tokens, each row ends at its own tag, and is read."""
    waist = writer(max_new_tokens=200)
    tokenizer = waist.scorer.processor.tokenizer
    scripts = [
        "<answer> B </answer> and more",
        "<think>long thoughts</think><answer>C</answer> and more",
        "no tags here",
    ]
    tokens = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in scripts]
    step = iter(range(1000))

    def forced(self: object, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        at = next(step)
        wanted = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(tokens):
            wanted[row, ids[min(at, len(ids) - 1)]] = 0.0
        return wanted

    monkeypatch.setattr(Sampler, "__call__", forced)
    found = waist.answer(canvases, [ABC] * 3)
    assert found.texts == ["<answer> B </answer>", "<think>long thoughts</think><answer>C</answer>", "no tags here"]
    assert found.predictions == [1, 2, None] and found.log_probs is None


def test_nan_logits_raise(writer: Callable[..., Waist], canvases: torch.Tensor) -> None:
    waist = writer()
    waist.scorer.model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(ModelOutputError, match="NaN or infinite scores for 3 of 3 rows"):
        waist.answer(canvases, [ABC] * 3)


# ----------------------------------------------------------- votes and records


class Scribe:
    """Writes which half of the image is brighter; says nothing that counts about dark ones."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        half = canvas.shape[-1] // 2
        lead = canvas[..., :half].mean((1, 2, 3)) - canvas[..., half:].mean((1, 2, 3))
        dark = canvas.mean((1, 2, 3)) < 0.2
        return [
            "too dark" if d else f"<answer> {'A' if x > 0 else 'B'} </answer>" for x, d in zip(lead, dark, strict=True)
        ]


def test_texts_become_votes() -> None:
    bright, dark = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    bright[..., :4] = 1
    vote = Waist(Scribe(), CPU).vote(ABC)
    assert vote(torch.stack([bright, bright.flip(2), dark])).tolist() == [0, 1, 3]
    assert vote.classes == 4


def test_texts_that_are_none_raise() -> None:
    class Mute:
        def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[None]:
            return [None] * len(canvas)

    with pytest.raises(ModelOutputError, match="or not texts"):
        Waist(Mute(), CPU).answer(torch.zeros(2, 3, 8, 8), [ABC] * 2)


def test_records_keep_the_text_and_no_answer_is_wrong(table: Path) -> None:
    class Odd(Scribe):
        def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
            return ["<answer> B </answer>" if "image 1" not in q.text else "I cannot say." for q in questions]

    groups = answers(evaluation(Odd()), items(table), [attacks.parse("clean")])
    by_item = {record["item"]: record for group in groups for record in group}
    assert by_item["q0"]["text"] == "<answer> B </answer>" and by_item["q0"]["correct"]
    assert by_item["q1"]["text"] == "I cannot say."
    assert by_item["q1"]["prediction"] is None and not by_item["q1"]["correct"] and by_item["q1"]["error"] is None


def test_generated_answers_from_the_command_line(
    checkpoint: Callable[[str], Path], table: Path, tmp_path: Path
) -> None:
    shared = ["--model", checkpoint("qwen2_5_vl"), "--data", f"table:{table}", "--canvas", "56x56"]
    written = [*shared, "--readout", "generate", "--max-new-tokens", 4, "--template", "think"]
    run = ["evaluate", *written, "--attack", "fgsm:eps=8/255", "--out", tmp_path / "a"]
    found = summary_of(*run)
    records = read_lines(tmp_path / "a")
    assert all(isinstance(record["text"], str) for record in records)
    silent = Counter(record["attack"] for record in records if record["prediction"] is None)
    assert {name: cell["no_answer"] for name, cell in found["overall"].items()} == {
        name: silent[name] for name in ("clean", "fgsm:eps=8/255")
    }
    assert found["asked"]["readout"] == "generate"
    for name, cell in found["reasoning"]["overall"].items():
        assert cell["n"] == cell["texts"] == 8 and cell["parsable"]["count"] == 8 - silent[name]
        assert cell["words"] <= 4 and cell["rationale"]["n"] == 8
    code, text = call(*run)
    assert "Texts: clean " in text and "; fgsm:eps=8/255 " in text
    assert code == 0 and "No answer, counted as wrong: " in text and "aim at the option letter" in text
    prompt = json.loads((tmp_path / "a" / "run.json").read_text())["model"]["prompt"]
    assert "First think step by step" in prompt and prompt.endswith("assistant\n")
    code, text = call(*run, "--max-new-tokens", 5)
    assert code == 2 and "asking.max_new_tokens was 4, now 5" in text
    hot = ["--temperature", 1, "--sigma", 0.25, "--n", 20, "--n0", 5, "--limit", 2, "--out", tmp_path / "b"]
    assert summary_of("certify", *written, *hot)["items"] == 2
    assert all(sum(record["votes"]) == 20 for record in read_lines(tmp_path / "b"))


# ------------------------------------------------------------------ templates


def test_templates_put_everything_in_its_place(tmp_path: Path) -> None:
    evil = Question(text="What is {options}?", options=("{question}", "b"))
    assert TEMPLATES["letter"].wording(evil).startswith("What is {options}?\nA) {question}\nB) b\nAnswer with")
    (tmp_path / "t.txt").write_text("Options:\n{options}\nQ: {question}\n---\nMy answer is\n")
    mine = read_template(str(tmp_path / "t.txt"))
    assert mine.wording(evil) == "Options:\nA) {question}\nB) b\nQ: What is {options}?" and mine.cue == "My answer is"
    (tmp_path / "t.txt").write_text("{question}")
    with pytest.raises(SpecError, match=r"\{options\} must occur once in it, found 0"):
        read_template(str(tmp_path / "t.txt"))
    with pytest.raises(SpecError, match="did you mean 'think'"):
        read_template("thnik")


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"temperature": 0.5}]
)
def test_asking_refuses_nonsense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|no effect"):
        Asking(**settings)
