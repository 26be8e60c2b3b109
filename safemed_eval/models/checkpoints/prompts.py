"""How a question is put into words, how its answer is read, and after which words the answer letter is read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, SpecError, canonical, did_you_mean
from safemed_eval.faults import faults_of_the_model

Readout = Literal["choice", "generate", "think-choice"]

CLOCK = datetime(2026, 1, 1)
"""What a chat template that writes the date is told: the same on every day, so that runs repeat, and compare."""

MAX_TOKENS = 10**6
"""Of one answer; no model writes more."""

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
        """The user's turn. What a question contains is never read as a placeholder."""
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
"""`think` and `instruct` are the two variants of Med-R1 (arXiv:2503.13939), in our words; a checkpoint that was
trained on other words is asked with `--template FILE`."""
_DEFAULTS: Mapping[Readout, str] = {"choice": "letter", "generate": "instruct", "think-choice": "think"}


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a checkpoint is asked.

    Args:
        readout: `choice` reads the letter after the template's cue in one forward. `generate` lets the model write, and
            parses it. `think-choice` lets it write its thought, and reads the letter after that as `choice` does.
        template: None leaves it to the checkpoint: see `Source.asked`.
        max_new_tokens: where a generated answer, or thought, is cut off.
        temperature: 0 is greedy decoding; above, each row is sampled with noise of its own.
        seed: of that noise.
        clock: the moment that the checkpoint's chat template is told, as ISO 8601; None where it does not ask.
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
        """What decides the numbers."""
        idle = {"max_new_tokens", "temperature", "seed"} if self.readout == "choice" else set()
        idle |= set() if self.temperature else {"seed"}
        idle |= set() if self.clock else {"clock"}
        return {key: value for key, value in asdict(self).items() if key not in idle}


def default_template(readout: Readout) -> Template:
    """How a checkpoint is asked of which nothing is known."""
    return TEMPLATES[_DEFAULTS[readout]]


def thinks(template: Template) -> bool:
    """Whether a template asks for a rationale before the answer."""
    return "<think>" in template.user


def opens_answer(template: Template) -> bool:
    """Whether its cue opens an answer tag, which has to be closed."""
    return template.cue.endswith("<answer>")


def read_template(name: str) -> Template:
    """A template by name, or from a text file: the user's turn, and after a line `---` the cue.

    A file is preferred to a template whose name differs from its own by case alone.

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


def render(processor: Any, text: str) -> str:
    """The prompt for this user's turn, up to the beginning of the model's turn, by the checkpoint's chat template.

    It depends on the text alone: a template that writes the date writes that of CLOCK, and one that draws at random
    draws the same each time. A checkpoint without a chat template (a base model) gets its image token and the text on
    lines of their own.

    Raises:
        CheckpointError: it has neither a chat template nor an image token.
        ModelOutputError: its chat template fails.
    """
    if getattr(processor, "chat_template", None):
        with faults_of_the_model("the chat template"):
            return conversation(processor, [user_turn(text)], add_generation_prompt=True)
    if getattr(processor, "image_token", None) is None:
        raise CheckpointError(
            f"{type(processor).__name__} has neither a chat template nor an image token; save a chat_template.jinja "
            "beside the model"
        )
    return f"{processor.image_token}\n{text}\n"


def user_turn(text: str) -> dict[str, Any]:
    """The user's message: an image, then a text."""
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def conversation(processor: Any, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
    """These messages by the chat template, whose clock stands still and whose draws repeat; `settings` are its own."""
    drawn = random.getstate()
    random.seed(0)  # templates draw (`random`, `lipsum`) from Python's own generator
    try:
        with stopped_clock():
            found: str = processor.apply_chat_template(list(messages), tokenize=False, **settings)
    finally:
        random.setstate(drawn)
    return found


class _Stopped(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Self:
        return cls.fromisoformat(CLOCK.isoformat())


@contextmanager
def stopped_clock() -> Iterator[None]:
    """Inside this block chat templates are told CLOCK as the present moment, those that TRL renders, too."""
    from transformers.utils import chat_template_utils

    clock = chat_template_utils.datetime
    vars(chat_template_utils)["datetime"] = _Stopped
    try:
        yield
    finally:
        vars(chat_template_utils)["datetime"] = clock


def template_sha256(processor: Any) -> str | None:
    """Hash of the chat template, None where there is none."""
    template = getattr(processor, "chat_template", None)
    if not template:
        return None
    return hashlib.sha256(str(template).encode()).hexdigest()
