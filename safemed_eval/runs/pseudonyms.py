"""Pseudonyms that replace ids, paths and texts in a run folder, so that it can be shared.

A pseudonym is an HMAC-SHA256 under a key that stays with the user. Without the key its meaning cannot be found, not
even by trying guesses. Under one key a text has the same pseudonym in every run, so that runs can be resumed and
compared, and keep their clusters.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safemed_eval.codec import Json
from safemed_eval.core import Item, Question
from safemed_eval.data import Audit, Side, drawer_of
from safemed_eval.errors import SpecError
from safemed_eval.models.answers import told
from safemed_eval.runs.folder import Memory, RunFolder

WITHHELD = "withheld by --pseudonymize"
"""Replaces error messages and arguments, which may quote the data."""

_KEPT = (
    "kind",
    "attack",
    "sampling",
    "noise",
    "test",
    "abstained",
    "unavailable",
    "match",
    "stopped",
    "draws",
    "hits",
    "modality",
    "question_type",
)
"""Fields of a record that stay: their texts are the toolkit's own, or tables are broken down by them."""
_KINDS = {"image": "image", "patient_id": "patient", "source": "source"}
_SECRET_OPTIONS = ("--data", "--data-root", "--out", "--pseudonymize")
_DIGITS = 20
"""Length of a pseudonym in hex digits: 80 bits, so that collisions among a billion items are unlikely."""
_LEAST_BYTES, _LEAST_KINDS = 32, 8
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(32))" > FILE makes one'


def read_key(file: Path) -> bytes:
    """Read the key in a file, without the line end after it.

    Raises:
        SpecError: the file cannot be read, or the key could be guessed.
    """
    try:
        key = file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise SpecError(f"--pseudonymize {file}: cannot be read: {error.strerror}; {_MAKE_ONE}") from None
    if len(key) < _LEAST_BYTES or len(set(key)) < _LEAST_KINDS:
        raise SpecError(
            f"--pseudonymize {file}: a key of {len(key)} bytes, {len(set(key))} of them different, could be guessed; "
            f"it takes {_LEAST_BYTES} random ones. {_MAKE_ONE}"
        )
    return key


