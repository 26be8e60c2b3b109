"""Grounding: donors, answers that depend on the image, and certificates that do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_table
from test_cli import TOY, call

import safemed_eval as se
from safemed_eval import data
from safemed_eval.core import GROUNDING, Item, Question
from safemed_eval.data import donors_of
from safemed_eval.models import resolve
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.findings.grounding import (
    CertifiedGrounding,
    Grounding,
    Shown,
    certified_grounding,
    certified_grounding_findings,
    grounding,
    grounding_findings,
)
from safemed_eval.runs.work.evaluate import blank

YES_NO = ("yes", "no")
CANVAS = data.Canvas(size=(8, 8))


def picture(bright: bool, grey: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey picture with one pixel that is bright or dark."""
    pixels = np.full((8, 8, 3), grey, dtype=np.uint8)
    pixels[0, 0] = 255 if bright else 0
    return pixels


def items(count: int = 16, *, text_decides: Sequence[int] = (), modality: str = "CT") -> tuple[Item, ...]:
    """Questions about one pixel, in turn bright and dark; those of `text_decides` say their answer themselves."""
    return tuple(
        Item(
            id=f"i{number}",
            question=Question(
                text="Is it bright? Say yes." if number in text_decides else "Is it bright?", options=YES_NO
            ),
            label=0 if number in text_decides else number % 2,
            image=f"{number}.png",
            root=Path(),
            modality=modality,
            drawn=partial(picture, number % 2 == 0, 50 + number % 150),
        )
        for number in range(count)
    )


class OnePixel:
    """Reads one pixel, unless the question says the answer."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        lead = 200 * (canvas[:, :, 0, 0].mean(1) - 0.5)
        said = torch.tensor(["Say yes" in question.text for question in questions])
        lead = torch.where(said, torch.full_like(lead, 100.0), lead)
        return torch.stack([lead, torch.zeros_like(lead)], 1)


class Blind:
    """Answers as `OnePixel` would, from the text alone: it knows each item's answer by heart."""

    def __init__(self, asked: Sequence[Item]) -> None:
        self.known = {item.question: item.label for item in asked}

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        rows = [self.scores_without_image(question) for question in questions]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1e4)
        return padded + 0 * canvas.mean((1, 2, 3))[:, None]

    def scores_without_image(self, question: Question) -> torch.Tensor:
        gold = torch.tensor(self.known.get(question, 0))
        return 50.0 * torch.nn.functional.one_hot(gold, len(question.options)).float()


def numbered(asked: Sequence[Item]) -> tuple[Item, ...]:
    """The items with questions that differ, so that a text-only model can know all answers."""
    return tuple(
        replace(item, question=replace(item.question, text=f"{item.question.text} {number}"))
        for number, item in enumerate(asked)
    )


def chosen(asked: Sequence[Item]) -> data.Data:
    return data.Data.from_items(asked, canvas=CANVAS)


def test_a_donor_is_of_another_patient_with_the_same_question_and_another_answer() -> None:
    asked = [replace(item, patient_id=f"p{n // 4}", image_sha256=str(n)) for n, item in enumerate(items(16))]
    donors = donors_of(asked, 0)
    assert set(donors) == {item.id for item in asked}
    for item in asked:
        donor = donors[item.id]
        assert donor.match == "question" and donor.item.label != item.label
        assert donor.item.patient_id != item.patient_id
    assert donors_of(asked[::-1], 0) == donors, "the order of the items does not matter"
    assert donors_of(asked, 1) != donors
    assert len({donor.item.id for donor in donors.values()}) > 4, "not one donor for all"


