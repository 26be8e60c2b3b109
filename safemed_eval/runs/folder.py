"""A run folder that records are appended to, and that the same command resumes; also a run kept in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safemed_eval.codec import Json, decode, decode_line, joined
from safemed_eval.errors import RunError
from safemed_eval.files import NEW, write_whole
from safemed_eval.runs.meta import SCHEMA, RunMeta, meta_of
from safemed_eval.runs.record import CertifyRecord, EvaluateRecord, Record
from safemed_eval.runs.spec import EvaluateSpec

META = "run.json"
RECORDS = "records.jsonl"
LOCK = ".lock"
_KEYS = ("spec", "model", "sessions", "names", "items", "skipped", "conditions", "sampled", "image_notes")
_TINY = 60
_SHOWN = 5


class Folder:
    """A folder that this process has locked, and that can be resumed only with the spec that it was created with.

    Args:
        out: the folder; created if it does not exist.
        spec: all settings that decide the numbers. A folder with another spec is refused.
        model: the loaded model's description of itself; a folder with another one is refused, too.
        about: further contents of run.json: names, counts, skipped items.
        session: provenance of this start; see `provenance.session`.
    Raises:
        RunError: another process is using the folder, it holds another run, or it is damaged.
    """

    def __init__(
        self,
        out: Path,
        spec: Mapping[str, object],
        *,
        model: Mapping[str, object],
        about: Mapping[str, object],
        session: Mapping[str, object],
    ) -> None:
        self.out = out
        with ExitStack() as stack:
            try:
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_lock(out / LOCK))
                meta: Json = {"schema": SCHEMA, "spec": _plain(spec), "model": _plain(model), "sessions": []}
                refuse_other_spec(out, spec)
                if (out / META).exists():
                    meta = read_meta(out)
                    _refuse_other("the model as loaded", out, meta["model"], _plain(model))
                self._prepare(stack)
                meta = {**meta, **about, "sessions": [*meta["sessions"], dict(session)]}
                write_whole(out / META, json.dumps(meta, indent=2, ensure_ascii=False))
            except OSError as error:
                raise RunError(f"--out {out}: cannot be written: {error.strerror}") from None
            self._open = stack.pop_all()

    def _prepare(self, stack: ExitStack) -> None:
        """Open the files of a subclass, before this start is written to run.json."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # only records that were forced to the disk count as done
            self._open.close()


