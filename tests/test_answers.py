"""Reading generated texts: hundreds of ways to say C, and as many to say nothing that counts."""

from __future__ import annotations

import re
import unicodedata
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemed_eval.core import Question
from safemed_eval.models.answers import conclusion, curtail, parse, rationale, retell, told

ORGANS = Question(text="Which organ?", options=("a lung", "a liver", "an eye", "No organ"))
EYE = ORGANS.options.index("an eye")

FORMS = """
C | c | C. | C, | C) | (C) | [C] | {C} | **C** | `C` | "C" | C: | C; | C . | (C). | **C.** | \u24b8 | \U0001d402
Answer: C | answer C | ANSWER: (C) | Answer = C | The answer is C | The answer is: C. | the correct answer is **C**.
The final answer is (C) | Option C | Choice: C | The best option is C. | The correct option letter is C
C) an eye | C. an eye | C: an eye | (C) an eye | **C** an eye | Answer: C) an eye | The answer is (C) an eye.
an eye | An Eye | AN EYE. | an  eye | "an eye" | Answer: an eye | The answer is an eye.
"""
WRAPPED = [
    "{}",
    "<answer>{}</answer>",
    "<answer> {} </answer>",
    "<ANSWER>{}</ANSWER>",
    "<answer>{}",
    "<think>It is A, or B, or <answer>D</answer>.</think><answer>{}</answer>",
    "<think>\nLung? No.\n</think>\n{}",
    "<think>It looks round.</think> <answer>{}</answer> I hope that this helps; B was close.",
    "so A was wrong.</think>{}",
    "<answer>{0}</answer> and again <answer>{0}</answer>",
]


def listed(text: str) -> list[str]:
    return [part for line in text.strip().splitlines() for part in line.split(" | ")]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_all_of_these_say_c(wrap: str) -> None:
    for form in (*listed(FORMS), " C ", "\nC\n"):
        assert parse(wrap.format(form), ORGANS) == EYE, form


@pytest.mark.parametrize(
    "text",
    [
        "This organ sees, so the answer is C.",
        "It cannot be a lung. The answer is C.",
        "It is round. Answer: C",
        "Not a lung!\nThe correct answer is (C).\n",
        "The answer is C, since it sees.",
        "Round and wet, so option C.",
    ],
)
def test_statements_in_longer_texts(text: str) -> None:
    assert parse(text, ORGANS) == EYE


NOTHING = """
. | ? | E | (Z) | Answer: E | CC | C D | A or C | A, C | A and B | A/C | A) or C) | 1 | 3 | no idea | A B C D | ABCD
A lung nodule | A patient with | I think so | C an eye and more | C. a lung | C) a liver | (A) an eye | A: an eye
The answer is not C. | I don't think that the answer is C. | The answer is never C | The answer is C. The answer is D.
The answer is C because of D | <answer></answer> | <answer>C</answer><answer>D</answer> | <answer> | <answer>E</answer>
<think>The answer is C. | <think>C | <think>an eye | <answer>C or D</answer> | <answer>A C</answer> | Answer: | answer
The answer is A patient | I would choose a lung or a liver | an eye or a lung | lung | eye | <answer>eye</answer>
<think>C</think> | <think>The answer is C.</think> | <answer>C</answer></think> | Answer C or D | option A or B.
\\boxed{} | nan | None | null | <answer>None</answer> | The options are A, B, C and D. | \u0421
"""


@pytest.mark.parametrize("text", ["", " ", *listed(NOTHING)])
def test_none_of_these_is_an_answer(text: str) -> None:
    assert parse(text, ORGANS) is None


@pytest.mark.parametrize(
    "text", ["Answer: \ue001", "\ue000", "\u0130</think>C", "\u0130\u0130<answer>C</answer>", "Answer: \ue000 C"]
)
def test_characters_that_are_not_as_long_in_small_letters_or_are_private(text: str) -> None:
    assert parse(text, ORGANS) in (None, EYE) and (parse(text, ORGANS) == EYE) == ("C" in text)


REPEATED = """
final | the | A, | B is | answer is | option | not | word | MRI and | MRI. | A) CT | <answer> | <think> | \\boxed{
[ | ( | * | {"answer": | <|begin_of_box|> | "answer": "B", | Answer: B | no | A chest | 1 | - | is | Wait, B. | A or
A: no | not A but | no, | ~~ | </b> | [ ] A | (correct) | B. Not | If A, | this is | it is very | Question:
"""


