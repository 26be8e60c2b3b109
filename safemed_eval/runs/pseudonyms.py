"""Pseudonyms: what a run folder holds in place of ids, paths and texts, so that it can be passed on.

A pseudonym is an HMAC-SHA256 under a key that stays with the user. Without the key nobody can tell what it stands for,
not even by trying guesses. Under one key it is the same in every run: runs go on, are compared, and have the clusters
that they would have had.
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
from safemed_eval.data import Audit, Side
from safemed_eval.errors import SpecError
from safemed_eval.models.answers import told
from safemed_eval.runs.folder import Memory, RunFolder

WITHHELD = "withheld by --pseudonymize"
"""In place of reasons and command lines, which quote what must not be quoted."""

_KEPT = ("kind", "attack", "sampling", "abstained", "stopped", "hits", "modality", "question_type")
"""Fields of a record whose texts are ours, or that tables are broken down by."""
_KINDS = {"image": "image", "patient_id": "patient", "source": "source"}
_SECRET_OPTIONS = ("--data", "--data-root", "--out", "--pseudonymize")
_DIGITS = 20
"""Of a pseudonym: 80 bits, so that no two of a billion items are likely to share one."""
_LEAST_BYTES, _LEAST_KINDS = 32, 8
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(32))" > FILE makes one'


def read_key(file: Path) -> bytes:
    """The key in a file, without a line's end behind it.

    Raises:
        SpecError: there is none, or one that could be guessed.
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
    """The pseudonyms under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, for a run's spec: under another key a run does not go on, nor compare."""
        return self._hash("fingerprint")[:_DIGITS]

    def digest(self, text: str) -> str:
        """In place of a hash that someone who has the data could compute."""
        return self._hash("digest", text)

    def of(self, kind: str, *parts: str) -> str:
        """`item-3f0a...`: the same for the same parts."""
        return f"{kind}-{self._hash(kind, *parts)[:_DIGITS]}"

    def data(self, name: str) -> str:
        """Of what --data says, the kind."""
        kind, colon, path = name.partition(":")
        return name if kind == "phantom" or not colon else f"{kind}:{self.of('data', path)}"

    def item(self, id: str) -> str:
        """What an item is called."""
        return self.of("item", id)

    def asked(self, item: Item) -> Item:
        """The item with a pseudonym for each of its texts; what is asked for its prompt shows these."""
        options = tuple(self.of("option", item.id, option) for option in item.question.options)
        return replace(item, question=Question(text=self.of("question", item.id, item.question.text), options=options))

    def record(self, record: Json) -> Json:
        """The record with pseudonyms. Numbers stay, and so do the names of modality, question type and attack.

        Texts have one for each item, so that the same option of two questions cannot be told by how often it occurs.
        Of what a model wrote, `told` keeps what reports count. Why an item failed is withheld.
        """
        item, found = record["item"], Json()
        for name, value in record.items():
            if name in _KEPT:
                found[name] = value
            elif name == "item":
                found[name] = self.item(value)
            elif name == "options":
                found[name] = [self.of("option", item, option) for option in value]
            elif name == "question":
                found[name] = self.of("question", item, value)
            elif name == "image_sha256":
                found[name] = None if value is None else self.digest(value)
            elif name == "error":
                found[name] = None if value is None else WITHHELD
            elif name == "text":
                found |= {name: None, "told": None if value is None else self._told(record)}
            else:
                found[name] = self._without_texts(_KINDS.get(name, "value"), name, value)
        return found

    def audit(self, found: Audit) -> Audit:
        """What an audit has found, with the pseudonyms that records have. Why an image cannot be read is withheld."""

        def items(ids: Sequence[str]) -> tuple[str, ...]:
            return tuple(map(self.item, ids))

        def side(one: Side) -> Side:
            return replace(one, reason=one.reason and WITHHELD)

        return replace(
            found,
            train=side(found.train),
            test=side(found.test),
            shared=tuple(
                replace(
                    one,
                    image=self.of("image", "image", one.image),
                    of=self.of("image", "image", one.of),
                    items=items(one.items),
                    of_items=items(one.of_items),
                )
                for one in found.shared
            ),
            shared_patients=tuple(
                replace(
                    one,
                    patient=self.of("patient", "patient_id", one.patient),
                    items=items(one.items),
                    of_items=items(one.of_items),
                )
                for one in found.shared_patients
            ),
        )

    def about(self, about: Json) -> Json:
        """What run.json keeps beside the spec."""
        names = dict(about["names"])
        names["data"] = self.data(names["data"])
        if (trained := names.get("trained")) and trained.get("data"):
            names["trained"] = trained | {"data": self.data(trained["data"])}
        skipped = [{"item": self.item(bad["item"]), "reason": WITHHELD} for bad in about["skipped"]]
        return {**about, "names": names, "skipped": skipped}

    def arguments(self, argv: Sequence[str]) -> list[str]:
        """A command line without the values of options that name data, or the key."""
        found: list[str] = []
        for before, argument in zip(["", *argv], argv, strict=False):
            option, equals, _ = argument.partition("=")
            if before in _SECRET_OPTIONS:
                found.append(WITHHELD)
            elif equals and option in _SECRET_OPTIONS:
                found.append(f"{option}={WITHHELD}")
            else:
                found.append(argument)
        return found

    def _hash(self, *parts: str) -> str:
        return hmac.new(self._key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _told(self, record: Json) -> Json:
        question = Question(text=record["question"], options=tuple(record["options"]))
        found = told(record["text"], question)
        said = None if found.rationale is None else self.of("rationale", record["item"], found.rationale)
        return {"words": found.words, "rationale": said, "conclusion": found.conclusion}

    def _without_texts(self, kind: str, name: str, value: Any) -> Any:
        """The value with a pseudonym for every text in it, whatever it is."""
        if isinstance(value, str):
            return self.of(kind, name, value)
        if isinstance(value, Mapping):
            return {key: self._without_texts(kind, f"{name}.{key}", part) for key, part in value.items()}
        return [self._without_texts(kind, name, part) for part in value] if isinstance(value, list) else value


class Veiled:
    """A run folder that is written under pseudonyms, and asked by real ids."""

    def __init__(self, run: RunFolder | Memory, names: Pseudonyms) -> None:
        self._run, self._names = run, names

    def __len__(self) -> int:
        return len(self._run)

    def done(self, item: str, condition: str = "") -> bool:
        return self._run.done(self._names.item(item), condition)

    def append(self, records: Iterable[Json]) -> None:
        self._run.append([self._names.record(record) for record in records])

    def contents(self) -> tuple[Json, list[bytes]]:
        return self._run.contents()
