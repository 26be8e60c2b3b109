"""Parsers of files that a user may bring, and of texts beyond those in test_fuzz: they take them, or say why not."""

from __future__ import annotations

import io
import json
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import evaluated, item
from test_fuzz import JSON, SPECS, TEXTS, taken

from safemed_eval import attacks, codec, grammar
from safemed_eval.core import Question
from safemed_eval.data.audit.training_overlap import read_seen
from safemed_eval.data.images.files import decode
from safemed_eval.data.images.paths import frame_of, image_path
from safemed_eval.data.records import canonical_modality, canonical_question_type, gold_index, make_question
from safemed_eval.errors import CheckpointError, DataError, RunError, SpecError
from safemed_eval.models.files.contents import read_json, refuse_damaged, shards, tensor_names
from safemed_eval.models.files.denoiser_source import resolve_denoiser
from safemed_eval.models.files.notes import template_in, training_of
from safemed_eval.models.kinds import kind_of
from safemed_eval.report.columns import columns_of
from safemed_eval.report.run import read_all
from safemed_eval.report.training.read import read_training
from safemed_eval.runs.pseudonyms import Pseudonyms, read_key
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.spec import CertifySpec, EvaluateSpec, TrainSpec
from safemed_eval.smoothing import Sequential, Smoothing, Voting
from safemed_eval.smoothing.noise import parse as parse_noise
from safemed_eval.threat import spelled_region
from safemed_eval.train._vllm import canonical_vllm
from safemed_eval.train.log import panels_of, read_log
from safemed_eval.train.rewards.functions import rewards_of
from safemed_eval.train.watch.settings import reporters

FEW = settings(max_examples=40)
BYTES = st.binary(max_size=120) | TEXTS.map(lambda text: text.encode(errors="surrogatepass"))
DOCUMENTS = JSON.map(lambda value: json.dumps(value).encode())


