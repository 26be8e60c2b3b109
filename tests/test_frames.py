"""One frame of a file: the middle one, or the one that a data set names as `scan.dcm#7`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bad.images import dicom
from PIL import Image
from test_audit import facts, write_table
from test_cli import call

from safemed_eval import data
from safemed_eval.data.images.files import decode
from safemed_eval.data.verification import count_notes
from safemed_eval.errors import DataError

SHADES = [0, 40, 80, 120, 160]
TOY = "python:safemed_eval.models.toy:brightness"


def stack(path: Path) -> Path:
    """Five frames, each brighter than the one before."""
    if path.suffix == ".dcm":
        grid = np.repeat(np.array(SHADES, np.uint16), 8 * 8).reshape(40, 8)
        path.write_bytes(dicom(grid, Rows=8, NumberOfFrames=5, WindowCenter=128, WindowWidth=256))
    else:
        frames = [Image.new("RGB", (8, 8), (shade,) * 3) for shade in SHADES]
        settings = {"lossless": True} if path.suffix == ".webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
    return path


KINDS = ["x.dcm", "x.tif", "x.gif", "x.webp", "x.png"]


@pytest.mark.parametrize("name", KINDS)
def test_the_middle_frame_is_taken_and_said(tmp_path: Path, name: str) -> None:
    picture = decode(stack(tmp_path / name))
    assert abs(int(picture.pixels[0, 0, 0]) - 80) <= 1 and "frame 3 of 5 (the middle one)" in picture.notes


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("frame", [1, 2, 5])
def test_a_frame_is_named_from_1(tmp_path: Path, name: str, frame: int) -> None:
    picture = decode(stack(tmp_path / name), frame)
    assert abs(int(picture.pixels[0, 0, 0]) - SHADES[frame - 1]) <= 1 and f"frame {frame} of 5" in picture.notes


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("frame", [0, 6])
def test_a_frame_that_is_not_there_is_one_error(tmp_path: Path, name: str, frame: int) -> None:
    with pytest.raises(
        DataError, match=f"there is no frame {frame}: the image has 5 frames, numbered from 1: .*{name}"
    ):
        decode(stack(tmp_path / name), frame)


def test_a_single_image_has_one_frame(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 9).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", 1).pixels.max() == 9
    with pytest.raises(DataError, match="no frame 2: the image has 1 frame"):
        decode(tmp_path / "x.png", 2)


def test_pages_of_different_sizes_are_no_stack(tmp_path: Path) -> None:
    """As in files for pathology: the first page is the image, the others are smaller copies of it."""
    pages = [Image.new("L", (side, side), side) for side in (64, 32, 16)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    picture = decode(tmp_path / "x.tif")
    assert picture.pixels.shape == (64, 64, 3) and picture.notes == ("frame 1 of 3 (their sizes differ)",)
    assert decode(tmp_path / "x.tif", 2).pixels.shape == (32, 32, 3)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two frames of one file, the file itself, and one whose name looks as though it named a frame."""
    stack(tmp_path / "x.dcm")
    Image.new("L", (8, 8), 222).save(tmp_path / "real.png")
    (tmp_path / "real.png").rename(tmp_path / "real#2")
    return write_table(tmp_path, [{"image": image} for image in ("x.dcm#1", "x.dcm#5", "x.dcm", "real#2")])


def test_frames_of_one_file_are_other_pixels_and_one_cluster(table: str) -> None:
    items = data.verify(data.load(table)).items
    assert [int(data.pixels_of(item)[0, 0, 0]) for item in items] == [0, 160, 80, 222]
    assert [round(255 * float(data.canvas_of(item, data.DEFAULT_CANVAS).mean())) for item in items] == [0, 160, 80, 222]
    assert len({item.pixels_sha256 for item in items}) == 4
    assert len({item.cluster for item in items[:3]}) == 1, "frames of one scan are not independent"
    assert len({item.image_sha256 for item in items}) == 2


