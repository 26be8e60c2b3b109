"""Where a thought begins and ends, where a turn ends, and prompts that depend on their item alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES
from test_cli import call, summary_of

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError, SpecError
from safemed_eval.models import Asking, find_model, load, load_to_train, resolve, tiny
from safemed_eval.models.answers import parse
from safemed_eval.models.check import check
from safemed_eval.models.checkpoints.generate import Sampler, Thinker
from safemed_eval.models.checkpoints.prompts import CLOCK, TEMPLATES, answers_first, render
from safemed_eval.models.checkpoints.thoughts import Thought, canonical, find_thought
from safemed_eval.models.checkpoints.turn import Turn
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.runs import read_lines
from safemed_eval.seeds import generator

ABC = Question(text="Which?", options=("a lung", "a liver", "an eye"))
START, END = "<|think_start|>", "<|think_end|>"
LAST = "{% if add_generation_prompt %}<|im_start|>assistant\n"
OPENED = f"{LAST}{START}\n"
"""A generation prompt that opens the thought."""
REASONED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}OPEN{{ message.reasoning_content }}CLOSE{% endif %}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + LAST + "{% endif %}"
)
"""A template that writes the thought of a message between marks of its own."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny checkpoint with these special tokens, and a change of its chat template."""

    def build(tokens: Sequence[str] = (), change: Callable[[str], str] = lambda template: template) -> Path:
        family = FAMILIES["qwen2_5_vl"]
        folder = tmp_path_factory.mktemp("thinks") / "model"
        tiny.build(replace(family, extra_tokens=(*family.extra_tokens, *tokens)), folder)
        file = folder / "chat_template.jinja"
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        return folder

    return build


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make rows write these texts, and end their turn with this token."""

    def script(waist: Waist, texts: Sequence[str], end: str = "<|im_end|>") -> None:
        tokenizer = waist.scorer.processor.tokenizer
        tokens = [tokenizer(text + end)["input_ids"] for text in texts]
        asked: dict[str, int] = {}

        def forced(self: object, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            start = asked.setdefault("start", input_ids.shape[1])
            start = asked["start"] = min(start, input_ids.shape[1])
            wanted = torch.full_like(scores, -torch.inf)
            for row in range(len(scores)):
                ids = tokens[row % len(tokens)]
                wanted[row, ids[min(input_ids.shape[1] - start, len(ids) - 1)]] = 0.0
            return wanted

        monkeypatch.setattr(Sampler, "__call__", forced)

    return script


def loaded(folder: Path, **asked: Any) -> Waist:
    return load(resolve(str(folder)), device="cpu", asking=Asking(**{"max_new_tokens": 200, **asked}))


# ------------------------------------------------------------------- marks


class Hides:
    """A processor whose template leaves thoughts out, and closes one in the prompt of a model that must not think."""

    chat_template = "... enable_thinking ... [THINK][/THINK] ..."
    words: Mapping[int, str] = {0: "<pad>", 1: "<s>", 2: "[THINK]", 3: "So", 4: "[/THINK]", 5: " B", 6: "<|im_end|>"}

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(
            added_tokens_decoder={}, pad_token_id=0, bos_token_id=1, eos_token_id=6, decode=self.decode
        )

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(self.words[token] for token in tokens if not (skip_special_tokens and token in (0, 1, 2, 4, 6)))

    def apply_chat_template(
        self, messages: Any, tokenize: bool, add_generation_prompt: bool = False, enable_thinking: bool = True
    ) -> str:
        turns = [f"({m['role']}) {m['content'] if isinstance(m['content'], str) else self.said(m)}\n" for m in messages]
        begun = "(assistant) " + ("" if enable_thinking else "[THINK][/THINK]\n\n\n")
        return "".join(turns) + begun * add_generation_prompt

    def said(self, message: Any) -> str:
        return "".join(part.get("text", "<image>") for part in message["content"])


def test_a_thought_ends_as_the_template_ends_one_for_a_model_that_must_not_think() -> None:
    found = find_thought(Hides())  # type: ignore[arg-type]
    assert found == Thought(opening="[THINK]", closing="[/THINK]", end="\n[/THINK]\n\n\n", opened=False)
    assert found.behind == "\n\n\n"


def test_marks_that_are_special_tokens_are_told_and_padding_is_not() -> None:
    turn = Turn(Hides(), TEMPLATES["think"], {"<|im_end|>"})  # type: ignore[arg-type]
    assert turn.told([0, 0, 1, 2, 3, 4, 5, 6, 0]) == "<think>So</think> B<|im_end|>"


def reasoned(opening: str, closing: str) -> Callable[[str], str]:
    return lambda _: REASONED.replace("OPEN", opening).replace("CLOSE", closing)


@pytest.mark.parametrize(
    ("tokens", "change", "marks"),
    [
        ((), reasoned("<think>\n", "\n</think>\n\n"), ("<think>", "</think>", "\n</think>\n\n", False)),
        ((), reasoned("◁think▷", "◁/think▷"), ("◁think▷", "◁/think▷", "◁/think▷", False)),
        ((), reasoned("<ponder>", "</ponder>\n"), ("<ponder>", "</ponder>", "</ponder>\n", False)),
        ((), reasoned("<unused94>thought\n", "<unused95>"), ("<unused94>thought", "<unused95>", "<unused95>", False)),
        ((START, END), lambda template: template, (START, END, f"\n{END}\n\n", False)),
        ((START, END), lambda t: t.replace(LAST, OPENED), (START, END, f"\n{END}\n\n", True)),
        (
            (),
            lambda t: t.replace(
                "assistant\n{% endif %}",
                "assistant\n{% if enable_thinking is defined and not enable_thinking %}[THINK][/THINK] {% endif %}"
                "{% endif %}",
            ),
            ("[THINK]", "[/THINK]", "\n[/THINK] ", False),
        ),
        ((), lambda template: template, ("<think>", "</think>", "\n</think>\n\n", False)),
    ],
)
def test_marks_are_those_of_the_template_or_the_tokenizer(
    made: Callable[..., Path],
    tokens: Sequence[str],
    change: Callable[[str], str],
    marks: tuple[str, str, str, bool],
) -> None:
    found = loaded(made(tokens, change)).scorer.turn.thought
    assert (found.opening, found.closing, found.end, found.opened) == marks


def test_thoughts_in_special_tokens_are_no_answers(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    """An option that a thought mentions does not count, whatever marks the thought off and whoever has opened it."""
    for change, begun in ((lambda template: template, START), (lambda t: t.replace(LAST, OPENED), "")):
        waist = loaded(made((START, END), change), readout="generate")
        scripted(
            waist,
            [f"{begun}A at first{END}B", f"{begun}The answer is A", f"{begun}</answer> A{END}<answer>C</answer> D"],
        )
        found = waist.answer(canvases, [ABC] * 3)
        assert found.texts == [
            "<think>A at first</think>B",
            "<think>The answer is A",
            "<think></answer> A</think><answer>C</answer>",
        ]
        assert found.predictions == [1, None, 2]
        waist.scorer.text_log_probs(canvases, [ABC] * 3, found.texts)  # and they can be forced on it again


def test_no_letter_is_read_inside_an_open_thought(made: Callable[..., Path], canvases: torch.Tensor) -> None:
    folder = made((START, END), lambda t: t.replace(LAST, OPENED))
    prompt = loaded(folder).scorer.describe(ABC)["prompt"]
    assert prompt.endswith(f"<|im_start|>assistant\n{START}\n\n{END}\n\nAnswer:")
    plain = loaded(made((START, END))).scorer.describe(ABC)["prompt"]
    assert plain.endswith("<|im_start|>assistant\nAnswer:")


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<thinking>\n", "</thinking>"),
        ("<Think>\n", "</Think>"),
        ("<reason>\n", "</reason>"),
        ('<think budget="512">\n', "</think>"),
        ("◁think▷", "◁/think▷"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<unused94>thought\n", "<unused95>"),
        ("<|begin_of_thought|>\n", "<|end_of_thought|>"),
        ("## Thinking\n", "## Final Response"),
        ("Here is my thought process: ", "Here is my response:"),
        ("{{ '<thi' ~ 'nking>' }}", "</thinking>"),
    ],
)
def test_a_thought_is_closed_though_the_template_does_not_hold_its_closing_mark(
    made: Callable[..., Path], opened: str, closed: str
) -> None:
    """The prompt alone tells that a thought is open: no letter is read in it, and no text's answer before its end."""
    folder = made((), lambda template: template.replace(LAST, f"{LAST}{opened}"))
    prompt = loaded(folder).scorer.describe(ABC)["prompt"]
    assert prompt.endswith(f"{opened if '{{' not in opened else '<thinking>'}\n{closed}\n\nAnswer:")
    turn = loaded(folder, readout="generate").scorer.turn
    told = turn.told(turn.tokenizer(f"The answer is A.{closed}B")["input_ids"])
    assert parse(told, ABC) == 1 and parse(told.partition("</think>")[0], ABC) is None