def test_a_donor_has_an_answer_among_the_options_if_one_has() -> None:
    def case(number: int, options: tuple[str, ...], label: int, modality: str = "CT") -> Item:
        question = Question(text=" What is it? " if number % 2 else "what is IT?", options=options)
        return replace(
            items(1)[0], id=str(number), image=str(number), question=question, label=label, modality=modality
        )

    item, far = case(0, ("cyst", "tumor"), 0), case(1, ("Abscess", "cyst"), 0)
    near, same = case(2, ("tumor ", "abscess"), 0, "MRI"), case(3, ("CYST", "tumor"), 0)
    assert donors_of([item, far, near, same], 0)["0"].item.id == "2"
    assert donors_of([item, far, same], 0)["0"].item.id == "1"
    assert donors_of([item, same], 0)["0"].match == "modality", "the same answer: its image may well look the same"
    assert not donors_of([item], 0) and not donors_of([item, replace(far, image="0")], 0), (
        "one image is no other's donor"
    )
    other = replace(far, question=Question(text="Which organ?", options=("liver", "lung")))
    assert donors_of([item, other], 0)["0"].match == "modality"
    assert not donors_of([item, replace(other, modality="MRI")], 0)


def test_a_blank_image_is_the_mean_colour_on_8_bits() -> None:
    canvas = torch.rand((3, 5, 7), generator=torch.Generator().manual_seed(0))
    flat = blank(canvas)
    assert flat.shape == canvas.shape and (flat == flat[:, :1, :1]).all()
    assert ((flat[:, 0, 0] - canvas.mean((1, 2))).abs() <= 0.5 / 255 + 1e-6).all()
    assert (flat * 255 - (flat * 255).round()).abs().max() < 1e-4


def test_a_model_that_reads_the_text_alone_is_grounded_nowhere() -> None:
    asked = numbered(items(12))
    run = se.evaluate(Blind(asked), chosen(asked), attacks=["fgsm:eps=64/255"], grounding=True)
    shares = run.accuracy().loc["all"]
    assert shares["clean"] == shares["fgsm:eps=64/255"] == shares["text-only"] == shares["blank"] == 1.0
    assert shares["grounded"] == shares["grounded, fgsm:eps=64/255"] == 0.0
    counts = grounding(run)
    assert counts and (counts.right_ungrounded, counts.right_grounded, counts.unknown) == (12, 0, 0)
    assert "12 of 12 right answers (100.0 %) do not depend on the image" in " ".join(map(str, run.findings))


def test_a_model_that_reads_one_pixel_is_grounded_where_that_pixel_decides() -> None:
    said = (1, 2, 7)
    asked = items(12, text_decides=said)
    run = se.evaluate(OnePixel(), chosen(asked), attacks=["pgd:eps=8/255,steps=3"], grounding=True)
    clean = run.answers.under("clean")
    assert clean.correct.all() and set(clean.items[clean.dependent]) == {f"i{n}" for n in range(12) if n not in said}
    assert run.accuracy().loc["all", "grounded"] == 9 / 12
    by_donor = {record.item: record for record in run.answers.under("shuffled")}
    assert all(record.donor and record.match for record in by_donor.values())
    assert run.answers.under("text-only").items.tolist() == []
    cell = run.summary.overall["text-only"]
    assert cell.text == "n/a" and cell.rest_text == "n/a for 12"


def test_one_item_at_a_time_is_asked_without_its_image() -> None:
    asked = numbered(items(3))
    run = se.evaluate(Blind(asked), chosen(asked), grounding=True, batch_size=2)
    assert [record.batch for record in run.answers.under("text-only")] == [1, 1, 1]
    assert [record.batch for record in run.answers.under("blank")] == [2, 2, 1]


SHOWN = Shown(question=1200, modality=0, blank=3)
SHOWN_WORDS = "Shown instead: an image of the same question with another answer (1,200 items); a blank image (3 items)."