class RunFolder(Folder):
    """A run folder that this process appends records to.

    Attributes:
        repaired: True if an incomplete last line, left by a process that was killed, was cut off.
    """

    repaired = False

    def _prepare(self, stack: ExitStack) -> None:
        self._records = self.out / RECORDS
        self._done = self._repair()
        self._file = stack.enter_context(self._records.open("a", encoding="utf-8"))

    def done(self, item: str, condition: str = "") -> bool:
        """Return True if there is a record of this item (and attack) already."""
        return (item, condition) in self._done

    def __len__(self) -> int:
        return len(self._done)

    def contents(self) -> tuple[Json, list[bytes]]:
        """Read run.json and the lines of records.jsonl."""
        return read_meta(self.out), list(_lines(self.out))

    def amend(self, about: Mapping[str, object]) -> None:
        """Write these further contents of run.json."""
        try:
            write_whole(self.out / META, json.dumps({**read_meta(self.out), **about}, indent=2, ensure_ascii=False))
        except OSError as error:
            raise RunError(f"--out {self.out}: cannot be written: {error.strerror}") from None

    def append(self, records: Iterable[Json]) -> None:
        """Write records, and return once they are on the disk."""
        keys, lines = [], []
        for record in records:
            keys.append(record_key(record))
            if keys[-1] in self._done:
                raise RuntimeError(f"{self._records}: {keys[-1]} would be written twice")
            lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        try:
            self._file.write("".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(
                f"{self._records}: cannot be written: {error.strerror}; {len(self)} records are safe, and the same "
                "command goes on from there"
            ) from None
        self._done.update(keys)

    def _repair(self) -> set[tuple[str, str]]:
        """Cut off an incomplete last line, and return the keys of the records."""
        raw = self._records.read_bytes() if self._records.exists() else b""
        whole, newline, torn = raw.rpartition(b"\n")
        if torn:
            with self._records.open("r+b") as file:
                file.truncate(len(whole) + len(newline))
                os.fsync(file.fileno())
            self.repaired = True
        done: set[tuple[str, str]] = set()
        for number, record in enumerate(read_lines(self.out), start=1):
            _refuse_twice(record_key(record), done, f"{self._records}: line {number}")
            done.add(record_key(record))
        return done


class Memory:
    """A run that is kept in memory, with the interface of `RunFolder`."""

    repaired = False

    def __init__(
        self,
        spec: Mapping[str, object],
        *,
        model: Mapping[str, object],
        about: Mapping[str, object],
        session: Mapping[str, object],
    ) -> None:
        meta = {"schema": SCHEMA, "spec": spec, "model": model, "sessions": [session], **about}
        self._meta, self._records = _plain(meta), dict[tuple[str, str], Json]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: no file is open."""

    def __len__(self) -> int:
        return len(self._records)

    def done(self, item: str, condition: str = "") -> bool:
        return (item, condition) in self._records

    def amend(self, about: Mapping[str, object]) -> None:
        self._meta.update(_plain(about))

    def append(self, records: Iterable[Json]) -> None:
        self._records.update({record_key(record): record for record in records})

    def contents(self) -> tuple[Json, list[bytes]]:
        return self._meta, [json.dumps(record, allow_nan=False).encode() for record in self._records.values()]


def read_run(out: Path) -> tuple[RunMeta, list[Record]]:
    """Read and check a run folder of evaluate or certify.

    Raises:
        RunError: this is no such folder, or a record is malformed or contradicts itself or the spec.
    """
    return checked(read_meta(out), _lines(out), str(out))


def checked(meta: Json, lines: Iterable[bytes], where: str) -> tuple[RunMeta, list[Record]]:
    """Parse and check run.json and the lines of records.jsonl."""
    parsed, records, seen = meta_of(meta, where), list[Record](), set[tuple[str, str]]()
    for number, line in enumerate(lines, start=1):
        record = _record(line, parsed, where, number, seen)
        key = (record.item, record.attack if isinstance(record, EvaluateRecord) else "")
        _refuse_twice(key, seen, f"{where}/{RECORDS}: line {number}")
        seen.add(key)
        records.append(record)
    return parsed, records


def _record(line: bytes, meta: RunMeta, where: str, number: int, seen: Set[tuple[str, str]]) -> Record:
    spec, place = meta.spec, f"{where}/{RECORDS}: line {number}"
    try:
        if isinstance(spec, EvaluateSpec):
            answer = decode_line(EvaluateRecord, line)
            answer.check(spec)
            return answer
        certificate = decode_line(CertifyRecord, line)
        certificate.check(spec)
        return certificate
    except ValueError as error:
        raw = _parsed(line, place)
        _refuse_twice(record_key(raw), seen, place)
        place = f"{where}: the record of item {raw['item']!r}"
        if spec.conditions and raw.get("attack") not in spec.conditions:
            raise RunError(f"{place} is of attack {raw.get('attack')!r}, which was not asked for") from None
        decode(EvaluateRecord if spec.conditions else CertifyRecord, raw, place)
        raise RunError(joined(place, str(error))) from None


def _refuse_twice(key: tuple[str, str], seen: Set[tuple[str, str]], place: str) -> None:
    if key in seen:
        raise RunError(f"{place} repeats item '{key[0]}'")


def _lines(out: Path) -> Iterator[bytes]:
    file = out / RECORDS
    if file.exists():
        with file.open("rb") as lines:
            yield from lines


def read_lines(out: Path) -> list[Json]:
    """Read the records of a run folder as JSON; an empty list if there are none yet."""
    return [_parsed(line, f"{out / RECORDS}: line {number}") for number, line in enumerate(_lines(out), start=1)]


def _parsed(line: bytes, place: str) -> Json:
    """Parse a line of JSON that has the key of a record."""
    try:
        record: Json = json.loads(line, parse_constant=_refuse_constant)
        hash(record_key(record))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{place} is not a record") from None
    return record


def refuse_other_spec(out: Path, spec: Mapping[str, object]) -> None:
    """Raise RunError if the folder holds a run of another spec (naming the differences), or other files."""
    if (out / META).exists():
        _refuse_other("what was asked", out, read_meta(out)["spec"], _plain(spec))
    elif out.is_dir() and (strange := sorted(file.name for file in out.iterdir() if not _is_left_by_a_start(file))):
        raise RunError(f"--out {out}: not a run folder, it holds {strange[0]}; name a new or empty folder")


def _is_left_by_a_start(file: Path) -> bool:
    """Return True for a file that a start leaves if it ends before run.json is written, as when the disk is full."""
    return file.name in (LOCK, META + NEW) or (file.name == RECORDS and not file.stat().st_size)


def read_meta(out: Path) -> Json:
    """Read `run.json` of a run folder, and check its schema and keys."""
    if not out.is_dir():
        raise RunError(f"{out}: {'is a file; name the run folder that it is in' if out.exists() else 'no such folder'}")
    if not (out / META).exists() and (runs := sorted(file.parent.name for file in out.glob(f"*/{META}"))):
        raise RunError(f"{out}: not a run folder, but holds {', '.join(runs[:_SHOWN])}{', ...' * (len(runs) > _SHOWN)}")
    try:
        meta: Json = json.loads((out / META).read_text(encoding="utf-8"))
        schema = meta["schema"]
        lacking = [key for key in _KEYS if key not in meta]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{out}: not a run folder, {META} cannot be read: {error}") from None
    if schema != SCHEMA:
        raise RunError(f"{out}: written with schema {schema}, this version reads schema {SCHEMA}")
    if lacking:
        raise RunError(f"{out}: {META} has no {', '.join(lacking)}")
    return meta


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def count_records(out: Path) -> int | None:
    """Count the records of a run folder: 0 if there is no folder, None if the last line is incomplete."""
    file = out / RECORDS
    raw = file.read_bytes() if file.exists() else b""
    return raw.count(b"\n") if raw.endswith(b"\n") or not raw else None


def default_out(command: str, names: Iterable[str], spec: Mapping[str, object]) -> Path:
    """Return a readable folder below runs/ that the same spec always gives: certify-model-data-5f3a9c."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[-_TINY:].strip("-.") for name in names]
    tag = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:6]
    return Path("runs") / "-".join([command, *filter(None, words), tag])


def record_key(record: Json) -> tuple[str, str]:
    """Return the key of a record: (item id, attack); the attack of a certificate is ""."""
    return record["item"], record.get("attack", "")


def _refuse_other(what: str, out: Path, there: Any, here: Any) -> None:
    if changes := differences(there, here):
        raise RunError(f"--out {out} holds another run; {what} differs: {'; '.join(changes)}. Choose another --out")


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """List the differences of two JSON values, one sentence each: 'canvas was "64x64", now "384x384"'."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [d for key in keys for d in differences(there.get(key), here.get(key), f"{path}.{key}".strip("."))]
    return [] if there == here else [f"{path} was {_short(there)}, now {_short(here)}"]


def _short(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{40,}", value):
        value = f"{value[:8]}..."
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _TINY else text[:_TINY] + "..."


def _plain(value: Mapping[str, object]) -> Json:
    """Return the value as it is after a round trip through JSON."""
    plain: Json = json.loads(json.dumps(value))
    return plain


def _lock(file: Path) -> Any:
    """Take an exclusive lock, which the operating system releases when this process ends."""
    handle = file.open("w")
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on Windows
        pass
    except OSError:
        handle.close()
        raise RunError(f"--out {file.parent}: another process is writing to this run") from None
    return handle