def test_harmony_goes_on_with_the_channel_of_its_answer(made: Callable[..., Path]) -> None:
    folder = made((), lambda template: template.replace(LAST, f"{LAST}<|channel|>analysis<|message|>"))
    prompt = loaded(folder).scorer.describe(ABC)["prompt"]
    assert prompt.endswith("analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>Answer:")


@pytest.mark.parametrize(("end", "fine"), [("<|deep_thought|>\n", False), ("<|nothink|>\n", True), ("<answer>", True)])
def test_a_thought_that_nobody_can_close_is_refused(made: Callable[..., Path], end: str, fine: bool) -> None:
    folder = made((), lambda template: template.replace(LAST, f"{LAST}{end}"))
    if fine:
        assert loaded(folder).scorer.describe(ABC)["prompt"].endswith(f"{end}Answer:")
    else:
        with pytest.raises(CheckpointError, match=r"ends the prompt with <\|deep_thought\|>, which seems to open"):
            loaded(folder)


# --------------------------------------------------------------- the answer first


AFTER = TEMPLATES["think-after"]


def test_a_row_that_answers_first_ends_when_its_thought_is_closed(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    """Or with its turn, or at the limit; a thought that comes first instead is followed by its answer."""
    for marks in (("<think>", "</think>"), (START, END)):
        waist = loaded(made(marks if marks[0] == START else ()), readout="generate", template=AFTER, max_new_tokens=60)
        first, second = marks
        scripted(
            waist,
            [
                f"<answer> B </answer>{first}So A.{second} A",
                f"{first}So A.{second}<answer>B</answer> A",
                "<answer> C </answer>",
            ],
        )
        found = waist.answer(canvases, [ABC] * 3)
        assert found.texts == [
            "<answer> B </answer><think>So A.</think>",
            "<think>So A.</think><answer>B</answer>",
            "<answer> C </answer>",
        ]
        assert found.predictions == [1, 1, 2]


def test_a_choice_is_read_right_after_the_answer_tag(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    """Before any thought: also where an attack asks for the letter of a text that has its thought behind the answer."""
    choice = loaded(made(()), template=AFTER)
    assert choice.scorer.describe(ABC)["prompt"].endswith(
        "in <think> </think> tags.<|im_end|>\n<|im_start|>assistant\n<answer>"
    )
    writer = loaded(made(()), readout="generate", template=AFTER, max_new_tokens=60)
    scripted(writer, ["<answer> B </answer><think>So A.</think>"])
    bound = writer.classify([ABC] * 3)
    texts = bound.write(canvases)  # type: ignore[attr-defined]
    assert texts == ["<answer> B </answer><think>So A.</think>"] * 3
    torch.testing.assert_close(bound.after(canvases, texts), choice.classify([ABC] * 3)(canvases))  # type: ignore[attr-defined]


def test_a_template_that_answers_first_leaves_no_choice_after_a_thought(made: Callable[..., Path]) -> None:
    assert [name for name, template in TEMPLATES.items() if answers_first(template)] == ["think-after"]
    with pytest.raises(SpecError, match="--readout think-choice: its template asks for the answer before the thought"):
        find_model(str(made(())), readout="think-choice", template="think-after")


# --------------------------------------------------------------- ends of a turn


@pytest.mark.parametrize(
    ("settings", "behind"),
    [("<|pad|>", "<|im_end|>"), ("<|im_end|>", "<|im_end|>"), (None, "<|im_end|>"), ("<|im_end|>", "<|stop|>")],
)
def test_a_turn_ends_where_settings_tokenizer_or_template_say(
    made: Callable[..., Path],
    scripted: Callable[..., None],
    canvases: torch.Tensor,
    settings: str | None,
    behind: str,
) -> None:
    folder = made(["<|stop|>"], lambda template: template.replace("<|im_end|>", behind))
    waist = loaded(folder)
    ids = waist.scorer.processor.tokenizer.convert_tokens_to_ids
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": settings and [ids(settings)]}))
    for end in {"<|im_end|>", behind}:
        waist = loaded(folder, readout="generate", max_new_tokens=30)
        scripted(waist, [f"B{end}<|im_start|>user A"])
        assert waist.answer(canvases[:1], [ABC]).texts == ["B"]


# ----------------------------------------------------------- choice after the thought


def thinking(folder: Path, **asked: Any) -> Waist:
    return loaded(folder, readout="think-choice", **asked)


def test_letters_are_scored_after_the_thought(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    """The scores are those of one forward over prompt, thought and cue, whatever the model would have said behind."""
    waist = thinking(made())
    assert isinstance(waist.scorer, Thinker)
    scripted(waist, ["<think>A lung.</think><answer> B </answer>"])
    found = waist.answer(canvases, [ABC] * 3)
    vlm = waist.scorer
    for row, canvas in enumerate(canvases):
        inputs = vlm._inputs(canvas[None], [vlm.prompt(ABC, "") + "<think>A lung.</think>\n\n<answer>"], positions=True)
        expected = vlm.model(**inputs, use_cache=False).logits[0, -1, vlm.letters(3)].float().log_softmax(0)
        assert found.log_probs is not None and found.texts is not None
        assert torch.allclose(torch.tensor(found.log_probs[row]), expected, atol=1e-5)
        letter = "ABC"[int(expected.argmax())]
        assert found.texts[row] == f"<think>A lung.</think>\n\n<answer> {letter} </answer>"
    assert found.predictions == waist.classify([ABC] * 3)(canvases).argmax(1).tolist()
    assert found.predictions == waist.vote(ABC)(canvases).tolist()
    bound = waist.classify([ABC] * 3)
    assert bound.read(found.texts) == found.predictions  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("<think>So", None),  # cut off
        ("<think>So<|im_end|>", "<think>So\n</think>\n\n<answer>"),
        ("I see a lung. <answer> A", "I see a lung.\n<answer>"),
        ("B<|im_end|>", "<answer>"),
    ],
)
def test_every_thought_that_ends_has_an_answer(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor, text: str, turn: str | None
) -> None:
    waist = thinking(made(), max_new_tokens=40)
    scripted(waist, [text + "." * 60], end="")
    found = waist.answer(canvases[:1], [ABC])
    assert found.predictions is not None and found.texts is not None and found.log_probs is not None
    if turn is None:
        assert found.predictions == [None] and found.log_probs == [None] and found.texts[0].startswith("<think>So")
        assert waist.vote(ABC)(canvases[:1]).tolist() == [3], "no answer"
    else:
        assert found.predictions[0] in range(3)
        assert found.texts[0] == f"{turn} {'ABC'[found.predictions[0]]} </answer>"


def test_gradients_are_exact_given_the_thought(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    """Against the difference quotient of the log-probability in a random direction."""
    waist = thinking(made())
    scripted(waist, ["<think>A lung.</think>"])
    waist.scorer.model.double()
    x = canvases[:1].double().requires_grad_()
    (slope,) = torch.autograd.grad(waist.scorer.scores(x, [ABC]).log_softmax(1)[0, 0], x)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-3  # the processor computes in float32
    with torch.no_grad():
        up, down = (waist.scorer.scores(x + sign * step * way, [ABC]).log_softmax(1)[0, 0] for sign in (1, -1))
    assert float((slope * way).sum()) == pytest.approx(float((up - down) / (2 * step)), rel=1e-2)


def test_what_a_model_thinks_of_an_image_cannot_ask_for_another(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    waist = thinking(made())
    scripted(waist, ["<think>like <|image_pad|> this</think>"])
    assert waist.answer(canvases[:1], [ABC]).predictions[0] in range(3)


def test_checks_attacks_and_certificates_take_a_thinker(
    made: Callable[..., Path], scripted: Callable[..., None], canvases: torch.Tensor
) -> None:
    waist = thinking(made())
    scripted(waist, ["<think>A lung.</think>"])
    findings = {one.name: one.status for one in check(waist, (56, 56))}
    assert "fail" not in findings.values() and findings["writes"] == "pass", findings
    labels = torch.tensor(waist.answer(canvases, [ABC] * 3).predictions)
    for spec in ("pgd:eps=8/255,steps=3", "adaptive:eps=8/255,steps=2"):
        rngs = [generator("cpu", 0, row) for row in range(3)]
        found = attacks.parse(spec)(waist.classify([ABC] * 3), canvases, labels, rngs)
        before, after = (
            waist.classify([ABC] * 3)(x).gather(1, labels[:, None]).sum() for x in (canvases, found.canvas)
        )
        assert after < before, spec


def test_think_choice_from_the_command_line(made: Callable[..., Path], table: Path, tmp_path: Path) -> None:
    asked = ["--model", made(), "--data", f"table:{table}", "--canvas", "56x56", "--readout", "think-choice"]
    asked += ["--max-new-tokens", 5, "--limit", 4]
    summary_of("evaluate", *asked, "--attack", "fgsm:eps=8/255", "--out", tmp_path / "a")
    records = read_lines(tmp_path / "a")
    for record in records:
        assert (record["prediction"] is None) == (record["log_probs"] is None)
        if record["prediction"] is not None:
            assert record["prediction"] == max(range(3), key=record["log_probs"].__getitem__)
    found = summary_of("certify", *asked, "--sigma", 0.25, "--n", 10, "--n0", 4, "--out", tmp_path / "b")
    assert found["items"] == 4
    assert Run.read(tmp_path / "a").failed == Run.read(tmp_path / "b").failed == 0


# ------------------------------------------------------- prompts depend on their item alone


CLOCKED = "Today is {{ strftime_now('%d %b %Y, %H:%M:%S.%f') }}.\n"
DRAWN = "{{ ['red', 'green', 'blue', 'grey'] | random }}\n"


def test_a_template_that_writes_the_date_or_draws_gives_one_prompt(made: Callable[..., Path]) -> None:
    folder = made((), lambda template: CLOCKED + DRAWN * 8 + template)
    scorer = loaded(folder).scorer
    random.seed(1)
    state = random.getstate()
    first = render(scorer.processor, "Which?")
    assert random.getstate() == state, "nobody else's draws change"
    random.seed(2)
    assert render(scorer.processor, "Which?") == first and f"Today is {CLOCK:%d %b %Y}, 00:00:00.000000." in first
    assert len(set(first.splitlines()[1:9])) > 1, "the draws of one prompt still differ"


def test_a_training_is_told_the_same_date(
    made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safemed_eval import data
    from safemed_eval.train import Recipe
    from safemed_eval.train.fit import fit

    folder = made((), lambda template: CLOCKED + template)
    policy, model = load_to_train(resolve(str(folder)))
    shown: list[str] = []
    processor = model.scorer.processor
    ask = type(processor).__call__
    monkeypatch.setattr(
        type(processor), "__call__", lambda self, *a, **k: shown.extend(k.get("text") or []) or ask(self, *a, **k)
    )
    phantom = data.load("phantom:images=8")
    recipe = Recipe(method="sft", learning_rate=1e-5, steps=1, batch_size=2)
    fit(policy, model, phantom.items, phantom.canvas, recipe, tmp_path / "new", base=(str(folder), None), about={})
    prompts = [text for text in shown if "<|im_start|>user" in text]
    assert prompts and all(text.startswith(f"Today is {CLOCK:%d %b %Y}") for text in prompts)


def test_the_date_that_a_template_is_told_is_recorded_and_compared(
    made: Callable[..., Path], table: Path, tmp_path: Path
) -> None:
    plain, clocked = made(), made((), lambda template: CLOCKED + template)
    assert resolve(str(plain)).asked().clock is None
    assert resolve(str(clocked)).asked(Asking(template=TEMPLATES["letter"])).clock == CLOCK.isoformat()
    for name, folder in (("plain", plain), ("clocked", clocked)):
        asked = ["--model", folder, "--data", f"table:{table}", "--canvas", "56x56", "--out", tmp_path / name]
        code, text = call("evaluate", *asked, "--attack", "clean")
        assert code == 0, text
    spec = json.loads((tmp_path / "clocked" / "run.json").read_text())["spec"]
    assert spec["asking"]["clock"] == CLOCK.isoformat()
    code, text = call("compare", tmp_path / "plain", tmp_path / "clocked")
    assert code == 2 and "asking.clock" in text


def test_marks_of_every_known_family_are_told_alike() -> None:
    assert canonical("◁think▷x◁/think▷y") == canonical("[THINK]x[/THINK]y") == "<think>x</think>y"
