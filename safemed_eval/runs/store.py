"""One run folder: opened once, appended to, resumed by the same command."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safemed_eval.core import Record
from safemed_eval.errors import RunError

SCHEMA = 1
_TINY = 60


class Run:
    """A run folder that this process may write to.

    Args:
        out: the folder; made if it does not exist.
        spec: everything that decides the numbers. A folder with another spec is refused.
        about: what else to keep in run.json: names, counts, what was skipped.
        session: provenance of this start; see `provenance.session`.
    Raises:
        RunError: another process is using the folder, it holds another run, or it is damaged.

    Attributes:
        repaired: whether a torn last line, of a process that was killed while it wrote, was cut off.
    """

    def __init__(
        self, out: Path, spec: Mapping[str, Any], about: Mapping[str, Any], session: Mapping[str, Any]
    ) -> None:
        self.out = out
        self.repaired = False
        self._records = out / "records.jsonl"
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(out / ".lock")
        except OSError as error:
            raise RunError(f"--out {out}: cannot be written: {error.strerror}") from None
        spec = json.loads(json.dumps(spec))
        meta = read_meta(out) if (out / "run.json").exists() else {"schema": SCHEMA, "spec": spec, "sessions": []}
        _same("the run", out, meta["spec"], spec)
        self.meta: dict[str, Any] = {**meta, **about, "sessions": [*meta["sessions"], dict(session)]}
        self._done = {_key(record) for record in self._repair()}
        self._write_meta()
        self._file = open(self._records, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()

    def resolved(self, model: Mapping[str, Any]) -> None:
        """Note what the loaded model says of itself; refused where an earlier start said otherwise."""
        found = json.loads(json.dumps(model))
        if "model" in self.meta:
            _same("the model as loaded", self.out, self.meta["model"], found)
        self.meta["model"] = found
        self._write_meta()

    def done(self, item: str, condition: str = "") -> bool:
        """Whether there is a record of this item (and attack) already."""
        return (item, condition) in self._done

    def __len__(self) -> int:
        return len(self._done)

    def append(self, records: Iterable[Record]) -> None:
        """Write records and force them to the disk before going on."""
        lines = []
        for record in records:
            if _key(record) in self._done:
                raise RuntimeError(f"{self._records}: {_key(record)} would be written twice")
            self._done.add(_key(record))
            lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.write("".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _repair(self) -> list[Record]:
        if not self._records.exists():
            return []
        raw = self._records.read_bytes()
        whole, newline, torn = raw.rpartition(b"\n")
        if torn:
            with open(self._records, "r+b") as file:
                file.truncate(len(whole) + len(newline))
                os.fsync(file.fileno())
            self.repaired = True
        return parse_records(self._records)

    def _write_meta(self) -> None:
        new = self.out / "run.json.new"
        with open(new, "w", encoding="utf-8") as file:
            json.dump(self.meta, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.out / "run.json")


def read_meta(out: Path) -> dict[str, Any]:
    """`run.json` of a run folder."""
    try:
        meta: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
        schema = meta["schema"]
        meta["spec"], meta["sessions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{out}: not a run folder, run.json cannot be read: {error}") from None
    if schema != SCHEMA:
        raise RunError(f"{out}: written with schema {schema}, this version reads schema {SCHEMA}")
    return meta


def parse_records(file: Path) -> list[Record]:
    """The records of a records.jsonl, each (item, attack) once."""
    records: list[Record] = []
    seen: set[tuple[str, str]] = set()
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                key = _key(record)
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{file}: line {number} is not a record; was it edited?") from None
            if key in seen:
                raise RunError(f"{file}: line {number} repeats item '{key[0]}'; was it edited?")
            seen.add(key)
            records.append(record)
    return records


def default_out(command: str, names: Iterable[str], spec: Mapping[str, Any]) -> Path:
    """A readable folder below runs/ that the same command finds again: certify-model-data-5f3a9c."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[-_TINY:].strip("-.") for name in names]
    tag = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:6]
    return Path("runs") / "-".join([command, *filter(None, words), tag])


def _key(record: Record) -> tuple[str, str]:
    return record["item"], record.get("attack", "")


def _same(what: str, out: Path, there: Any, here: Any) -> None:
    differences = _differences(there, here)
    if differences:
        raise RunError(
            f"--out {out} holds another run; {what} differs: {'; '.join(differences)}. Choose another --out, or repeat "
            "the command that made it"
        )


def _differences(there: Any, here: Any, path: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [d for key in keys for d in _differences(there.get(key), here.get(key), f"{path}.{key}".strip("."))]
    return [] if there == here else [f"{path} was {_short(there)}, now {_short(here)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _TINY else text[:_TINY] + "..."


def _lock(file: Path) -> Any:
    """Hold an exclusive lock, which the system releases when this process ends in whatever way."""
    handle = open(file, "w")  # noqa: SIM115 - held open as long as the run
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on Windows
        pass
    except OSError:
        handle.close()
        raise RunError(f"--out {file.parent}: another process is writing to this run") from None
    return handle