def written(name: str, content: bytes, read: Callable[[Path], Any]) -> Any:
    """What the reader returns for a file of this name and content."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read(file)


# ----------------------------------------------------------------------------------------------------------- texts

NOISES = st.builds(
    lambda name, key, value: f"{name}:{key}={value}",
    st.sampled_from(["gaussian", "uniform", "gamma", "brightness", "contrast", "patch", "float32"]) | TEXTS,
    st.sampled_from(["sigma", "size", "band", "stride"]) | TEXTS,
    st.sampled_from(["0", "8", "-1", "1e9", "nan", "4/255", "x"]) | TEXTS,
)


@given(NOISES | TEXTS, st.none() | st.floats())
@example("patch:size=32,band=48", None)
@FEW
def test_noises(text: str, sigma: float | None) -> None:
    found = taken(lambda: parse_noise(text, sigma), SpecError)
    if found is not None:
        assert parse_noise(str(found), sigma) == found, "its own words name the same noise"


@given(st.sampled_from(["border:", "Border:0", "mask", "BACKGROUND"]).flatmap(lambda s: TEXTS.map(lambda t: s + t)))
def test_regions(text: str) -> None:
    try:
        found = spelled_region(text)
    except ValueError as error:
        assert str(error).startswith("region is ")
    else:
        assert spelled_region(found) == found


@given(st.floats(min_value=0.01, max_value=1), st.integers(20, 10**6), st.floats(min_value=1e-6, max_value=0.5))
@FEW
def test_spec_strings_are_read_as_they_are_written(sigma: float, n: int, alpha: float) -> None:
    for kind in (Smoothing, Voting):
        spec = kind(sigma=sigma, n=n, alpha=max(alpha, 2.0 ** (2 - n)))
        _, pairs = grammar.split(grammar.write("x", spec))
        assert grammar.build(kind, pairs, "--x") == spec


@given(SPECS | TEXTS)
def test_options_of_training(text: str) -> None:
    for read in (rewards_of, canonical_vllm, reporters, resolve_denoiser):
        taken(lambda read=read: read(text), SpecError, CheckpointError)


@given(st.sampled_from(["builtin:", "python:", "./", ""]).flatmap(lambda s: TEXTS.map(lambda t: s + t)))
def test_kinds_of_models(name: str) -> None:
    assert taken(lambda: kind_of(name), SpecError) is not None


@given(JSON)
def test_paths_of_images(value: object) -> None:
    found = taken(lambda: image_path(value, Path("/data")), DataError)
    assert found is None or isinstance(found, str)
    assert isinstance(value, str) is False or frame_of(value) is None or frame_of(value) >= 0  # type: ignore[operator]


@given(JSON, st.lists(JSON, max_size=6), JSON)
def test_questions_and_answers(text: object, options: list[object], answer: object) -> None:
    found = taken(lambda: make_question(text, options), DataError)
    if found is not None:
        assert found.text.strip() and 2 <= len(found.options) <= 26 and all(map(str.strip, found.options))
        gold = taken(lambda: gold_index(answer, found.options), DataError)
        assert gold is None or 0 <= gold < len(found.options)


@given(st.none() | TEXTS)
def test_names_of_slices(raw: str | None) -> None:
    for canonical in (canonical_modality, canonical_question_type):
        found = canonical(raw)
        assert found is None or canonical(found) == found


@given(TEXTS)
def test_columns(by: str) -> None:
    records = [codec.decode(EvaluateRecord, evaluated(n, "clean", True, extra={"age": str(n)}), "x") for n in range(6)]
    found = taken(lambda: columns_of(records, by), SpecError)
    for column in found or ():
        assert all(isinstance(column.group(record), str) for record in records)


@given(TEXTS)
def test_names_of_run_folders(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        taken(lambda: read_all([f"{folder}/{text}"]), RunError, SpecError)
        taken(lambda: read_all([f"{text}={folder}"]), RunError, SpecError)


# ----------------------------------------------------------------------------------------------------------- codec

PARTS: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["kind", "item", "attack", "options", "label", "error", "log_probs", "seed", "canvas"]) | TEXTS,
    JSON,
)


@given(PARTS | JSON)
@FEW
def test_decoding(value: object) -> None:
    for kind in (EvaluateSpec, CertifySpec, TrainSpec, EvaluateRecord):
        taken(lambda kind=kind: codec.decode(kind, value, "x"), RunError)


@given(
    st.floats(min_value=0.01, max_value=1),
    st.dictionaries(st.text(min_size=1, max_size=5), st.floats(min_value=0, max_value=1.5), min_size=1, max_size=4),
)
@FEW
def test_what_is_encoded_is_decoded(sigma: float, shares: dict[str, float]) -> None:
    radii = {name: share * sigma for name, share in shares.items()} | {"1s": sigma}
    for spec in (Smoothing(sigma=sigma), Sequential(sigma=sigma, radii=radii), Voting(sigma=sigma)):
        plain = json.loads(json.dumps(codec.encode(spec)))
        assert codec.decode(type(spec), plain, "x") == spec


# ------------------------------------------------------------------------------------------------------ pseudonyms

NAMES = Pseudonyms(bytes(range(32)))
SECRETS = st.text(st.sampled_from("QZJXqzjx0123456789"), min_size=12, max_size=30)


@given(BYTES)
def test_keys(content: bytes) -> None:
    key = written("key", content, lambda file: taken(lambda: read_key(file), SpecError))
    assert key is None or (len(key) >= 32 and len(set(key)) >= 8)


@given(SECRETS, SECRETS, st.sampled_from(["error", "text", "image", "patient_id", "source", "question"]))
def test_no_secret_of_a_record_is_left(secret: str, other: str, field: str) -> None:
    record = evaluated(0, "clean", True, **{field: secret, "item": other, "options": [secret, other, "c"]})
    found = json.dumps(NAMES.record(record))
    assert secret not in found and other not in found
    assert NAMES.record(record) == NAMES.record(dict(record)), "the same record has the same pseudonyms"


@given(st.lists(SECRETS, min_size=1, max_size=4), st.sampled_from(["--data", "--out", "--data-root", "--pseudonymize"]))
def test_no_secret_of_a_command_line_is_left(secrets: list[str], option: str) -> None:
    argv = ["evaluate", *(part for secret in secrets for part in (option, secret)), f"{option}={secrets[0]}"]
    assert not any(secret in part for secret in secrets for part in NAMES.arguments(argv))


# ----------------------------------------------------------------------------------------------------------- files


@given(
    BYTES | st.lists(st.integers(0, 2**63), max_size=4).map(lambda digests: _npy(np.array(digests, dtype=np.uint64)))
)
def test_digests_of_seen_images(content: bytes) -> None:
    found = written("seen.npy", content, lambda file: taken(lambda: read_seen(file), DataError))
    assert found is None or (found.dtype == np.uint64 and found.ndim == 1)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@given(st.lists(PARTS | st.builds(lambda step, loss: {"step": step, "loss": loss}, JSON, JSON), max_size=4))
@example([{"step": math.inf}])
@example([{"step": 1, "loss": "x"}])
@FEW
def test_logs_of_training(lines: list[Any]) -> None:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()

    def read(file: Path) -> object:
        return panels_of(read_log(file))

    written("log.jsonl", content, lambda file: taken(lambda: read(file), RunError))


@given(BYTES | DOCUMENTS)
def test_logs_of_bytes(content: bytes) -> None:
    written("log.jsonl", content, lambda file: taken(lambda: read_log(file), RunError))


@given(DOCUMENTS | BYTES)
def test_notes_of_checkpoints(content: bytes) -> None:
    def read(file: Path) -> None:
        for work in (read_json, lambda file: template_in(file.parent), lambda file: training_of("x", file.parent)):
            taken(lambda work=work: work(file), CheckpointError)

    written("safemed_eval.json", content, read)


HEADERS = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__"]),
    JSON | st.builds(lambda offsets: {"data_offsets": offsets}, st.lists(st.integers(0, 40) | JSON, max_size=3)),
    max_size=3,
)


@given(HEADERS | JSON, st.integers(-3, 3), st.integers(0, 40))
@example({"a": {"data_offsets": [0, math.inf]}}, 0, 0)
def test_weights(header: Any, off: int, size: int) -> None:
    text = json.dumps(header).encode()
    content = max(0, len(text) + off).to_bytes(8, "little") + text + bytes(size)

    def read(file: Path) -> None:
        if taken(lambda: refuse_damaged(file) or True, CheckpointError):
            assert all(isinstance(name, str) for name in tensor_names(file))

    written("model.safetensors", content, read)


@given(st.builds(lambda names: json.dumps({"weight_map": names}).encode(), JSON) | DOCUMENTS | BYTES)
def test_indexes_of_weights(content: bytes) -> None:
    written("model.safetensors.index.json", content, lambda file: taken(lambda: shards(file.parent), CheckpointError))


LINES = st.builds(lambda key, question: json.dumps({"item": key, "question": question}), JSON, JSON)


@given(st.lists(LINES | TEXTS, max_size=3).map("\n".join).map(lambda text: text.encode(errors="surrogatepass")) | BYTES)
def test_paraphrases(content: bytes) -> None:
    def read(file: Path) -> None:
        attack = attacks.parse(f"prompt:kind=paraphrase-file,file={file}")
        assert all(isinstance(name, str) for name in attack.named)

    written("p.jsonl", content, lambda file: taken(lambda: read(file), SpecError))


@given(st.sampled_from(["spec", "about", "names", "sessions", "schema"]), JSON, st.lists(PARTS, max_size=2))
@FEW
def test_folders_of_training(key: str, value: object, lines: list[Any]) -> None:
    meta = {"schema": 1, "spec": {"command": "train"}, "about": {}, "sessions": []} | {key: value}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "training"
        work.mkdir()
        (work / "run.json").write_text(json.dumps(meta))
        (work / "samples.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        taken(lambda: read_training(folder), RunError)


# ---------------------------------------------------------------------------------------------------------- images


def _image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, kind)
    return stream.getvalue()


GOOD = {kind: _image(kind) for kind in ("PNG", "BMP", "GIF", "TIFF", "JPEG")}


@pytest.mark.parametrize("kind", GOOD)
@given(changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=4), cut=st.integers(0, 10**4))
@FEW
def test_damaged_images(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(GOOD[kind])
    for place, value in changes:
        content[place % len(content)] = value
    if cut % 3 == 0:
        del content[cut % len(content) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the decoder, which the command line does not show either
        found = written(f"x.{kind.lower()}", bytes(content), lambda file: taken(lambda: decode(file), DataError))
    if found is not None:
        assert found.pixels.dtype == np.uint8 and found.pixels.ndim == 3 and found.pixels.shape[2] == 3


def test_the_good_ones_are_taken() -> None:
    """Else the tests above could refuse everything."""
    for kind, content in GOOD.items():
        assert written(f"x.{kind.lower()}", content, decode).pixels.shape == (8, 8, 3)
    assert read_key_of(bytes(range(40))) == bytes(range(40))
    assert written("seen.npy", _npy(np.array([3, 5], dtype=np.uint64)), read_seen).tolist() == [3, 5]
    assert written("log.jsonl", b'{"step": 1, "loss": 0.5}\n', lambda file: read_log(file)[0]["loss"]) == 0.5
    assert make_question("q", ["a", "b"]) == Question(text="q", options=("a", "b"))
    assert codec.decode(EvaluateRecord, evaluated(0, "clean", True), "x").item == item(0)["item"]


def read_key_of(content: bytes) -> bytes:
    key: bytes = written("key", content, read_key)
    return key
