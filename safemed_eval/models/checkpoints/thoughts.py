"""Find the marks of a model's thoughts, and convert those of all families to `<think>` and `</think>`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from safemed_eval.errors import CheckpointError, ModelOutputError
from safemed_eval.models.checkpoints.prompts import conversation, render, user_turn
from safemed_eval.models.checkpoints.protocols import Processor

OPEN, CLOSE = "<think>", "</think>"
"""The marks of a thought in all texts that `models` returns, whatever the family's own marks are."""

MARKS = (
    ("<think>", "</think>"),  # Qwen, GLM, DeepSeek, InternVL, MiniCPM, MiMo
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<reasoning>", "</reasoning>"),  # LLaVA-CoT, Reka
    ("<analysis>", "</analysis>"),
    ("<rationale>", "</rationale>"),
    ("<scratchpad>", "</scratchpad>"),
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<unused94>thought", "<unused95>"),  # MedGemma 1.5
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|end|>"),  # harmony
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
)
"""Opening and closing marks by family."""
_WORDS = (
    ("## Thinking", "## Final Response"),  # HuatuoGPT-o1
    ("Here is my thought process:", "Here is my response:"),  # Granite
)
"""Words that do the same where a prompt ends with the first."""

_HARMONY_END = "<|end|>"
_HARMONY_ANSWER = "<|end|><|start|>assistant<|channel|>final<|message|>"


def _any_of(marks: list[str]) -> re.Pattern[str]:
    """A pattern for these marks; blanks may stand inside their angle brackets."""
    escaped = "|".join(map(re.escape, marks))
    blank = r"\s{0,3}"
    return re.compile(
        escaped.replace("<", f"<{blank}").replace("/", f"/{blank}").replace(">", f"{blank}>"), re.IGNORECASE
    )


_OPENS = _any_of([opening for opening, closing in MARKS if closing != _HARMONY_END])
_CLOSES = _any_of([closing for _, closing in MARKS if closing != _HARMONY_END])
_PASSAGES = (
    # harmony: <|end|> ends any message, also an answer; another message may follow without it
    re.compile(r"<\|channel\|>analysis(?:<\|message\|>)?(.*?)(<\|end\|>|(?=<\|start\|>|<\|channel\|>)|\Z)", re.DOTALL),
    # the same, decoded without its control tokens
    re.compile(r"\Aanalysis(?=[A-Z])(.*?)(assistantfinal|\Z)", re.DOTALL),
    # HuatuoGPT-o1
    re.compile(r"\A\s*#+ *Thinking\b:?(.*?)(\n#+ *(?:Final )?(?:Response|Answer)\b:?|\Z)", re.DOTALL),
    # Granite
    re.compile(r"\A\s*Here(?: is|'s) my thought process:(.*?)(Here(?: is|'s) my response:|\Z)", re.DOTALL),
)
"""Thoughts that only the words around them mark: the thought, and the words that end it unless it is cut off."""
_HARMONY_HEAD = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final(?: ?<\|constrain\|>\w+)?<\|message\|>")


def canonical(text: str) -> str:
    """Convert the marks of thoughts of any known family to `<think>` and `</think>`.

    Nothing else changes, except that the header that harmony writes before an answer is left out.
    """
    for passage in _PASSAGES:
        text = passage.sub(_as_thought, text)
    return _CLOSES.sub(CLOSE, _OPENS.sub(OPEN, _HARMONY_HEAD.sub("", text)))


def _as_thought(passage: re.Match[str]) -> str:
    cut_off = not passage[2] and passage.end() == len(passage.string)
    return f"{OPEN}{passage[1]}{'' if cut_off else CLOSE}"


_MARK = re.compile(r"<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\]|◁[^◁▷\s]{1,40}▷")
_THINKING = re.compile(r"think|thought|reason|rational|reflect|ponder|scratch|\bcot\b", re.IGNORECASE)
_TAG = re.compile(
    r"([<\[◁])((?:\w+:)?(?:think|thinking|thoughts?|reason|reasoning|analysis|rationale|reflect|reflection|ponder"
    r"|scratch_?pad|cot))(?: [^<>\[\]◁▷]*)?([>\]▷])",
    re.IGNORECASE,
)
"""A mark that opens a thought and that a slash would make its closing mark: the bracket, the name, the bracket."""
_OPENS_AT_THE_END = re.compile(r"<\|(?!no)\w*(?:think|thought|reason)\w*\|>\Z", re.IGNORECASE)
_ENDS = re.compile(r"/|(?<![a-z])(?:end|close|stop|eo)(?![a-z])|suffix", re.IGNORECASE)
_SIDES = re.compile(r"/|(?<![a-z])(?:begin|start|open|end|close|stop|bo|eo|of)(?![a-z])|[\W_]", re.IGNORECASE)
_ASKED, _THOUGHT, _ANSWER = "Which of the two?", "Thinking of both.", "The second one."
_KEYS = ("reasoning_content", "reasoning", "thinking")
"""The keys under which chat templates look for the thought of a message."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """The marks that a checkpoint puts around its thought.

    Attributes:
        opening, closing: its own marks.
        end: the text between the last word of a thought and the answer, including the closing mark.
        opened: True if the prompt ends inside a thought that the template has opened.
    """

    opening: str
    closing: str
    end: str
    opened: bool

    @property
    def behind(self) -> str:
        """The text between the closing mark and the answer."""
        return self.end.rpartition(self.closing)[2]

    def told(self, text: str) -> str:
        """Convert the checkpoint's own marks in a text to `<think>` and `</think>`."""
        return canonical(text.replace(self.opening, OPEN).replace(self.closing, CLOSE))

    def own(self, text: str) -> str:
        """Convert `<think>` and `</think>` in a text to the checkpoint's own marks."""
        return text.replace(OPEN, self.opening).replace(CLOSE, self.closing)


