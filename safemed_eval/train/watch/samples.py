"""What a network in training writes about a few images, clean and attacked, as it learns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from safemed_eval import attacks
from safemed_eval.attacks.pgd import PGD
from safemed_eval.codec import Json
from safemed_eval.core import Item
from safemed_eval.data import Canvas
from safemed_eval.errors import shortened
from safemed_eval.files import write_whole
from safemed_eval.models.checkpoints.processor import picture
from safemed_eval.models.waist import Waist
from safemed_eval.runs.work.evaluate import Evaluation
from safemed_eval.seeds import generator, seed_of
from safemed_eval.train.inner.modes import in_eval_mode
from safemed_eval.train.log import IMAGES, SAMPLES, read_log
from safemed_eval.train.watch.settings import writes_its_thought
from safemed_eval.train.watch.validate import written_by

COMPLETIONS = 2
"""Texts that are sampled for each image of GRPO."""
MOST_TIMES = 32
"""How often samples are taken in a training, at most."""
_SIDES = ("clean", "attacked")
_SIDE = 96
"""Longest side of a stored image, in pixels."""
_LONGEST = 1500
"""Characters of a stored text."""

Rewarded = Callable[[Sequence[int], Item, Image.Image], Mapping[str, float | None]]
"""The tokens of a completion, the item and the image that it is about -> its rewards by name, "reward" the weighted
sum."""


class Sampler:
    """Writes samples into `training/samples.jsonl`, and their images into `training/samples/`.

    The items are the same ones each time, drawn by the seed. Their images are attacked anew each time, on 8-bit grey
    levels; pgd does not stop early, so that it changes images that are answered wrongly, too. Texts end where those of
    GRPO's rollouts end; their noise is seeded by item, so that what changes from step to step is due to the network.

    Args:
        model: the network in training, behind the waist.
        items: those to draw from.
        count: how many are drawn.
        attack: spec of the attack.
        rewarded: rewards a completion.
        temperature: of sampling; 0 decodes a single text greedily.
    """

    def __init__(
        self,
        model: Waist,
        items: Sequence[Item],
        canvas: Canvas,
        attack: str,
        work: Path,
        *,
        count: int,
        rewarded: Rewarded,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        self._items = sorted(items, key=lambda item: seed_of(seed, "sampled", item.id))[:count]
        self._model = model
        self._writer = written_by(model, max_new_tokens, temperature=temperature).scorer
        named = attacks.parse(attack)
        self._attack = replace(named, early_stop=False) if isinstance(named, PGD) else named
        asked = written_by(model, max_new_tokens) if writes_its_thought(model.scorer.template) else model
        self._evaluation = Evaluation(
            model=asked, canvas=canvas, seed=seed, batch=count, quantize=True, keep=self._keep
        )
        self._canvases: dict[str, dict[str, torch.Tensor]] = {}
        self._work, self._rewarded, self._seed = work, rewarded, seed
        self._completions = COMPLETIONS if temperature else 1

    def begin(self, step: int) -> None:
        """Drop the samples of later steps, which a killed start has left."""
        lines = [line for line in read_log(self._work / SAMPLES) if line["step"] <= step]
        if (self._work / SAMPLES).exists():
            write_whole(self._work / SAMPLES, "".join(json.dumps(line) + "\n" for line in lines))

    def take(self, step: int) -> None:
        """Attack the images, let the network write about them, and store that."""
        self._canvases = {}
        with in_eval_mode(self._model.scorer.model):
            self._evaluation.under(self._attack, self._items)
            samples = self._samples(step)
        (self._work / IMAGES).mkdir(exist_ok=True)
        with (self._work / SAMPLES).open("a", encoding="utf-8") as stream:
            for sample in samples:
                for side in _SIDES:
                    small(sample[side].pop("shown")).save(self._work / IMAGES / sample[side]["image"])
                stream.write(json.dumps(sample, ensure_ascii=False) + "\n")

    def _keep(self, item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor, wrong: bool) -> None:
        self._canvases[item.id] = dict(zip(_SIDES, (clean, attacked), strict=True))

    def _samples(self, step: int) -> list[Json]:
        """Return the line of each item, with its two images beside their names."""
        items = [item for item in self._items if item.id in self._canvases]
        rows = [(item, side, canvas) for item in items for side, canvas in self._canvases[item.id].items()]
        written: dict[tuple[str, str], Json] = {}
        for shape in {canvas.shape for _, _, canvas in rows}:
            written |= self._written([row for row in rows if row[2].shape == shape], step)
        return [
            {
                "step": step,
                "item": item.id,
                "question": item.question.text,
                "options": list(item.question.options),
                "label": item.label,
                "attack": str(self._attack),
                **{side: written[item.id, side] for side in _SIDES},
            }
            for item in items
        ]

    def _written(self, rows: Sequence[tuple[Item, str, torch.Tensor]], step: int) -> dict[tuple[str, str], Json]:
        """Let the network write about images of one size, and return of each its texts, its name and itself."""
        count, vlm = self._completions, self._writer
        numbered = [(item, side, canvas, number) for item, side, canvas in rows for number in range(count)]
        written = vlm.sample(
            torch.stack([canvas for _, _, canvas, _ in numbered]),
            [item.question for item, _, _, _ in numbered],
            [generator(self._model.device, self._seed, "sample", item.id, number) for item, _, _, number in numbered],
        )
        ends, pieces = set(vlm.turn.ends(vlm.model.generation_config)), iter(written)
        result: dict[tuple[str, str], Json] = {}
        for item, side, canvas in rows:
            name, shown, texts = hashlib.sha256(item.id.encode()).hexdigest()[:12], picture(canvas), list[Json]()
            for tokens in islice(pieces, count):
                text = vlm.turn.told([token for token in tokens if token not in ends])
                texts.append({"text": shortened(text, _LONGEST), "rewards": dict(self._rewarded(tokens, item, shown))})
            place = "clean" if side == _SIDES[0] else f"{step:08}"
            result[item.id, side] = {"image": f"{name}-{place}.png", "texts": texts, "shown": shown}
        return result


def small(image: Image.Image) -> Image.Image:
    """Shrink an image to at most 96 pixels a side, by leaving out pixels: a mean would hide what an attack did."""
    shrunk = image.copy()
    shrunk.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    return shrunk


def stride(steps: int, every: int) -> int:
    """Return how many of the occasions, one in `every` steps, lie between two samples: at most 32 are taken in all."""
    return -(-max(1, steps // every) // MOST_TIMES)