@pytest.mark.parametrize("piece", listed(REPEATED))
def test_a_model_that_repeats_itself_is_read_in_time(piece: str) -> None:
    """Under attack and noise models do; each of these once took minutes, or all of the stack."""
    asked = Question(text="?", options=("CT", "MRI", "X-Ray", "Ultrasound"))
    for text in (f"{piece} " * (4000 // len(piece)), f"{piece}\n" * (4000 // len(piece))):
        before = process_time()
        found = parse(text, asked)
        rationale(text, asked)
        assert parse(retell(text, asked, 2), asked) == 2
        assert process_time() - before < 10
        said = {"A,": 0, "A) CT": 0}.get(piece, 1 if "B" in piece or "MRI" in piece else None)
        assert found in (said, None)


def test_spellings_of_one_option() -> None:
    asked = Question(text="?", options=("CT", "MRI", "X-Ray", "T2 FLAIR"))
    for text in ("X-ray", "X ray", "XRay", "x\u2010ray"):
        assert parse(f"The answer is {text}.", asked) == parse(f"This is a chest {text} image.", asked) == 2
    assert parse("This is a T2-FLAIR image.", asked) == 3 and parse("The answer is MR\u0131.", asked) is None


def test_letters_stop_at_the_last_option() -> None:
    two = Question(text="?", options=("Yes", "No"))
    assert [parse(text, two) for text in ("A", "B", "C", "D)", "yes", "No.", "Answer: no")] == [
        0,
        1,
        None,
        None,
        0,
        1,
        1,
    ]


def test_options_that_look_like_letters() -> None:
    swapped = Question(text="Which group?", options=("B", "A", "O"))
    assert [parse(text, swapped) for text in ("A", "B", "C", "O", "A) B", "(B) A", "A) A")] == [
        None,
        None,
        2,
        2,
        0,
        1,
        None,
    ]
    twins = Question(text="?", options=("an eye", "an eye ", "a lung"))
    assert parse("an eye", twins) is None and parse("B", twins) == 1


@given(st.text(max_size=60))
def test_any_text_is_an_option_or_nothing(text: str) -> None:
    found = parse(text, ORGANS)
    assert found is None or 0 <= found < 4
    assert found is None or re.search("[A-Da-d\U0001f170-\U0001f173]", unicodedata.normalize("NFKC", text)), (
        "an answer is never made up"
    )


@given(st.integers(0, 3), st.text(alphabet="AaCc <>/answerthink().", max_size=40))
def test_what_was_thought_before_does_not_count(option: int, thought: str) -> None:
    assert parse(f"<think>{thought}</think><answer>{'ABCD'[option]}</answer>", ORGANS) == option


# ------------------------------------------------------------------------------------ what is said before the answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think> It is round. </think> <answer> C </answer>", "It is round."),
        ("It is round.</think><answer>C</answer>", "It is round."),
        ("<think>One.</think> Two. <think>Three.</think><answer>C", "One. Two. Three."),
        ("<think></think>It is round. <answer>C</answer>", "It is round."),
        ("<THINK>It is round. <answer>C</answer>", "It is round."),
        ("<think>It is round, and", "It is round, and"),
        ("It is round. <answer>C</answer> I hope so.", "It is round."),
        ("<think>It is round.</think><answer>who knows</answer>", "It is round."),
        ("It is round, so the answer is C. The answer is C.", "It is round, so the"),
        *((text, None) for text in ("", "C", "an eye", "<answer>C</answer>", "<think> </think>C", "I cannot say.")),
        *((text, None) for text in ("The answer is C", "C) an eye", "The answer is C. Or the answer is D.")),
    ],
)
def test_rationales(text: str, said: str | None) -> None:
    assert rationale(text, ORGANS) == said


CONCLUSIONS = """
so the answer is C. | It is round. The correct answer is (C). | C | an eye | <answer>C</answer> | Answer: C
I see an eye. | It is not a lung. It is an eye. | This shows An  Eye, clearly | "an eye", I think
There is no sign of a lung. I see an eye. | an eye. And again an eye
"""
NO_CONCLUSIONS = """
It is round. | I see a lung or an eye. | It is not an eye. | There is no organ without an eye. | eye | an eyelid
The answer is A. The answer is C. an eye | the answer is Z. an eye | <answer>A or B</answer> an eye | It is A or C
It isn't an eye | Without an eye | an. eye | an eye, a liver | Never an eye
"""


