"""Templates and readouts: how a question is put into words, and where its answer is read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Literal, Self

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, SpecError, canonical, did_you_mean
from safemed_eval.faults import faults_of_the_model
from safemed_eval.models.checkpoints.protocols import Processor

Readout = Literal["choice", "generate", "think-choice"]

CLOCK = datetime(2026, 1, 1)
"""The date that chat templates are given if they write one: always the same, so that runs repeat and compare."""

MAX_TOKENS = 10**6
"""The longest answer that may be asked for; no model writes more."""

QUESTION, OPTIONS = "{question}", "{options}"


@dataclass(frozen=True, kw_only=True)
class Template:
    """The user's turn, and the beginning of the model's turn after which the next token is the option letter.

    A checkpoint must be asked in the way that it was trained.
    """

    user: str
    """With `{question}` and `{options}` (one option a line, "A) a lung") in their places."""
    cue: str

    def __post_init__(self) -> None:
        for place in (QUESTION, OPTIONS):
            if self.user.count(place) != 1:
                raise ValueError(f"{place} must occur once in it, found {self.user.count(place)}")

    def wording(self, question: Question) -> str:
        """The user's turn. Braces in a question are never read as a placeholder."""
        options = "\n".join(f"{x}) {option}" for x, option in zip(question.letters, question.options, strict=True))
        before, middle = self.user.split(QUESTION)
        if OPTIONS in before:
            return before.replace(OPTIONS, options) + question.text + middle
        return before + question.text + middle.replace(OPTIONS, options)


_ASKED = f"{QUESTION}\n{OPTIONS}\n"
TEMPLATES = {
    "letter": Template(user=f"{_ASKED}Answer with the letter of the correct option.", cue="Answer:"),
    "instruct": Template(
        user=f"{_ASKED}Give the letter of the correct option in <answer> </answer> tags.", cue="<answer>"
    ),
    "think": Template(
        user=f"{_ASKED}First think step by step in <think> </think> tags, then give the letter of the correct option "
        "in <answer> </answer> tags.",
        cue="<answer>",
    ),
}
"""`think` and `instruct` are the two variants of Med-R1 (arXiv:2503.13939), reworded; a checkpoint that was trained
on other words is asked with `--template FILE`."""
_DEFAULTS: Mapping[Readout, str] = {"choice": "letter", "generate": "instruct", "think-choice": "think"}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a checkpoint is asked.

    Args:
        readout: `choice` reads the letter after the template's cue in one forward. `generate` lets the model write and
            parses its text. `think-choice` lets it write its thought, and reads the letter after that as `choice` does.
        template: None leaves it to the checkpoint; see `Source.asked`.
        max_new_tokens: where a generated answer or thought is cut off.
        temperature: 0 decodes greedily; above it, each row is sampled with noise of its own.
        seed: of that noise.
        clock: the date that the checkpoint's chat template is given, as ISO 8601; None if it asks for none.
    """

    readout: Readout = "choice"
    template: Template | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    clock: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens <= MAX_TOKENS:
            raise ValueError(
                f"max_new_tokens must be at least 1, and at most {MAX_TOKENS:,}, got {self.max_new_tokens}"
            )
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must not be below 0, got {self.temperature:g}")
        if self.temperature and self.readout == "choice":
            raise ValueError("a temperature has no effect where nothing is written")

    def describe(self) -> dict[str, Any]:
        """The settings that influence the numbers."""
        idle = {"max_new_tokens", "temperature", "seed"} if self.readout == "choice" else set()
        idle |= set() if self.temperature else {"seed"}
        idle |= set() if self.clock else {"clock"}
        return {key: value for key, value in asdict(self).items() if key not in idle}


def default_template(readout: Readout) -> Template:
    """The template for a checkpoint that does not say how it was trained."""
    return TEMPLATES[_DEFAULTS[readout]]


def thinks(template: Template) -> bool:
    """True if a template asks for a rationale before the answer."""
    return "<think>" in template.user


def opens_answer(template: Template) -> bool:
    """True if its cue opens an answer tag, which has to be closed."""
    return template.cue.endswith("<answer>")


def read_template(name: str) -> Template:
    """Return a template by its name, or read it from a text file: the user's turn, and after a line `---` the cue.

    A file takes precedence over a template whose name differs only by case.

    Raises:
        SpecError: neither a known name nor a file with `{question}` and `{options}` in it.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        if known := canonical(name, TEMPLATES):
            return TEMPLATES[known]
        raise SpecError(f"--template {name}: no such file, and no such template; {did_you_mean(name, TEMPLATES)}")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--template {name}: cannot be read: {error}") from None
    user, _, cue = text.partition("\n---\n")
    try:
        return Template(user=user.strip(), cue=cue.strip() or TEMPLATES["letter"].cue)
    except ValueError as error:
        raise SpecError(f"--template {name}: {error}") from None


def render(processor: Processor, text: str, *, with_image: bool = True) -> str:
    """Render the prompt for this user's turn with the checkpoint's chat template, up to where the model's turn begins.

    The prompt depends on the text alone: a template that writes the date writes CLOCK, and one that draws at random
    repeats its draws. A checkpoint without a chat template (a base model) gets its image token and the text on
    separate lines.

    Raises:
        CheckpointError: it has neither a chat template nor an image token.
        ModelOutputError: its chat template fails.
    """
    if getattr(processor, "chat_template", None):
        with faults_of_the_model("the chat template"):
            return conversation(processor, [user_turn(text, with_image=with_image)], add_generation_prompt=True)
    image_token = getattr(processor, "image_token", None)
    if image_token is None:
        raise CheckpointError(
            f"{type(processor).__name__} has neither a chat template nor an image token; save a chat_template.jinja "
            "beside the model"
        )
    return f"{image_token}\n{text}\n" if with_image else f"{text}\n"


def user_turn(text: str, *, with_image: bool = True) -> Mapping[str, object]:
    """The user's message: an image, unless there is none, then a text."""
    return {"role": "user", "content": [*[{"type": "image"}] * with_image, {"type": "text", "text": text}]}


def conversation(processor: Processor, messages: Sequence[Mapping[str, object]], **settings: object) -> str:
    """Render messages with the chat template, with the date of CLOCK and repeated draws; `settings` are its own."""
    drawn = random.getstate()
    random.seed(0)  # templates draw (`random`, `lipsum`) from Python's own generator
    try:
        with stopped_clock():
            return processor.apply_chat_template(list(messages), tokenize=False, **settings)
    finally:
        random.setstate(drawn)


class _Stopped(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromisoformat(CLOCK.isoformat())


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Inside this block all chat templates, also those that TRL renders, get CLOCK as the present moment."""
    from transformers.utils import chat_template_utils

    clock = chat_template_utils.datetime
    vars(chat_template_utils)["datetime"] = _Stopped
    try:
        yield
    finally:
        vars(chat_template_utils)["datetime"] = clock


def template_sha256(processor: Processor) -> str | None:
    """Hash of the chat template; None if there is none."""
    template = getattr(processor, "chat_template", None)
    if not template:
        return None
    return hashlib.sha256(str(template).encode()).hexdigest()