def test_another_frame_is_other_data(tmp_path: Path) -> None:
    stack(tmp_path / "x.dcm")
    sets = [data.verify(data.load(write_table(tmp_path, [{"image": f"x.dcm#{frame}"}]))) for frame in (1, 2)]
    assert sets[0].sha256 != sets[1].sha256


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("x.dcm#6", "there is no frame 6: the image has 5 frames"),
        ("x.dcm#0", "there is no frame 0"),
        ("gone.dcm#1", "image not found: "),
        ("x.dcm#one", "image not found: "),
        ("../x.dcm#1", "leaves the data root"),
        ("link.dcm#1", "leaves the data root"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(tmp_path: Path, image: str, reason: str) -> None:
    stack(tmp_path / "x.dcm")
    (tmp_path / "d").mkdir()
    stack(tmp_path / "d" / "x.dcm")
    (tmp_path / "d" / "link.dcm").symlink_to(tmp_path / "x.dcm")
    (bad,) = data.verify(data.load(write_table(tmp_path / "d", [{"image": image}]))).bad
    assert reason in bad.reason


def test_a_frame_of_a_file_that_was_trained_on_is_a_leak_but_another_question(tmp_path: Path) -> None:
    stack(tmp_path / "x.dcm")
    for name, frames in (("a", (1,)), ("b", (1, 5))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.dcm").write_bytes((tmp_path / "x.dcm").read_bytes())
        write_table(tmp_path / name, [{"image": f"x.dcm#{frame}"} for frame in frames])
    code, found = facts(f"table:{tmp_path / 'a' / 't.csv'}", f"table:{tmp_path / 'b' / 't.csv'}")
    assert code == 1 and found["overall"]["images_shared"] == 2 and found["overall"]["question"] == 1


def test_a_run_on_frames(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records name the frame, images are kept apart, pseudonyms say neither; another frame is other data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("0123456789abcdefghijklmnopqrstuvwxyz0123")
    common = ("--model", TOY, "--canvas", "16x16", "--attack", "fgsm", "--keep-images", "9")
    for out, options in (("run", ()), ("veiled", ("--pseudonymize", "key"))):
        assert call("evaluate", *common, "--data", table, "--out", out, *options)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run/records.jsonl").read_text().splitlines()]
    assert {line["image"] for line in lines} == {"x.dcm#1", "x.dcm#5", "x.dcm", "real#2"}
    clean = sorted((tmp_path / "run/images").rglob("*clean.png"))
    assert sorted({np.asarray(Image.open(one)).max() for one in clean}) == [0, 80, 160, 222]
    veiled = (tmp_path / "veiled/records.jsonl").read_text()
    assert "dcm" not in veiled and len({json.loads(line)["image"] for line in veiled.splitlines()}) == 4
    lines_of_veiled = [json.loads(line) for line in veiled.splitlines()]
    assert len({line["image_sha256"] for line in lines_of_veiled}) == 2


def test_runs_on_other_frames_do_not_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the ids and the questions are the same."""
    monkeypatch.chdir(tmp_path)
    stack(tmp_path / "x.dcm")
    for frame in (1, 2):
        table = write_table(tmp_path, [{"image": f"x.dcm#{frame}"}])
        options = ("--canvas", "16x16", "--attack", "clean", "--out", frame)
        assert call("evaluate", "--model", TOY, "--data", table, *options)[0] == 0
    code, text = call("compare", "1", "2")
    assert code == 2 and "data was" in text


def test_notes_that_differ_in_numbers_alone_are_counted_together() -> None:
    """A data set may have a window an image: thousands of lines would say nothing."""
    notes = ["DICOM"] * 9 + [f"window {center}/-4.5" for center in (1, 1, 2, 3, 4, 5)]
    assert count_notes(notes) == {
        "DICOM": 9,
        "window 1/-4.5": 2,
        "2 more like 'window 1/-4.5'": 2,
        "window 2/-4.5": 1,
        "window 3/-4.5": 1,
    }