@pytest.mark.parametrize(
    ("ungrounded", "severity", "share"), [(99, "note", "9.9"), (100, "warn", "10.0"), (0, "note", "0.0")]
)
def test_what_does_not_depend_on_the_image_is_said_with_what_was_shown_instead(
    ungrounded: int, severity: str, share: str
) -> None:
    counts = Grounding(
        right_grounded=1000 - ungrounded,
        right_ungrounded=ungrounded,
        wrong_grounded=200,
        wrong_ungrounded=3,
        unknown=2,
        shown=SHOWN,
        unavailable={"text-only": "it needs an image"},
    )
    said, unknown, unavailable = grounding_findings(counts)
    assert said.severity == severity
    assert said.sentence.startswith(f"{ungrounded} of 1,000 right answers ({share} %) do not depend on the image")
    assert said.sentence.endswith(SHOWN_WORDS)
    assert unknown.severity == "warn" and unknown.sentence.startswith("for 2 items it is not known")
    assert (unavailable.severity, unavailable.sentence) == ("note", "text-only is n/a: it needs an image.")


@pytest.mark.parametrize(("same", "severity"), [(99, "note"), (100, "warn")])
def test_certificates_that_do_not_depend_on_the_image_are_said_likewise(same: int, severity: str) -> None:
    counts = CertifiedGrounding(other=850, same=same, unclear=150 - same, shown=SHOWN)
    (said,) = certified_grounding_findings(counts)
    assert said.severity == severity and said.sentence.startswith(f"{same} of 1,000 certificates of right answers do")
    assert f"For {150 - same} it abstains there" in said.sentence and said.sentence.endswith(SHOWN_WORDS)
    assert not list(certified_grounding_findings(CertifiedGrounding(other=0, same=0, unclear=0, shown=SHOWN)))


