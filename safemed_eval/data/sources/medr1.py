"""medr1:FILE_OR_DIR: the split files of Med-R1, `{"image", "problem", "solution"}`.

Source:
    Lai et al. 2025 (arXiv:2503.13939), Splits/{modality,question_type}/{train,test}/*.json.

`problem` is the question with its options, "... A)MRI, B)CT (COPD), C)PET". It is split at ` A)` and then at `, B)`,
`, C)` in sequence, since splitting at every `[A-D])` would break on "(COPD)" or "(PD)".

The modality or the question type is the file's name. The other one comes from a split file of the other kind that
holds the same question, or from OmniMedVQA's raw files when `--data-root` has a QA_information folder.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from string import ascii_uppercase

from safemed_eval.core import MODALITIES, QUESTION_TYPES, Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.records import (
    Builder,
    canonical_modality,
    canonical_question_type,
    image_path,
    make_question,
    read_json_records,
    sole,
    unlettered,
)
from safemed_eval.data.sources import omnimedvqa
from safemed_eval.errors import DataError
from safemed_eval.seeds import seed_of

Slices = dict[str, str | None]

_SOLUTION = re.compile(r"\s*<answer>\s*([A-Z])\s*</answer>\s*")
"""A whole solution."""


def load(place: Path, root: Path | None) -> DataSet:
    """Read one split file, or all below a folder; a question that is in files of both kinds becomes one item."""
    files = [place] if place.is_file() else sorted(place.rglob("*_*.json"))
    parts = {part for file in files for part in ("train", "test") if file.stem.endswith(f"_{part}")}
    if not parts:
        raise DataError(f"{place}: no Med-R1 split file, named like 'X-Ray_test.json', is there")
    if len(parts) > 1:
        raise DataError(f"{place}: holds train and test splits; name one, such as medr1:{place}/modality/test")
    raw = _raw_slices(root) if root else {}
    records: dict[tuple[str, str, str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        kind, name = _slice(file)
        copies: Counter[tuple[str, str, str]] = Counter()
        for record in read_json_records(file):
            content = (str(record.get("image", "")), str(record.get("problem", "")), str(record.get("solution", "")))
            copies[content] += 1
            slices = records[(*content, copies[content])]
            if kind and name:
                slices[kind].add(name)
    builder = Builder()
    root = root or (place if place.is_dir() else place.parent)
    for (image, problem, solution, copy), slices in records.items():
        digest = f"{seed_of(problem, solution):016x}"[:8]
        key = f"{image}#{digest}" + (f"-{copy}" if copy > 1 else "")
        known = {kind: next(iter(listed)) for kind, listed in slices.items() if len(listed) == 1}
        builder.add(key, partial(_item, key, image, problem, solution, root, slices, raw), **known)
    return builder.done()


def _item(
    key: str,
    image: str,
    problem: str,
    solution: str,
    root: Path,
    slices: Mapping[str, set[str]],
    raw: Mapping[tuple[str, str], Slices],
) -> Item:
    text, options = split_problem(problem)
    joined = raw.get((image, text), {})
    known = {
        kind: _sole_name(kind, slices.get(kind, set())) or joined.get(kind) for kind in ("modality", "question_type")
    }
    return Item(
        id=key,
        question=make_question(text, options),
        label=_gold(solution, options),
        image=image_path(image, root),
        root=root,
        source=_source(image),
        modality=known["modality"],
        question_type=known["question_type"],
    )


def split_problem(problem: str) -> tuple[str, list[str]]:
    """Split `"What is it? A)MRI, B)CT"` into `("What is it?", ["MRI", "CT"])`.

    Raises:
        DataError: no ` A)`, or a marker that could be read in two ways.
    """
    pieces = re.split(r"(?:^|\s)A\)", problem)
    if len(pieces) != 2:
        raise DataError(f"' A)' occurs {len(pieces) - 1} times in the problem, expected once: '{problem[:120]}'")
    text, rest = pieces
    options = []
    for letter in ascii_uppercase[1:]:
        pieces = rest.split(f", {letter})")
        if len(pieces) > 2:
            raise DataError(f"', {letter})' occurs {len(pieces) - 1} times in the problem: '{problem[:120]}'")
        options.append(pieces[0])
        if len(pieces) == 1:
            break
        rest = pieces[1]
    return text.strip(), [option.strip() for option in options]


def _gold(solution: str, options: list[str]) -> int:
    match = _SOLUTION.fullmatch(solution)
    if not match:
        raise DataError(f"solution '{solution}' is not '<answer> LETTER </answer>'")
    index = ascii_uppercase.index(match[1])
    if index >= len(options):
        raise DataError(f"gold letter {match[1]} but only {len(options)} options")
    return sole(index, unlettered(options))


def _slice(file: Path) -> tuple[str | None, str | None]:
    """Return ("modality", "X-Ray") for "X-Ray_test.json"; (None, None) for a file named after neither."""
    name = file.stem.rpartition("_")[0]
    if (modality := canonical_modality(name)) in MODALITIES:
        return "modality", modality
    if (question_type := canonical_question_type(name)) in QUESTION_TYPES:
        return "question_type", question_type
    return None, None


def _sole_name(kind: str, listed: set[str]) -> str | None:
    if len(listed) > 1:
        raise DataError(f"the question is listed under more than one {kind}: {', '.join(sorted(listed))}")
    return next(iter(listed), None)


def _raw_slices(root: Path) -> dict[tuple[str, str], Slices]:
    """Map (image, question) to modality and question type by the raw files; {} if the root has none."""
    if not (root / "QA_information").is_dir():
        return {}
    return {
        (item.image, item.question.text): {"modality": item.modality, "question_type": item.question_type}
        for item in omnimedvqa.load(root, None).items
    }


def _source(image: str) -> str | None:
    """Return the data set's folder: "Images/MIAS/mdb084.png" -> "MIAS"."""
    parts = Path(image).parts
    return parts[1] if len(parts) > 2 else None