def is_open(text: str) -> bool:
    """True if a text ends inside a thought."""
    return text.rfind(OPEN) > text.rfind(CLOSE)


def find_thought(processor: Processor) -> Thought:
    """Find the marks of a checkpoint's thoughts by its chat template and tokenizer; `<think>` by default.

    A template that renders a message with a thought writes the marks and the text around them. A template that leaves
    thoughts out may close one in the prompt for a model that must not think. Otherwise the marks that occur in the
    template, or among the tokens, are used. Where the prompt ends inside a thought with another mark, that mark counts.

    Raises:
        CheckpointError: there is no template, or it fails, or its prompt opens a thought with an unknown closing mark.
    """
    try:
        behind = render(processor, _ASKED).rpartition(_ASKED)[2]
    except ModelOutputError as error:
        raise CheckpointError(str(error)) from error
    opening, closing, end = _by_the_template(processor) or _by_names(processor)
    if behind.rfind(opening) > behind.rfind(closing):
        return Thought(opening=opening, closing=closing, end=end, opened=True)
    if other := _left_open(behind):
        opening, closing = other
        end = _HARMONY_ANSWER if closing == _HARMONY_END else f"\n{closing}\n\n"
    return Thought(opening=opening, closing=closing, end=end, opened=other is not None)


def _left_open(prompt: str) -> tuple[str, str] | None:
    """The opening and closing mark of the thought that a prompt ends inside; None if it ends inside none."""
    marks = [(prompt.rfind(opening), opening, closing) for opening, closing in (*MARKS, *_WORDS)]
    marks += [(tag.start(), tag[0], f"{tag[1]}/{tag[2]}{tag[3]}") for tag in _TAG.finditer(prompt)]
    at, opening, closing = max(marks, key=lambda mark: mark[0])
    if at >= 0 and closing not in prompt[at:]:
        return opening, closing
    if unknown := _OPENS_AT_THE_END.search(prompt.rstrip()):
        raise CheckpointError(
            f"the chat template ends the prompt with {unknown[0]}, which seems to open a thought, and no mark that "
            "closes one is known: write the closing mark into the template where it renders a model's turn"
        )
    return None


def turn_end(processor: Processor) -> str:
    """The text that the chat template writes after an answer, beginning with the end of the turn; empty if unknown."""
    return _answered(processor).rpartition(_ANSWER)[2].strip()


def _answered(processor: Processor, **thought: str) -> str:
    """Render a conversation whose last turn is the model's; empty if the template does not accept it."""
    if not getattr(processor, "chat_template", None):
        return ""
    for content in ([{"type": "text", "text": _ANSWER}], _ANSWER):
        try:
            told = conversation(processor, [user_turn(_ASKED), {"role": "assistant", "content": content, **thought}])
        except Exception:  # templates raise any exception for messages that they do not accept
            continue
        if (
            told.count(_ANSWER) == 1 and "type" not in told.rpartition(_ASKED)[2]
        ):  # the template has written the list itself
            return told
    return ""


def _by_the_template(processor: Processor) -> tuple[str, str, str] | None:
    """The marks and the end, as the template writes them around the thought of a message."""
    for key in _KEYS:
        before, thought, behind = _answered(processor, **{key: _THOUGHT}).partition(_THOUGHT)
        end = behind.partition(_ANSWER)[0]
        if not thought or not end.strip() or _ANSWER not in behind:
            continue
        for opening, closing in MARKS:
            if before.rstrip().endswith(opening) and end.strip().startswith(closing):
                return opening, closing, end
        opened, closed = [*_MARK.finditer(before.rstrip())], _MARK.match(end.strip())
        if closed and opened and opened[-1].end() == len(before.rstrip()):
            return opened[-1][0], closed[0], end
    return None


def _by_names(processor: Processor) -> tuple[str, str, str]:
    """The marks that occur in the template, or among the tokens."""
    template = str(getattr(processor, "chat_template", None) or "")
    tokens = " ".join(map(str, processor.tokenizer.added_tokens_decoder.values()))
    opening, closing = next((pair for text in (template, tokens) for pair in _pairs(text)), MARKS[0])
    end = f"\n{closing}\n\n"
    if closing in template and "enable_thinking" in template:
        try:
            prompt = conversation(processor, [user_turn(_ASKED)], add_generation_prompt=True, enable_thinking=False)
        except Exception:  # such a template is refused when it renders a question
            return opening, closing, end
        _, mark, behind = prompt.rpartition(_ASKED)[2].rpartition(closing)
        end = f"\n{closing}{behind}" if mark else end
    return opening, closing, end


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield pairs of marks that both occur in a text: known families first, then marks with matching names."""
    yield from ((opening, closing) for opening, closing in MARKS if opening in text and closing in text)
    named = [mark for mark in dict.fromkeys(_MARK.findall(text)) if _THINKING.search(mark)]
    for closing in (mark for mark in named if _ENDS.search(mark)):
        for opening in (mark for mark in named if not _ENDS.search(mark)):
            if _SIDES.sub("", opening).lower() == _SIDES.sub("", closing).lower():
                yield opening, closing
