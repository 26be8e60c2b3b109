"""A training as its folder tells of it: settings, log, evaluations, samples, and what came of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from safemed_eval.codec import Json, decode
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.runs import META, read_meta
from safemed_eval.runs.meta import Names, Session
from safemed_eval.stats import clopper_pearson_lower, clopper_pearson_upper
from safemed_eval.train.log import IMAGES, LOG, SAMPLES, WORK, Series, panels_of, read_log

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_BYTES = 2**17


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text that the model wrote, and what it earned; without GRPO "correct" alone."""

    text: str
    rewards: Mapping[str, float | None]

    @property
    def earned(self) -> str:
        """The rewards in words."""
        return ", ".join(
            f"{name} {'n/a' if value is None else format(value, '.3g')}" for name, value in self.rewards.items()
        )

    @property
    def is_right(self) -> bool:
        return (self.rewards.get("correct") or 0) > 0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image, by the name of its file, and what the model wrote about it."""

    image: str
    texts: tuple[Text, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A line of `samples.jsonl`: an item at one step."""

    step: int
    item: str
    question: str
    options: tuple[str, ...]
    label: int
    attack: str
    clean: Shown
    attacked: Shown

    def __post_init__(self) -> None:
        if not 0 <= self.label < len(self.options):
            raise ValueError(f"says label {self.label} of {len(self.options)} options")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as the page embeds it; `source` is None where there is none to show."""

    step: int | None
    source: str | None


@dataclass(frozen=True, kw_only=True)
class History:
    """The samples of one item, in the order of their steps, and its images: the clean one, then the attacked ones."""

    samples: Sequence[Sample]
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A line of the log with accuracies on the validation data."""

    step: int
    clean: float
    robust: float
    items: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The checkpoint's note on which weights are saved, see `train.watch.watcher.outcome_of`."""

    step: int
    clean_accuracy: float
    robust_accuracy: float
    items: int
    attack: str
    chosen_by: str
    last_step: int
    ended_by_patience: bool


@dataclass(frozen=True, kw_only=True)
class _Meta:
    spec: Mapping[str, object]
    sessions: tuple[Session, ...]
    names: Names
    items: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that is complete, under way, or was stopped.

    Attributes:
        work: the folder of its log.
        complete: whether its checkpoint is saved.
        outcome: which weights are saved; None without validation data, and before the end.
    """

    work: Path
    name: str
    meta: _Meta
    log: Sequence[Json]
    samples: Sequence[Sample]
    complete: bool
    outcome: Outcome | None

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> Self:
        """Read the folder of a training, that of its checkpoint or the one inside it.

        Raises:
            RunError: a file in it is malformed.
        """
        work = folder / WORK if (folder / WORK / META).exists() else folder
        raw = read_meta(work)
        meta = decode(_Meta, raw, f"{work}: {META}")
        samples = [decode(Sample, line, f"{work / SAMPLES}: a sample") for line in read_log(work / SAMPLES)]
        note = _json_in(work.parent / ABOUT)
        chosen = note.get("validation") if note else None
        return cls(
            work=work,
            name=name or work.resolve().parent.name,
            meta=meta,
            log=read_log(work / LOG),
            samples=samples,
            complete=note is not None,
            outcome=None if chosen is None else decode(Outcome, chosen, f"{work.parent / ABOUT}: validation"),
        )

    @property
    def spec(self) -> Json:
        """What was asked."""
        return dict(self.meta.spec)

    @property
    def recipe(self) -> Json:
        """The method and its settings."""
        recipe = self.meta.spec.get("recipe")
        return dict(recipe) if isinstance(recipe, Mapping) else {}

    @property
    def last_step(self) -> int:
        """The last step in the log; 0 before the first."""
        return max((line["step"] for line in self.log), default=0)

    @cached_property
    def panels(self) -> dict[str, Series]:
        """The curves of the log."""
        return panels_of(self.log)

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations on the validation data."""
        lines = [line for line in self.log if line.get("eval/items")]
        return [
            Evaluation(
                step=line["step"],
                clean=line.get("eval/clean_accuracy", 0.0),
                robust=line.get("eval/robust_accuracy", 0.0),
                items=line.get("eval/items", 0),
            )
            for line in lines
        ]

    @property
    def margin(self) -> float | None:
        """Half of the widest 95 % Clopper-Pearson interval of a share of so many items, were they independent."""
        if not self.evaluations:
            return None
        items = self.evaluations[-1].items
        half = items // 2
        return (clopper_pearson_upper(half, items, 0.025) - clopper_pearson_lower(half, items, 0.025)) / 2

    def histories(self, *, images: bool) -> list[History]:
        """The samples of each item."""
        by_item: dict[str, list[Sample]] = {}
        for sample in self.samples:
            by_item.setdefault(sample.item, []).append(sample)
        return [
            History(
                samples=samples,
                pictures=[
                    Picture(step=None, source=self._source(samples[0].clean.image) if images else None),
                    *(
                        Picture(step=sample.step, source=self._source(sample.attacked.image) if images else None)
                        for sample in samples
                    ),
                ],
            )
            for samples in by_item.values()
        ]

    def _source(self, name: str) -> str | None:
        """The image as a data URI; None if it is no small PNG file in its folder."""
        file = self.work / IMAGES / name
        if Path(name).name != name or not file.is_file() or file.stat().st_size > _LARGEST_BYTES:
            return None
        raw = file.read_bytes()
        return f"data:image/png;base64,{base64.b64encode(raw).decode()}" if raw.startswith(_PNG) else None


def is_training(folder: Path) -> bool:
    """True for the folder of a training, that of its checkpoint or the one inside it."""
    for place in (folder / WORK, folder):
        spec = (_json_in(place / META) or {}).get("spec")
        if isinstance(spec, Mapping) and spec.get("command") == "train":
            return True
    return False


def _json_in(file: Path) -> Json | None:
    """Read a JSON object; None if there is no such file, or something else in it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_training(asked: str | Path) -> Training | None:
    """Read FOLDER or NAME=FOLDER if it is of a training; None if it is something else."""
    if is_training(Path(asked)):
        return Training.read(Path(asked))
    name, equals, folder = str(asked).partition("=")
    return Training.read(Path(folder), name) if equals and folder and is_training(Path(folder)) else None