@pytest.mark.parametrize(("texts", "option"), [(CONCLUSIONS, EYE), (NO_CONCLUSIONS, None)])
def test_conclusions(texts: str, option: int | None) -> None:
    for text in listed(texts):
        assert conclusion(text, ORGANS) == option, text


def test_options_that_occur_in_any_sentence() -> None:
    """ "No", a number, and an option within a longer one are read only where they stand for themselves."""

    def led(said: str, *options: str) -> int | None:
        return conclusion(said, Question(text="?", options=options))

    assert led("Yes, there are 2 of them, no doubt", "Yes", "No") == 0
    assert led("There is no doubt, yes", "Yes", "No") is None
    assert led("I see 2 of them", "1", "2") == 1
    assert led("I see 2 of them in 1 lung", "1", "2") is None
    assert led("It is red", "red", "red") is None
    assert led("It lies in the left lung", "lung", "left lung") == 1, "the shorter one is part of the longer"
    assert led("It lies in the left lung, not in the right lung", "lung", "left lung") == 1
    assert led("The lung, the left lung", "lung", "left lung") is None
    assert led("grade (2+)", "grade (2+)", "grade 3") == 0


@given(st.text(max_size=60), st.integers(0, 3))
def test_a_rationale_is_part_of_the_text_and_the_answer_is_not(thought: str, option: int) -> None:
    said = rationale(f"<think>{thought}</think><answer>{'ABCD'[option]}</answer>", ORGANS)
    assert said is None or said in thought.replace("<think>", "").replace("</think>", "")


# ------------------------------------------------------------------------------------- the answer first, then a thought

FIRST = [
    "<answer> C </answer><think> It is round. </think>",
    "<answer>C</answer>\n<think>The answer is A, since it is a lung.</think>",
    "<answer>(C) an eye</answer> <think>Not C but A: <answer> A </answer></think>",
    "<answer> C </answer><think> It is A, and was cut off",
    "<ANSWER> C </ANSWER><think>A</think> So A it is, a lung.",
    "<answer> C </answer><think>A</think><answer> C </answer>",
    "[ANSWER]C[/ANSWER] ◁think▷The answer is A.◁/think▷",
]


@pytest.mark.parametrize("text", FIRST)
def test_an_answer_before_the_first_thought_is_the_answer(text: str) -> None:
    """Whatever the rationale behind it says, and whether or not it was cut off."""
    assert parse(text, ORGANS) == EYE


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<answer> C </answer><think>Wait.</think><answer> A </answer>", None),  # two answers, which differ
        ("<answer>C<think>It is A.</think>A", 0),  # an open tag is no answer yet
        ("<answer></answer><think>C</think>A", 0),
        ("C<think>It is A.</think>A", 0),
        ("C<think>It is A.</think>", None),
        ("<answer>C or D</answer><think>It is A.</think>", None),
        ("<answer>C</answer></think>A", 0),  # of a thought that the prompt has opened
        ("<think><answer>C</answer><think>x</think>A", 0),
    ],
)
def test_what_else_stands_before_a_thought(text: str, read: int | None) -> None:
    assert parse(text, ORGANS) == read


def test_the_rationale_of_an_answer_first_is_the_thought_behind_it() -> None:
    assert rationale(FIRST[0], ORGANS) == "It is round."
    assert rationale("<answer>C</answer><think>It is A, and", ORGANS) == "It is A, and"
    assert rationale("<answer>C</answer><think></think>", ORGANS) is None
    assert told(FIRST[1], ORGANS).conclusion == 0 and told(FIRST[1], ORGANS).words == 10


def test_an_answer_first_is_retold_in_its_place() -> None:
    """The same order: the answer that an attacker wants, and the rationale that was bent towards it, or was not."""
    text = "<answer> C </answer>\n<think> It is an eye, so C. </think>"
    assert retell(text, ORGANS, 0) == "<answer> A </answer><think> It is a lung, so A. </think>"
    assert retell(text, ORGANS, 0, bent=False) == "<answer> A </answer><think> It is an eye, so C. </think>"
    assert curtail(text, ORGANS, 1) == "<answer> B </answer>"
    for option in range(4):
        for first in FIRST:
            assert parse(retell(first, ORGANS, option), ORGANS) == option, first
            assert parse(curtail(first, ORGANS, option), ORGANS) == option


@given(st.integers(0, 3), st.text(alphabet="AaCc <>/think().", max_size=40))
def test_no_thought_behind_an_answer_changes_it(option: int, thought: str) -> None:
    assert parse(f"<answer>{'ABCD'[option]}</answer><think>{thought}</think>", ORGANS) == option
