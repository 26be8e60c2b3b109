"""Attacks on the model that is evaluated: canvases in, records out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from safemed_eval.attacks import Attack, Attacked, Problem
from safemed_eval.attacks.transfer import Ensemble
from safemed_eval.core import Classify, Item
from safemed_eval.data import Canvas, Reader, region_of
from safemed_eval.errors import DataError, RunError
from safemed_eval.faults import FAULTS, is_fault
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.work.answering import Answering, record
from safemed_eval.runs.work.fit import Fitted
from safemed_eval.seeds import generator
from safemed_eval.smoothing.scores import SmoothedClassify

Keep = Callable[[Item, str, torch.Tensor, torch.Tensor, bool], None]
"""Called with an item, the condition, its clean and its attacked (3, H, W) canvas, and True if the answer to the latter
is wrong."""

Pair = tuple[Item, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Attacking:
    """Searches attacked canvases and answers them. Arguments that are not here: see `Evaluation`."""

    answering: Answering
    canvas: Canvas
    quantize: bool
    keep: Keep | None
    surrogates: Mapping[str, Waist]
    official: bool

    def records(self, attack: Attack, pairs: Sequence[Pair], fitted: Fitted | None) -> list[EvaluateRecord]:
        """Attack these canvases, all of one size, and return the records."""
        started = time.perf_counter()
        items = [item for item, _ in pairs]
        clean = torch.stack([canvas for _, canvas in pairs]).to(self.answering.model.device)
        region = self._region(attack, clean, items)
        attacked = self._search(attack, clean, items, region, fitted)
        answers = self.answering.answers(str(attack), attacked.canvas, items)
        rounded = self._rounded(attack, clean, attacked, items, [answer["prediction"] for answer in answers])
        official = self._attacked_officially(attack, attacked.canvas, items)
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
                    official=official[row],
                    region=shares[row],
                    parts=attacked.parts[row] if attacked.parts else None,
                    rectangle=attacked.rectangles[row] if attacked.rectangles else None,
                    batch=min(len(items), self.answering.memory.size),
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
        device = self.answering.model.device
        labels = torch.tensor([item.label for item in items], device=device)
        streams = {
            purpose: [generator(device, self.answering.seed, purpose, attack.stream, item.id) for item in items]
            for purpose in ("attack", "eot")
        }
        size, voting = self.answering.memory.size, self.answering.voting
        searched = [self.surrogates[name] for name in attack.surrogates] or [self.answering.model]
        questions = [item.question for item in items]
        bound: list[Classify] = [one.classify(questions, at_once=size) for one in searched]
        classify = Ensemble(bound, at_once=size) if len(bound) > 1 else bound[0]
        if voting:
            attack = attack.on_smoothed
            if "gradients" in attack.needs and not attack.surrogates:
                classify = SmoothedClassify(classify, noise=voting.kind, m=voting.m, generators=streams["eot"])
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
        if not erring or self.quantize or self.answering.voting or self.answering.model.writes:
            return answers
        snapped = attack.threat.snap(clean[erring], attacked.canvas[erring])
        for row, answer in zip(
            erring, self.answering.without_noise(snapped, [items[row] for row in erring]), strict=True
        ):
            answers[row] = answer["prediction"]
        return answers

    def _attacked_officially(self, attack: Attack, images: torch.Tensor, items: Sequence[Item]) -> list[bool | None]:
        """Whether the checkpoint's official path is right about each attacked image; None where not asked."""
        if not self.official or attack.facts.role == "clean":
            return [None] * len(items)
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [
            self.answering.official(Image.fromarray(image), item)["prediction"] == item.label
            for image, item in zip(levels, items, strict=True)
        ]

    def fit(self, attack: Attack, items: Sequence[Item], reader: Reader) -> Fitted:
        """Fit an attack on these items.

        Raises:
            RunError: none of their images can be read, or the model fails on them.
        """

        def work(size: int) -> torch.Tensor:
            def batches(chosen: Sequence[int]) -> Iterator[Problem]:
                for start in range(0, len(chosen), size):
                    read = reader.read([items[number] for number in chosen[start : start + size]])
                    pairs = [(item, canvas) for item, canvas in read if not isinstance(canvas, DataError)]
                    if pairs:
                        yield self._problem(pairs)

            rng = generator(self.answering.model.device, self.answering.seed, "fit", attack.stream)
            return attack.fit(len(items), batches, rng)

        try:
            fitted: Fitted = self.answering.memory.run(work).cpu().numpy()
        except FAULTS as error:
            if not is_fault(error):
                raise
            raise RunError(f"--attack {attack}: cannot be fitted: {error}") from None
        return fitted

    def _problem(self, pairs: Sequence[Pair]) -> Problem:
        """The problem that these items are to an attack that is fitted on them."""
        questions = [item.question for item, _ in pairs]
        return Problem(
            classify=self.answering.model.classify(questions),
            canvas=torch.stack([canvas for _, canvas in pairs]).to(self.answering.model.device),
            labels=torch.tensor([item.label for item, _ in pairs], device=self.answering.model.device),
            generators=[],
            quantize=self.quantize,
            questions=questions,
        )