class Centre:
    """Answers A where the pixel at the centre is bright, B where it is dark, the surer the farther it is from grey."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        height, width = canvas.shape[2:]
        lead = 5 * (canvas[:, :, height // 2, width // 2].mean(1) - 0.5)
        rest = max(len(question.options) for question in questions) - 2
        return torch.stack([lead, -lead, *[torch.full_like(lead, -100.0)] * rest], 1)


def test_both_on_real_images(real_data: Callable[[str], Path]) -> None:
    """What does not look is grounded nowhere; a pixel is seen exactly where the donor's leads to another answer, or to
    half the probability."""
    asked = se.load_data(f"omnimedvqa:{real_data('omnimed_real')}", canvas="32x32", limit=120)
    attacks = ["fgsm:eps=8/255"]
    blind = se.evaluate(Blind(asked.items), asked, attacks=attacks, grounding=True).accuracy().loc["all"]
    assert blind["clean"] == blind[attacks[0]] == blind["text-only"] > 0
    assert blind["grounded"] == blind[f"grounded, {attacks[0]}"] == 0

    run = se.evaluate(Centre(), asked, attacks=attacks, grounding=True)
    canvases: dict[str, Any] = {item.id: canvas for item, canvas in data.Reader(asked.canvas).read(asked.items)}

    def odds(item: Item, canvas: torch.Tensor) -> tuple[int, float]:
        """The answer, and the log-probability of gold."""
        scores = Centre().scores(canvas[None], [item.question])[0].log_softmax(0)
        return int(scores.argmax()), float(scores[item.label])

    def depends(item: Item, donor: str, match: str) -> bool:
        answer, gold = odds(item, canvases[item.id])
        instead = [canvases[donor], *[blank(canvases[item.id])] * (match == "modality")]
        shown = [odds(item, canvas) for canvas in instead]
        return any(other != answer or gold - less >= math.log(2) for other, less in shown)

    shuffled = {record.item: record for record in run.answers.under("shuffled")}
    clean = run.answers.under("clean")
    right = set(clean.items[clean.correct])
    seen = {item.id for item in asked if depends(item, shuffled[item.id].donor, shuffled[item.id].match)}
    assert set(clean.items[clean.correct & clean.dependent]) == right & seen and 0 < len(right & seen) < len(right)


def test_grounding_costs_one_forward_for_each_condition_and_item(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, without = list[int](), list[str]()
    answer = Waist.answer

    def counted(self: Waist, canvas: torch.Tensor, asked: Sequence[Question]) -> Any:
        shown.append(len(canvas))
        return answer(self, canvas, asked)

    class Counted(OnePixel):
        def scores_without_image(self, question: Question) -> torch.Tensor:
            without.append(question.text)
            return torch.zeros(2)

    monkeypatch.setattr(Waist, "answer", counted)
    se.evaluate(Counted(), chosen(items(10)))
    assert sum(shown) == 10 and not without
    shown.clear()
    se.evaluate(Counted(), chosen(items(10)), grounding=True)
    assert sum(shown) == 30 and len(without) == 10


def test_certificates_are_grounded_where_the_pixel_decides() -> None:
    said = (3, 6)
    asked = items(8, text_decides=said)
    run = se.certify(OnePixel(), chosen(asked), sigma=0.1, n=100, grounding=True)
    rows = run.certificates
    assert run.donor_vote and (rows.right_radii > 0).all()
    grounded = rows.grounded(run.donor_vote)
    assert set(rows.items[~grounded]) == {f"i{n}" for n in said}
    points = run.summary.overall
    assert all(points.points[name].share == 1.0 for name in ("0", "0.5s", "1s"))
    assert all(points.grounded[name].share == 6 / 8 for name in ("0", "0.5s", "1s"))
    assert run.curve(grounded=True).certified_accuracy.max() == 6 / 8 and run.curve().certified_accuracy.max() == 1.0
    counts = certified_grounding(run)
    assert counts and (counts.other, counts.same, counts.unclear) == (6, 2, 0)
    at_other_alpha = run.at_alpha(0.01)
    assert at_other_alpha.summary.overall.grounded["0"].share == 6 / 8


def test_donors_vote_only_where_gold_is_selected_and_an_abstention_is_not_grounded() -> None:
    class Unsure(OnePixel):
        """Cannot tell where the picture is dark."""

        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            lead = 10 * (canvas[:, :, 0, 0].mean(1) - 0.5).clamp(min=0)
            toss = canvas[:, 0, 1, 1] * 1e4 % 1 - 0.5  # decided by the noise
            return torch.stack([lead + 0.1 * toss, 0 * lead], 1)

    run = se.certify(Unsure(), chosen(items(8)), sigma=0.05, n0=20, n=100, grounding=True)
    bright = [record for record in run.certificates if record.label == 0]
    assert all(record.radius and record.donor_votes and sum(record.donor_votes) == 100 for record in bright)
    counts = certified_grounding(run)
    assert counts and counts.unclear >= 3 and counts.other <= 1
    for record in run.certificates:
        assert record.votes0
        selected = max(range(3), key=lambda k: record.votes0[k])  # type: ignore[index]
        assert (record.donor_votes is None) == (selected != record.label) or record.votes0[0] == record.votes0[1]


def test_results_do_not_depend_on_batches_and_runs_go_on(tmp_path: Path) -> None:
    asked = items(9, text_decides=(4,))
    runs = [se.evaluate(OnePixel(), chosen(asked), grounding=True, batch_size=size) for size in (2, 16)]
    frames = [run.frame().sort_values(["item", "attack"], ignore_index=True) for run in runs]
    same = ["item", "attack", "prediction", "donor", "match", "log_probs", "unavailable"]
    assert frames[0][same].astype(str).equals(frames[1][same].astype(str))


def test_the_gate_sees_a_model_that_no_longer_looks() -> None:
    asked = numbered(items(200))
    before, after = (
        se.evaluate(model, chosen(asked), grounding=True, out=None) for model in (Seeing(asked), Blind(asked))
    )
    verdict = se.compare(before, after)
    changes = {change.measure: change for change in verdict.overall}
    assert set(changes) == {"clean", "grounded"}, "accuracy about other images is no measure of the model"
    assert changes["clean"].drop == 0 and changes["grounded"].drop == 1.0
    assert verdict.verdict == "regression" and changes["grounded"].verdict == "regression"


class Seeing(OnePixel):
    """Knows the text as `Blind` does not need to."""

    def __init__(self, asked: Sequence[Item]) -> None:
        pass

    def scores_without_image(self, question: Question) -> torch.Tensor:
        return torch.zeros(2)


def test_one_item_has_no_donor(tmp_path: Path) -> None:
    table = draw_table(tmp_path, rows=1)
    for command in (("evaluate",), ("certify", "--sigma", "0.25")):
        code, text = call(*command, "--model", TOY, "--data", f"table:{table}", "--grounding", "--canvas", "24x24")
        assert code == 2 and "--grounding: none of the 1 items has another patient's image" in text


def test_a_checkpoint_is_asked_without_an_image(waist: Any) -> None:
    """The letter logits of a prompt that transformers renders without an image."""
    model = waist("qwen2_vl")
    question = Question(text="Which organ is it?", options=("a lung", "a liver", "an eye"))
    vlm = model.scorer
    turn = {"role": "user", "content": [{"type": "text", "text": vlm.template.wording(question)}]}
    prompt = vlm.processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True) + vlm.template.cue
    ids = torch.tensor([vlm.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    expected = logits[vlm.letters(3)].float().log_softmax(0)
    answers = model.without_image(question)
    assert answers.log_probs and torch.allclose(torch.tensor(answers.log_probs[0]), expected, atol=1e-4)
    assert answers.predictions == [int(expected.argmax())]


def test_a_checkpoint_that_needs_an_image_has_no_text_only_condition(waist: Any) -> None:
    with pytest.raises(se.errors.CheckpointError, match="no prompt without an image"):
        waist("paligemma").without_image(Question(text="?", options=("a", "b")))


def test_pseudonyms_hide_the_donor(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    asked = items(6)
    run = se.evaluate(OnePixel(), chosen(asked), grounding=True, out=tmp_path / "run", pseudonymize=key)
    text = (tmp_path / "run" / "records.jsonl").read_text()
    names = set(run.answers.under("clean").items)
    assert not any(f'"{item.id}"' in text for item in asked)
    assert {record.donor for record in run.answers.under("shuffled")} <= names
    again = Run.read(tmp_path / "run")
    assert again.accuracy().loc["all", "grounded"] == 1.0 and set(again.spec.conditions) == {"clean", *GROUNDING}


# ----------------------------------------------------------------------------------------------------- reports/grounded


MEASURED = Path(__file__).parents[1] / "reports" / "grounded"


@pytest.mark.parametrize("name", ["sft", "at-grpo"])
def test_the_measurement_is_of_the_shipped_checkpoints(name: str) -> None:
    for command in ("evaluate", "certify"):
        run = Run.read(MEASURED / f"{command}-{name}")
        assert run.spec.model == resolve(f"builtin:{name}").identity and not run.unfinished and not run.failed


def test_sft_loses_less_than_three_points_of_phantom_where_it_must_look() -> None:
    shares = Run.read(MEASURED / "evaluate-sft").summary.overall
    assert 0 < shares["clean"].count - shares["grounded"].count < 0.03 * shares["clean"].n


def test_what_does_not_look_is_as_robust_as_it_is_right_and_grounded_nowhere() -> None:
    attacked, certified = Run.read(MEASURED / "evaluate-text-only"), Run.read(MEASURED / "certify-text-only")
    shares = attacked.summary.overall
    assert {shares[name].count for name in attacked.conditions} == {57}
    assert {shares[name].count for name in attacked.grounded} == {0}
    assert all(shares[name].median_steps is None for name in attacked.conditions), "nothing flipped"
    assert certified.curve()["certified_accuracy"].tolist() == [9 / 40] * 2, "up to the ceiling"
    assert certified.curve(grounded=True)["certified_accuracy"].tolist() == [0.0] * 2


def test_one_pixel_is_seen_where_it_decides() -> None:
    shares = Run.read(MEASURED / "evaluate-one-pixel").summary.overall
    assert 0 < shares["grounded"].count < shares["clean"].count
    assert shares["text-only"].unavailable == 192
