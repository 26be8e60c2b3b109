"""The training images of a checkpoint are recorded, and a run on them says so everywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_audit import picture, write_table
from test_cli import call
from typer.testing import CliRunner

from safemed_eval import data
from safemed_eval.cli import app
from safemed_eval.core import TRAINED_ON
from safemed_eval.errors import CheckpointError, DataError, RunError
from safemed_eval.models import resolve
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.report import Run
from safemed_eval.report.page import write_page

SEEN = "among those that the model was trained on"


def verified(spec: str) -> data.DataSet:
    return data.verify(data.load(spec))


@pytest.fixture
def trained_on(tmp_path: Path) -> Path:
    """Digests of pictures 0 to 3, one of which two questions are about."""
    (tmp_path / "a").mkdir()
    for seed in range(4):
        picture(seed).save(tmp_path / "a" / f"{seed}.png")
    spec = write_table(tmp_path / "a", [{"image": f"{seed}.png"} for seed in (0, 1, 2, 3, 3)])
    data.write_seen(tmp_path / "seen.npy", verified(spec).items)
    return tmp_path / "seen.npy"


def test_files_and_pixels_are_known_again(trained_on: Path, tmp_path: Path) -> None:
    b = tmp_path / "b"
    b.mkdir()
    (b / "x.png").write_bytes((tmp_path / "a/0.png").read_bytes())
    picture(1).save(b / "y.bmp")
    picture(9).save(b / "3.png")
    spec = write_table(b, [{"image": name} for name in ("x.png", "y.bmp", "y.bmp", "3.png")])
    training = data.Training("ckpt", trained_on, ())
    found = data.overlap(verified(spec).items, [training])
    assert found == {"images": 2, "of": 3, "items": 3, "unknown": []}
    assert "2 of 3 tested images (66.7 %), with 3 questions" in data.overlap_sentences(found)[0]
    found = data.overlap(verified(write_table(b, [{"image": "3.png"}])).items, [training])
    assert found is not None and found["images"] == 0 and data.overlap_sentences(found) == []


def test_digests_are_small_and_pile_up(trained_on: Path, tmp_path: Path) -> None:
    """Two numbers of 64 bits an image: of its file and its pixels. An image that was drawn has no file of its own."""
    first = np.load(trained_on)
    assert first.dtype == np.uint64 and len(first) == 8
    more = verified("phantom:split=train,images=3").items
    data.write_seen(tmp_path / "both.npy", more, [trained_on])
    both = np.load(tmp_path / "both.npy")
    assert set(first) < set(both) and len(both) == 8 + 6
    found = data.overlap(more, [data.Training("x", tmp_path / "both.npy", ())])
    assert found is not None and found["images"] == 3


def test_images_that_were_not_read_leave_no_digests(tmp_path: Path) -> None:
    """A part of them would pass for all."""
    items = (*verified("phantom:images=2").items, *data.load("phantom:split=train,images=2").items)
    data.write_seen(tmp_path / "x.npy", items)
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"x" * 100])
def test_broken_digests_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy: "):
        data.overlap([], [data.Training("x", tmp_path / "x.npy", ())])
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="is no set of image digests"):
        data.overlap([], [data.Training("x", tmp_path / "x.npy", ())])


@pytest.mark.parametrize(
    ("tested", "images"),
    [
        ("phantom:split=train,images=9", 4),
        ("phantom:split=train,images=4", 4),
        ("phantom:images=9", 0),
        ("phantom:split=train,images=9,seed=1", 0),
    ],
)
def test_drawn_images_are_known_by_name(tested: str, images: int) -> None:
    found = data.overlap(data.load(tested).items, [data.Training("x", None, ("phantom:split=train,images=4",))])
    assert found is not None and found["images"] == images and not found["unknown"]


def test_drawn_images_are_known_where_they_were_exported(tmp_path: Path) -> None:
    data.export(data.load("phantom:split=train,images=3"), tmp_path)
    items = data.load(f"omnimedvqa:{tmp_path}").items
    found = data.overlap(items, [data.Training("x", None, ("phantom:split=train,images=2",))])
    assert found is not None and (found["images"], found["of"]) == (2, 3)


@pytest.mark.parametrize("specs", [(), ("table:t.csv",), ("phantom:images=3", "table:t.csv")])
def test_what_is_not_recorded_is_not_known(specs: tuple[str, ...]) -> None:
    found = data.overlap(data.load("phantom:images=2").items, [data.Training("old", None, specs)])
    assert found is not None and found["unknown"] == ["old"]
    assert "old was trained on is not recorded" in data.overlap_sentences(found)[-1]


def test_models_that_were_not_trained_here_say_nothing(checkpoint: Callable[[str], Path]) -> None:
    assert resolve(str(checkpoint("qwen2_5_vl"))).trainings == []
    assert data.overlap([], []) is None and data.overlap_sentences(None) == []


def test_builtin_checkpoints_are_known_by_name() -> None:
    first = "phantom:split=train,images=16384"
    for name, seen in {"sft": {first}, "at-grpo": {first, f"{first},seed=1"}}.items():
        ((found, digests, specs),) = resolve(f"builtin:{name}").trainings
        assert (found, digests) == (f"builtin:{name}", None)
        assert set(specs) == seen


def test_a_note_that_was_edited_is_refused(tmp_path: Path) -> None:
    shutil.copytree(resolve("builtin:sft").folder or "", tmp_path / "new")
    (tmp_path / "new" / ABOUT).write_text(json.dumps({"names": ["x"]}))
    with pytest.raises(CheckpointError, match="does not say what it was trained on"):
        _ = resolve(str(tmp_path / "new")).trainings


def test_training_records_what_it_saw_and_runs_say_so(table: Path, tmp_path: Path) -> None:
    """On stderr, in run.json, in the summary and on the page; not where the images are others."""
    out = tmp_path / "new"
    small = ["--canvas", "64x64", "--steps", 1, "--batch-size", 2]
    code, text = call(
        "train", "sft", "--model", "builtin:sft", "--data", f"table:{table}", "--limit", 4, *small, "--out", out
    )
    assert code == 0, text
    assert len(np.load(out / TRAINED_ON)) == 8, "four images"
    assert json.loads((out / ABOUT).read_text())["seen_by_name"] == ["phantom:split=train,images=16384"]
    asked = ["--model", str(out), "--data", f"table:{table}", "--canvas", "64x64"]
    for command, more in (("evaluate", []), ("certify", ["--sigma", "0.25", "--n0", "2", "--n", "30"])):
        run = tmp_path / command
        result = CliRunner().invoke(app, [command, *asked, *more, "--out", str(run)], catch_exceptions=False)
        assert result.exit_code == 0
        told = f"4 of 8 tested images (50.0 %), with 4 questions, are {SEEN}"
        assert f"warning: {told}" in result.stderr and told in result.stdout
        meta = json.loads((run / "run.json").read_text())
        assert meta["overlap"] == {"images": 4, "of": 8, "items": 4, "unknown": []}
        write_page([Run.read(run)], tmp_path / "page.html", title="t")
        assert told in (tmp_path / "page.html").read_text()
    (run / "run.json").write_text(json.dumps(meta | {"overlap": {"images": 9, "of": 8, "items": 9, "unknown": []}}))
    with pytest.raises(RunError, match="overlap cannot be"):
        Run.read(run)
    shared = ["evaluate", "--model", out, "--limit", 2, "--data"]
    code, text = call(*shared, "phantom", "--out", tmp_path / "clean")
    assert code == 0 and "trained on" not in text
    code, text = call(*shared, "phantom:split=train,images=4", "--out", tmp_path / "base")
    assert code == 0 and SEEN in text, "what its base had seen, it has seen"
