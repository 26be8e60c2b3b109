"""Whatever the parsers are fed, they take it, or say in words of ours what is wrong with it: never anything else."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad.runs import attacked, certificates, falsified, rotated, sequences, smoothed
from hypothesis import given, settings
from hypothesis import strategies as st

from safemed_eval import attacks, data, grammar
from safemed_eval.core import Question
from safemed_eval.data.sources.medr1 import split_problem
from safemed_eval.errors import DataError, RunError, SpecError, UserError
from safemed_eval.models.answers import conclusion, parse, rationale, retell
from safemed_eval.models.checkpoints.prompts import read_template
from safemed_eval.report import Run
from safemed_eval.report.gap import gaps_of
from safemed_eval.report.load import SLICES
from safemed_eval.report.page.items import Items, details
from safemed_eval.report.page.overview import overview_of
from safemed_eval.report.page.studies import studies_of
from safemed_eval.report.tables import tables_of
from safemed_eval.smoothing import Smoothing, Voting
from safemed_eval.train import Lora

settings.register_profile("parsers", max_examples=150)
settings.load_profile("parsers")

TEXTS = st.text(max_size=60) | st.text(st.sampled_from("abAB()<>/=,:.;|\\ \n\t\"'0123456789eE+-_s{}[]nif"), max_size=40)
NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
JSON = st.recursive(
    NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def taken(work: Callable[[], Any], *refusals: type[UserError]) -> Any:
    """Return the result; None if it is refused with an error of these kinds."""
    try:
        return work()
    except UserError as error:
        assert isinstance(error, refusals or UserError) and str(error).strip()
        return None


# ---------------------------------------------------------------------- specs


@given(TEXTS)
def test_numbers_and_radii(text: str) -> None:
    for work in (lambda: grammar.number(text, "x"), lambda: grammar.whole(text, "x")):
        found = taken(work, SpecError)
        assert found is None or abs(found) < float("inf")
    found = taken(lambda: grammar.radii(text, 0.25), SpecError)
    assert found is None or (found and all(0 <= radius < float("inf") for radius in found.values()))


KEYS = ["eps", "norm", "steps", "restarts", "step", "loss", "target", "start", "early_stop", "sigma", "n", "alpha", "r"]
VALUES = st.sampled_from(["4/255", "1/0", "nan", "inf", "0", "-1", "l2", "linf", "yes", "zero", "1e400", ""]) | TEXTS
SPECS = st.builds(
    lambda name, pairs: f"{name}:{','.join(f'{key}={value}' for key, value in pairs)}",
    st.sampled_from(["pgd", "fgsm", "apgd", "noise", "suite", "adaptive", "transfer", "corrupt", "clean", "x"]),
    st.lists(st.tuples(st.sampled_from(KEYS) | TEXTS, VALUES), max_size=4),
)


@given(SPECS | TEXTS.filter(lambda text: not text.strip().startswith("art")))
def test_attacks(text: str) -> None:
    found = taken(lambda: attacks.parse_all([text]), SpecError)
    for one in found or []:
        assert attacks.parse(str(one)) == one, "its own words name the same attack"


@given(SPECS | TEXTS)
def test_specs_of_other_options(text: str) -> None:
    pairs = taken(lambda: grammar.split(text)[1], SpecError)
    for cls in (Smoothing, Voting, Lora):
        if pairs is not None:
            taken(lambda cls=cls: grammar.build(cls, pairs, "--x"), SpecError)


@given(TEXTS)
def test_canvases_and_kinds_of_data(text: str) -> None:
    found = taken(lambda: data.parse_canvas(text, "pad", data.DEFAULT_CANVAS), SpecError)
    assert found is None or found.size is None or all(8 <= side <= 8192 for side in found.size)
    taken(lambda: data.load(f"phantom:{text},images=2"))


# ------------------------------------------------------------------ data files


def loaded(kind: str, name: str, content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        place = Path(folder) if kind == "omnimedvqa" else file
        return taken(lambda: data.load(f"{kind}:{place}"), DataError)


def sane(found: Any) -> None:
    """Items of a data set can be asked, and their answer is one of their options."""
    for item in found.items if found else ():
        assert item.question.text.strip() and 0 <= item.label < len(item.question.options) <= 26
        assert len(item.question.options) >= 2 and all(map(str.strip, item.question.options))
    if found:
        assert len({item.id for item in found.items}) == len(found.items)
        json.dumps([str(one) for one in found.bad], ensure_ascii=False).encode()


COLUMNS = ["id", "image", "question", "option_a", "option_b", "option_c", "options", "answer", "modality", "patient_id"]
RAW = ["question_id", "question", "gt_answer", "image_path", "option_A", "option_B", "modality_type", "dataset"]
SPLIT = ["image", "problem", "solution"]
SOLUTIONS = st.sampled_from(["<answer> A </answer>", "<answer> B </answer>", "x A)a, B)b", "a", "A", "x.png"]) | JSON


def records(keys: list[str]) -> st.SearchStrategy[Any]:
    rows = st.dictionaries(st.sampled_from(keys) | TEXTS, SOLUTIONS, max_size=8)
    return st.lists(rows, max_size=4) | JSON


@given(records(RAW))
def test_omnimedvqa(found: Any) -> None:
    sane(loaded("omnimedvqa", "QA_information/Open-access/x.json", json.dumps(found).encode()))


@given(records(SPLIT))
def test_medr1(found: Any) -> None:
    sane(loaded("medr1", "X-Ray_test.json", json.dumps(found).encode()))


@given(records(COLUMNS))
def test_jsonl(found: Any) -> None:
    lines = found if isinstance(found, list) else [found]
    sane(loaded("table", "t.jsonl", "\n".join(map(json.dumps, lines)).encode()))


@given(st.lists(st.lists(TEXTS, max_size=7), max_size=4), st.sampled_from([",", ";", "\t"]))
def test_csv(cells: list[list[str]], delimiter: str) -> None:
    head = delimiter.join(["id", "image", "question", "option_a", "option_b", "answer"])
    lines = [head, *(delimiter.join(row) for row in cells)]
    sane(loaded("table", "t.csv", "\n".join(lines).encode(errors="surrogatepass")))


@given(st.binary(max_size=200), st.sampled_from(["t.csv", "t.jsonl", "X-Ray_test.json"]))
def test_files_of_bytes(content: bytes, name: str) -> None:
    sane(loaded("medr1" if name.endswith(".json") else "table", name, content))


@given(st.text(st.sampled_from("ABCD), \na"), max_size=60))
def test_problems(text: str) -> None:
    found = taken(lambda: split_problem(text), DataError)
    assert found is None or len(found[1]) >= 1


@given(st.binary(max_size=80) | TEXTS.map(lambda text: text.encode(errors="surrogatepass")))
def test_templates(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t").write_bytes(content)
        found = taken(lambda: read_template(f"{folder}/t"), SpecError)
    if found:
        assert "{question}" in found.wording(Question(text="{question}", options=("{options}", "b")))


# --------------------------------------------------------------------- answers


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "A", "(B)", "C)", "the answer is ", "not ", "lung"]
)
WRITTEN = st.lists(PIECES | TEXTS, max_size=8).map("".join)
OPTIONS = st.lists(st.sampled_from(["lung", "a lung", "No", "2", "A", "(B)"]) | TEXTS, min_size=2, max_size=5)


@given(WRITTEN, OPTIONS)
def test_answers(text: str, options: list[str]) -> None:
    question = Question(text="What?", options=tuple(options))
    found = parse(text, question)
    assert found is None or 0 <= found < len(options)
    said = rationale(text, question)
    assert said is None or (said.strip() and conclusion(said, question) in (None, *range(len(options))))
    for option in range(len(options)):
        assert isinstance(retell(text, question, option), str)


# ----------------------------------------------------------------- run folders


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in parts for place in _places(part, (*path, key)))]


def _spoilt(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    changed = copy.copy(value)
    changed[path[0]] = _spoilt(value[path[0]], path[1:], by)
    return changed


def _reported(folder: Path) -> None:
    """All that a report computes, but for its pictures."""
    run = Run.read(folder)
    list(tables_of([run], radii="0,1s"))
    items = Items([run])
    slices = {by: sorted(set(run.rows.names(by))) for by in SLICES}
    overview_of(studies_of([run], "0,1s"), gaps_of([run]), items, slices)
    details(run, items.places[0], len(items))


@pytest.mark.parametrize("kind", [attacked, certificates, falsified, rotated, sequences, smoothed])
@given(choice=st.integers(0, 10**6), by=JSON, of_record=st.booleans())
@settings(max_examples=25)
def test_run_folders(
    kind: Callable[[Path], None], choice: int, by: Any, of_record: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any value in any place of run.json or of a record: it is refused, or does no harm."""
    out = tmp_path_factory.mktemp("run") / "a"
    kind(out)
    file = out / ("records.jsonl" if of_record else "run.json")
    first, *rest = file.read_text().split("\n")
    value = json.loads(first)
    places = _places(value)[1:]
    file.write_text("\n".join([json.dumps(_spoilt(value, places[choice % len(places)], by)), *rest]))
    taken(lambda: _reported(out), RunError, SpecError)