class Pseudonyms:
    """Makes pseudonyms under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def fingerprint(self) -> str:
        """An identifier of the key, for the spec: runs under different keys are neither resumed nor compared."""
        return self._hash("fingerprint")[:_DIGITS]

    def digest(self, text: str) -> str:
        """Replace a plain hash, which anyone with the data could compute."""
        return self._hash("digest", text)

    def of(self, kind: str, *parts: str) -> str:
        """Return the pseudonym of these parts, such as `item-3f0a...`."""
        return f"{kind}-{self._hash(kind, *parts)[:_DIGITS]}"

    def data(self, name: str) -> str:
        """Replace the path in a --data argument; its kind stays, and so do the options of drawn data."""
        kind, colon, path = name.partition(":")
        return name if not colon or drawer_of(name) else f"{kind}:{self.of('data', path)}"

    def item(self, id: str) -> str:
        """Return the pseudonym of an item's id."""
        return self.of("item", id)

    def asked(self, item: Item) -> Item:
        """Return the item with pseudonyms for its texts, for the example prompt in run.json."""
        options = tuple(self.of("option", item.id, option) for option in item.question.options)
        return replace(item, question=Question(text=self.of("question", item.id, item.question.text), options=options))

    def record(self, record: Json) -> Json:
        """Return the record with pseudonyms. Numbers stay, and so do modality, question type and attack.

        Pseudonyms of texts depend on the item, so that frequent options cannot be recognised by counting. A generated
        text is reduced to what reports need of it (`told`), and error messages are withheld.
        """
        item, veiled = record["item"], Json()
        for name, value in record.items():
            if name in _KEPT:
                veiled[name] = value
            elif name == "item":
                veiled[name] = self.item(value)
            elif name == "donor":
                veiled[name] = None if value is None else self.item(value)
            elif name == "options":
                veiled[name] = [self.of("option", item, option) for option in value]
            elif name in ("question", "asked"):
                veiled[name] = None if value is None else self.of("question", item, value)
            elif name == "image_sha256":
                veiled[name] = None if value is None else self.digest(value)
            elif name == "error":
                veiled[name] = None if value is None else WITHHELD
            elif name == "text":
                veiled |= {name: None, "told": None if value is None else self._told(record)}
            else:
                veiled[name] = self._without_texts(_KINDS.get(name, "value"), name, value)
        return veiled

    def audit(self, result: Audit) -> Audit:
        """Return the result of an audit with the pseudonyms of records, and without reasons for unreadable images."""

        def items(ids: Sequence[str]) -> tuple[str, ...]:
            return tuple(map(self.item, ids))

        def side(audited: Side) -> Side:
            return replace(audited, reason=audited.reason and WITHHELD)

        return replace(
            result,
            train=side(result.train),
            test=side(result.test),
            shared=tuple(
                replace(
                    image,
                    image=self.of("image", "image", image.image),
                    of=self.of("image", "image", image.of),
                    items=items(image.items),
                    of_items=items(image.of_items),
                )
                for image in result.shared
            ),
            shared_patients=tuple(
                replace(
                    patient,
                    patient=self.of("patient", "patient_id", patient.patient),
                    items=items(patient.items),
                    of_items=items(patient.of_items),
                )
                for patient in result.shared_patients
            ),
        )

    def about(self, about: Json) -> Json:
        """Return what run.json holds besides the spec, with pseudonyms."""
        names = dict(about["names"])
        names["data"] = self.data(names["data"])
        if (trained := names.get("trained")) and trained.get("data"):
            names["trained"] = trained | {"data": self.data(trained["data"])}
        skipped = [{"item": self.item(bad["item"]), "reason": WITHHELD} for bad in about["skipped"]]
        return {**about, "names": names, "skipped": skipped}

    def arguments(self, argv: Sequence[str]) -> list[str]:
        """Return a command line without the values of options that name data, or the key."""
        shown: list[str] = []
        for before, argument in zip(["", *argv], argv, strict=False):
            option, equals, _ = argument.partition("=")
            if before in _SECRET_OPTIONS:
                shown.append(WITHHELD)
            elif equals and option in _SECRET_OPTIONS:
                shown.append(f"{option}={WITHHELD}")
            else:
                shown.append(argument)
        return shown

    def _hash(self, *parts: str) -> str:
        return hmac.new(self._key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _told(self, record: Json) -> Json:
        question = Question(text=record["question"], options=tuple(record["options"]))
        read = told(record["text"], question)
        rationale = None if read.rationale is None else self.of("rationale", record["item"], read.rationale)
        return {"words": read.words, "rationale": rationale, "conclusion": read.conclusion}

    def _without_texts(self, kind: str, name: str, value: Any) -> Any:
        """Return the value with a pseudonym for every text in it."""
        if isinstance(value, str):
            return self.of(kind, name, value)
        if isinstance(value, Mapping):
            return {key: self._without_texts(kind, f"{name}.{key}", part) for key, part in value.items()}
        return [self._without_texts(kind, name, part) for part in value] if isinstance(value, list) else value


class Veiled:
    """A run folder that writes pseudonyms, and is queried by real ids."""

    def __init__(self, run: RunFolder | Memory, names: Pseudonyms) -> None:
        self._run, self._names = run, names

    def __len__(self) -> int:
        return len(self._run)

    def done(self, item: str, condition: str = "") -> bool:
        return self._run.done(self._names.item(item), condition)

    def amend(self, about: Mapping[str, object]) -> None:
        self._run.amend(about)

    def append(self, records: Iterable[Json]) -> None:
        self._run.append([self._names.record(record) for record in records])

    def contents(self) -> tuple[Json, list[bytes]]:
        return self._run.contents()
