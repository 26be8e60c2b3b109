"""Evaluation of items, clean and under attack: items in, records out."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image

from safemed_eval.attacks import Attack, Attacked, Problem
from safemed_eval.attacks.transfer import Ensemble
from safemed_eval.core import (
    BLANK,
    CIRCULAR,
    OFFICIAL,
    SHUFFLED,
    TEXT_ONLY,
    Answers,
    Classify,
    Item,
    Question,
    item_fields,
)
from safemed_eval.data import Canvas, Donor, Reader, pixels_of, region_of, reordered, rotation
from safemed_eval.errors import CheckpointError, DataError, RunError
from safemed_eval.faults import FAULTS, ShrinkingBatch, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.tally import Outcome
from safemed_eval.runs.work.fit import Fitted
from safemed_eval.runs.work.planted import plant
from safemed_eval.seeds import generator, seed_of
from safemed_eval.smoothing import Voting, read_prediction
from safemed_eval.smoothing.certify import count_votes
from safemed_eval.smoothing.scores import SmoothedClassify

Keep = Callable[[Item, str, torch.Tensor, torch.Tensor, bool], None]
"""Called with an item, the condition, its clean and its attacked (3, H, W) canvas, and True if the answer to the latter
is wrong."""

Pair = tuple[Item, torch.Tensor]
Fields = dict[str, Any]
"""Some fields of a record, by name."""
T = TypeVar("T")

TAUGHT = "the attack was fitted on this patient or image"
"""Why there is no answer to an item under an attack that is fitted on it."""
_BATCHES = 4
"""Batches in a group. Attacks that replace finished rows by new ones work through a whole group without a pause."""


@dataclass(kw_only=True)
class Evaluation:
    """Answers and attacks items with a loaded model.

    Args:
        batch: batch size, halved when memory runs out.
        quantize: keep attacked canvases on 8-bit grey levels.
        keep: called with every attacked canvas, to store some.
        voting: answer with, and attack, the smoothed model.
        surrogates: the models that transfer attacks search, by name.
        donors: the items whose images are shown under SHUFFLED, by the id of the item that is asked.
        fitted_on: the items that attacks are fitted on, and therefore not tried on.
    """

    model: Waist
    canvas: Canvas
    seed: int
    batch: int
    quantize: bool = False
    keep: Keep | None = None
    voting: Voting | None = None
    surrogates: Mapping[str, Waist] = field(default_factory=dict)
    donors: Mapping[str, Donor] = field(default_factory=dict)
    fitted_on: Sequence[Item] = ()

    def __post_init__(self) -> None:
        self._taught = {item.id for item in self.fitted_on}
        self._memory = ShrinkingBatch(self.batch)
        self._reader = Reader(self.canvas)

    def expect(self, condition: Attack | str, group: Sequence[Item]) -> None:
        """Start reading the images of this group, which is next."""
        asked = [item for item in group if not self._unavailable(condition, item)]
        if condition == SHUFFLED:
            self._reader.expect([self.donors[item.id].item for item in asked])
        elif condition not in (OFFICIAL, TEXT_ONLY):
            self._reader.expect(asked)

    def under(
        self, condition: Attack | str, group: Sequence[Item], fitted: Fitted | None = None
    ) -> list[EvaluateRecord]:
        """Compute the records of these items under one attack, or another condition of `EvaluateSpec.conditions`.

        Args:
            fitted: what `fit` returned, for an attack that is fitted.
        """
        reasons = [(item, self._unavailable(condition, item)) for item in group]
        records = [record(item, str(condition), unavailable=reason) for item, reason in reasons if reason]
        asked = [item for item, reason in reasons if not reason]
        if isinstance(condition, Attack):
            return records + self._attacked(condition, asked, fitted)
        ways = {
            OFFICIAL: self._officially,
            CIRCULAR: self._circularly,
            SHUFFLED: self._with_donors,
            BLANK: self._blank,
            TEXT_ONLY: self._without_images,
        }
        return records + ways[condition](asked)

    def _unavailable(self, condition: Attack | str, item: Item) -> str | None:
        """Say why a condition cannot be had for an item, whatever its image shows; None: it can, as far as is known."""
        if isinstance(condition, Attack):
            return TAUGHT if condition.fits and item.id in self._taught else condition.unavailable(item)
        if condition == SHUFFLED and item.id not in self.donors:
            return "no other patient's image to show"
        if condition == TEXT_ONLY and self.voting:
            return "the smoothed model needs an image to add noise to"
        return None

    def _attacked(self, attack: Attack, group: Sequence[Item], fitted: Fitted | None) -> list[EvaluateRecord]:
        if attack.rewords:
            return self._reworded(attack, group)
        whole = attack.refills and not self.voting
        return self._on_canvases(str(attack), group, partial(self._attack, attack, fitted=fitted), whole=whole)

    def fit(self, attack: Attack) -> Fitted:
        """Fit an attack on the items that are set apart for it.

        Raises:
            RunError: none of their images can be read, or the model fails on them.
        """

        def work(size: int) -> torch.Tensor:
            def batches(chosen: Sequence[int]) -> Iterator[Problem]:
                items = [self.fitted_on[number] for number in chosen]
                for start in range(0, len(items), size):
                    read = self._reader.read(items[start : start + size])
                    pairs = [(item, canvas) for item, canvas in read if not isinstance(canvas, DataError)]
                    if pairs:
                        yield self._problem(pairs)

            rng = generator(self.model.device, self.seed, "fit", attack.stream)
            return attack.fit(len(self.fitted_on), batches, rng)

        try:
            fitted: Fitted = self._memory.run(work).cpu().numpy()
        except FAULTS as error:
            if not is_fault(error):
                raise
            raise RunError(f"--attack {attack}: cannot be fitted: {error}") from None
        return fitted

    def _problem(self, pairs: Sequence[Pair]) -> Problem:
        """The problem that these items are to an attack that is fitted on them."""
        questions = [item.question for item, _ in pairs]
        return Problem(
            classify=self.model.classify(questions),
            canvas=torch.stack([canvas for _, canvas in pairs]).to(self.model.device),
            labels=torch.tensor([item.label for item, _ in pairs], device=self.model.device),
            generators=[],
            quantize=self.quantize,
            questions=questions,
        )

    def planted(self, attack: Attack, item: Item) -> Outcome:
        """Test the attack on a region planted around the item's image; see `planted`."""
        ((_, canvas),) = self._reader.read([item])
        if isinstance(canvas, DataError):
            return "failed"
        row = (item.id, item.question, canvas)
        return plant(self.model, attack, row, seed=self.seed, memory=self._memory, quantize=self.quantize)

    def _on_canvases(
        self,
        condition: str,
        group: Sequence[Item],
        work: Callable[[Sequence[Pair]], list[EvaluateRecord]],
        *,
        whole: bool = False,
        shown: Sequence[Item] | None = None,
    ) -> list[EvaluateRecord]:
        """Do the work on groups of canvases of one size; an unreadable image makes a failed record.

        Args:
            shown: the items whose images are shown, by default the group's own.
        """
        records: list[EvaluateRecord] = []
        by_size: dict[torch.Size, list[Pair]] = defaultdict(list)
        canvases = self._reader.read(group if shown is None else shown)
        for item, (_, canvas) in zip(group, canvases, strict=True):
            if isinstance(canvas, DataError):
                records.append(record(item, condition, error=str(canvas)))
            else:
                by_size[canvas.shape].append((item, canvas))
        for pairs in by_size.values():
            records += self._safely(condition, pairs, work, whole=whole)
        return records

    def _officially(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        pairs = [(item, None) for item in group]
        return self._safely(OFFICIAL, pairs, lambda cut: [self._official(item) for item, _ in cut])

    def _circularly(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item K times, with its K options rotated by one place each time, and return the records.

        An item counts as correct if every rotation is answered correctly. `rotations` holds the K answers as options
        in the item's own order, None for no answer; `prediction` is the first wrong one of them, or else gold.

        Source:
            CircularEval of Liu et al. 2023, "MMBench: Is Your Multi-modal Model an All-around Player?"
            (arXiv:2307.06281).
        """
        return self._on_canvases(CIRCULAR, group, self._rotate)

    def _reworded(self, attack: Attack, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item the questions that an attack puts in place of its own."""
        seeds = {item.id: seed_of(self.seed, "attack", attack.stream, item.id) for item in group}
        asked = {item.id: attack.questions(item, seeds[item.id]) for item in group}

        def work(pairs: Sequence[Pair]) -> list[EvaluateRecord]:
            return self._worst_of(attack, [(item, canvas, asked[item.id]) for item, canvas in pairs])

        return self._on_canvases(str(attack), group, work)

    def _worst_of(
        self, attack: Attack, rows: Sequence[tuple[Item, torch.Tensor, Sequence[Question]]]
    ) -> list[EvaluateRecord]:
        """Ask every question of each row; the record is that of its first wrong answer, or else of its first."""
        started = time.perf_counter()
        items = [replace(item, question=question) for item, _, questions in rows for question in questions]
        shown = [canvas for _, canvas, questions in rows for _ in questions]
        canvas = torch.stack(shown).to(self.model.device)
        answers = self._answers(str(attack), canvas, items)
        seconds, batch = (time.perf_counter() - started) / len(rows), min(len(items), self._memory.size)
        each, records = iter(answers), []
        for item, _, questions in rows:
            told = [{**next(each), "asked": question.text} for question in questions]
            worst = next((one for one in told if one["prediction"] != item.label), told[0])
            records.append(record(item, str(attack), **worst, linf=0.0, l2=0.0, steps=0, batch=batch, seconds=seconds))
        return records

    def _with_donors(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item about its donor's image."""
        shown = [self.donors[item.id].item for item in group]
        return self._on_canvases(SHUFFLED, group, partial(self._ask, SHUFFLED), shown=shown)

    def _blank(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        """Ask each item about an image that is its own mean colour everywhere, rounded to 8 bits."""

        def work(pairs: Sequence[Pair]) -> list[EvaluateRecord]:
            return self._ask(BLANK, [(item, blank(canvas)) for item, canvas in pairs])

        return self._on_canvases(BLANK, group, work)

    def _ask(self, condition: str, pairs: Sequence[Pair]) -> list[EvaluateRecord]:
        """Ask about these canvases as they are."""
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        canvas = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        answers = self._answers(condition, canvas, items)
        about = [self.donors[item.id] if condition == SHUFFLED else None for item in items]
        whose = [{"donor": donor.item.id, "match": donor.match} if donor else {} for donor in about]
        seconds, batch = (time.perf_counter() - started) / len(items), min(len(items), self._memory.size)
        return [
            record(item, condition, **answer, **donor, batch=batch, seconds=seconds)
            for item, answer, donor in zip(items, answers, whose, strict=True)
        ]

    def _without_images(self, group: Sequence[Item]) -> list[EvaluateRecord]:
        pairs = [(item, None) for item in group]
        return self._safely(TEXT_ONLY, pairs, lambda cut: [self._without_image(item) for item, _ in cut])

    def _without_image(self, item: Item) -> EvaluateRecord:
        started = time.perf_counter()
        try:
            answers = self.model.without_image(item.question)
        except CheckpointError as error:
            return record(item, TEXT_ONLY, unavailable=str(error))
        return record(item, TEXT_ONLY, **_answer_fields(answers)[0], batch=1, seconds=time.perf_counter() - started)

    def _safely(
        self,
        condition: str,
        rows: Sequence[tuple[Item, T]],
        work: Callable[[Sequence[tuple[Item, T]]], list[EvaluateRecord]],
        *,
        whole: bool = False,
    ) -> list[EvaluateRecord]:
        """Do the work in batches that fit into memory; if a batch fails, do its rows one by one to find the bad ones.

        Args:
            whole: the work divides rows into batches itself.
        """

        def cut(size: int) -> list[EvaluateRecord]:
            size = len(rows) if whole else size
            return [record for i in range(0, len(rows), size) for record in work(rows[i : i + size])]

        try:
            return self._memory.run(cut)
        except FAULTS as error:
            if not is_fault(error):
                raise
            if len(rows) == 1:
                return [record(rows[0][0], condition, error=str(error))]
            return [record for row in rows for record in self._safely(condition, [row], work)]

    def _attack(self, attack: Attack, pairs: Sequence[Pair], fitted: Fitted | None = None) -> list[EvaluateRecord]:
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        clean = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        region = self._region(attack, clean, items)
        attacked = self._search(attack, clean, items, region, fitted)
        answers = self._answers(str(attack), attacked.canvas, items)
        rounded = self._rounded(attack, clean, attacked, items, [answer["prediction"] for answer in answers])
        delta = (attacked.canvas.double() - clean.double()).flatten(1)
        linf, l2 = delta.abs().amax(1).tolist(), delta.norm(dim=1).tolist()
        shares = [None] * len(items) if region is None else region.double().mean((1, 2, 3)).tolist()
        seconds = (time.perf_counter() - started) / len(items)
        records = []
        for row, item in enumerate(items):
            records.append(
                record(
                    item,
                    str(attack),
                    **answers[row],
                    linf=linf[row],
                    l2=l2[row],
                    steps=attacked.steps[row],
                    target=attacked.targets[row] if attacked.targets else None,
                    climb=attacked.climb[row] if attacked.climb else None,
                    dead=attacked.dead[row] if attacked.dead else None,
                    rounded=rounded[row],
                    region=shares[row],
                    parts=attacked.parts[row] if attacked.parts else None,
                    rectangle=attacked.rectangles[row] if attacked.rectangles else None,
                    batch=min(len(items), self._memory.size),
                    seconds=seconds,
                )
            )
            if self.keep:
                wrong = answers[row]["prediction"] != item.label
                self.keep(item, str(attack), clean[row], attacked.canvas[row], wrong)
        return records

    def _region(self, attack: Attack, clean: torch.Tensor, items: Sequence[Item]) -> torch.Tensor | None:
        """Return the (B, 1, H, W) pixels that the attack may change; None: all."""
        name = attack.region
        if name is None:
            return None
        return torch.stack([region_of(name, row, item, self.canvas) for row, item in zip(clean, items, strict=True)])

    def _search(
        self,
        attack: Attack,
        clean: torch.Tensor,
        items: Sequence[Item],
        region: torch.Tensor | None,
        fitted: Fitted | None,
    ) -> Attacked:
        """Run the attack on the model, the smoothed model, or its surrogates."""
        device = self.model.device
        labels = torch.tensor([item.label for item in items], device=device)
        streams = {
            purpose: [generator(device, self.seed, purpose, attack.stream, item.id) for item in items]
            for purpose in ("attack", "eot")
        }
        size = self._memory.size
        searched = [self.surrogates[name] for name in attack.surrogates] or [self.model]
        questions = [item.question for item in items]
        bound: list[Classify] = [one.classify(questions, at_once=size) for one in searched]
        classify = Ensemble(bound, at_once=size) if len(bound) > 1 else bound[0]
        if self.voting:
            attack = attack.on_smoothed
            if "gradients" in attack.needs and not attack.surrogates:
                classify = SmoothedClassify(
                    classify, noise=self.voting.kind, m=self.voting.m, generators=streams["eot"]
                )
        return attack(
            classify,
            clean,
            labels,
            streams["attack"],
            quantize=self.quantize,
            region=region,
            questions=questions,
            modalities=[item.modality for item in items],
            fitted=None if fitted is None else torch.from_numpy(fitted).to(device),
        )

    def _answers(self, condition: str, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows, with the smoothed model if it is asked, and return each row's fields for its record."""
        return self._votes(condition, canvas, items) if self.voting else self._plain_answers(canvas, items)

    def _plain_answers(self, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows with the model without noise."""
        size = self._memory.size
        parts = ((canvas[i : i + size], items[i : i + size]) for i in range(0, len(items), size))
        answers = (self.model.answer(rows, [item.question for item in asked]) for rows, asked in parts)
        return [row for part in answers for row in _answer_fields(part)]

    def _votes(self, condition: str, canvas: torch.Tensor, items: Sequence[Item]) -> list[Fields]:
        """Answer all rows with the smoothed model, by PREDICT, and return each row's fields for its record."""
        assert self.voting is not None
        rows = []
        for row, item in zip(canvas, items, strict=True):
            streams = partial(generator, self.model.device, self.seed, "predict", condition, item.id)
            votes = count_votes(
                self.model.vote(item.question), row, self.voting.kind, self.voting.n, self._memory.size, streams
            )
            rows.append({**asdict(read_prediction(votes, self.voting.alpha)), "votes": list(votes)})
        return rows

    def _rounded(
        self,
        attack: Attack,
        clean: torch.Tensor,
        attacked: Attacked,
        items: Sequence[Item],
        predictions: Sequence[int | None],
    ) -> list[int | None]:
        """Prediction for each successfully attacked row after rounding to 8 bits; None where not asked."""
        answers: list[int | None] = [None] * len(items)
        erring = [
            row for row, item in enumerate(items) if attacked.steps[row] and predictions[row] not in (None, item.label)
        ]
        if not erring or self.quantize or self.voting or self.model.writes:
            return answers
        snapped = attack.threat.snap(clean[erring], attacked.canvas[erring])
        for row, answer in zip(erring, self._plain_answers(snapped, [items[row] for row in erring]), strict=True):
            answers[row] = answer["prediction"]
        return answers

    def _rotate(self, pairs: Sequence[Pair]) -> list[EvaluateRecord]:
        started = time.perf_counter()
        clean = torch.stack([canvas for _, canvas in pairs]).to(self.model.device)
        rotations: list[list[int | None]] = [[] for _ in pairs]
        for by in range(max(len(item.question.options) for item, _ in pairs)):
            rows = [row for row, (item, _) in enumerate(pairs) if by < len(item.question.options)]
            orders = [rotation(len(pairs[row][0].question.options), by) for row in rows]
            questions = [reordered(pairs[row][0], order).question for row, order in zip(rows, orders, strict=True)]
            answers = self.model.answer(clean[rows], questions).predictions
            for row, order, answer in zip(rows, orders, answers, strict=True):
                rotations[row].append(None if answer is None else order[answer])
        seconds = (time.perf_counter() - started) / len(pairs)
        return [
            record(
                item,
                CIRCULAR,
                prediction=next((answer for answer in answers if answer != item.label), item.label),
                rotations=answers,
                batch=len(pairs),
                seconds=seconds,
            )
            for (item, _), answers in zip(pairs, rotations, strict=True)
        ]

    def _official(self, item: Item) -> EvaluateRecord:
        started = time.perf_counter()
        answers = self.model.official(Image.fromarray(pixels_of(item)), item.question)
        return record(item, OFFICIAL, **_answer_fields(answers)[0], batch=1, seconds=time.perf_counter() - started)


def blank(canvas: torch.Tensor) -> torch.Tensor:
    """The canvas's mean colour everywhere, rounded to 8 bits: (3, H, W) -> the same shape."""
    mean = (canvas.double().mean((1, 2), keepdim=True) * 255).round().float() / 255
    return mean.expand_as(canvas).contiguous()


def group_size(batch: int, canvas: Canvas) -> int:
    """Return the number of items in a group; a single batch where images keep their own size, which may be huge."""
    return batch * _BATCHES if canvas.size else batch


def groups(
    items: Sequence[Item], asked: Sequence[Attack | str], size: int, done: Callable[[str, str], bool]
) -> Iterator[tuple[Attack | str, Sequence[Item], frozenset[str]]]:
    """Divide items into groups of this size, under each condition in turn, where records are missing.

    Yields:
        A condition, a group, and the ids of the items without a record. A group is always attacked as a whole, since
        its rows share batches.
    """
    for start in range(0, len(items), size):
        group = items[start : start + size]
        for condition in asked:
            missing = frozenset(item.id for item in group if not done(item.id, str(condition)))
            if missing:
                yield condition, group, missing


def _answer_fields(answers: Answers) -> list[Fields]:
    """Split answers into the fields of each row's record."""
    unknown = [None] * len(answers.predictions)
    columns = zip(answers.predictions, answers.log_probs or unknown, answers.texts or unknown, strict=True)
    return [{"prediction": answer, "log_probs": scores, "text": text} for answer, scores, text in columns]


def record(item: Item, condition: str, *, error: str | None = None, **values: Any) -> EvaluateRecord:
    """Build the record of an item; unknown values are None."""
    whole = {"prediction": None} | item_fields(item) | values
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}
    right = error is None and whole["prediction"] == item.label
    return EvaluateRecord(attack=condition, **whole, error=error, correct=right)
