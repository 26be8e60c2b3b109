"""`data audit`: what a test set shares with a training set, and what gives answers away."""

from __future__ import annotations

import csv
import json
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import call

from safemed_eval import data
from safemed_eval.core import Item, Question
from safemed_eval.data.audit import near_duplicates as _near
from safemed_eval.data.audit.text_cues import cues
from safemed_eval.runs.pseudonyms import WITHHELD, Pseudonyms, read_key

Find = Callable[[str], Path]


def picture(seed: int, side: int = 96) -> Image.Image:
    """A smooth coloured picture, other for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def write_table(folder: Path, rows: Sequence[dict[str, str]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"question": "What is it?", "option_a": "lung", "option_b": "liver", "answer": "A", "modality": "CT"}
    fields = ["id", "image", *usual, "question_type", "patient_id"]
    with (folder / "t.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fields, restval="")
        table.writeheader()
        for number, row in enumerate(rows):
            table.writerow({"id": f"{folder.name}{number}", **usual, **row})
    return f"table:{folder / 't.csv'}"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A: pictures 0 to 5. B has each of the ways to share one, and two that are its own."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    (b / "x").mkdir(parents=True)
    for seed in range(6):
        picture(seed).save(a / f"{seed}.png")
    picture(0).save(b / "0.png")  # path, file and pixels
    (b / "x" / "1.png").write_bytes((a / "1.png").read_bytes())  # file and pixels
    picture(2).save(b / "x" / "2.bmp")  # pixels
    picture(3).resize((72, 72)).save(b / "x" / "3.jpg", quality=80)  # alike
    picture(14).save(b / "4.png")  # another picture under the path of one in A
    picture(15).save(b / "x" / "5.png")  # its own
    train = write_table(a, [{"image": f"{seed}.png", "patient_id": f"p{seed}"} for seed in range(6)])
    images = ["0.png", "x/1.png", "x/2.bmp", "x/3.jpg", "4.png", "x/5.png"]
    rows = [{"image": image, "patient_id": f"q{place}"} for place, image in enumerate(images)]
    rows[0]["question"] = "Which  organ is it?"
    rows[1]["question"] = "what is  IT?"
    rows[2]["modality"] = "MRI"
    rows[5]["patient_id"] = "p0"
    return train, write_table(b, rows)


def facts(*arguments: object) -> tuple[int, dict[str, Any]]:
    code, text = call("data", "audit", *arguments, "--json")
    return code, json.loads(text)


def test_each_way_to_share_an_image(pair: tuple[str, str]) -> None:
    code, found = facts(*pair, "--near")
    assert code == 1 and found["verdict"] == "shared"
    assert {one["image"]: (one["of"], one["how"]) for one in found["shared"]} == {
        "0.png": ("0.png", ["path", "file", "pixels"]),
        "x/1.png": ("1.png", ["file", "pixels"]),
        "x/2.bmp": ("2.png", ["pixels"]),
        "x/3.jpg": ("3.png", ["near"]),
    }
    assert [one["distance"] for one in found["shared"]][:3] == [None] * 3
    assert 0 <= found["shared"][3]["distance"] <= data.NEAR
    assert found["shared"][1]["items"] == ["b1"]
    whole = found["overall"]
    assert (whole["images"], whole["images_shared"], whole["items"], whole["items_shared"]) == (6, 4, 6, 5)
    assert (whole["path"], whole["file"], whole["pixels"], whole["near"]) == (1, 2, 3, 1)
    assert (whole["question"], whole["patient"]) == (2, 1), "x/1.png and x/2.bmp in the same words; x/5.png is of p0"
    assert found["other_content"] == 1
    assert {name: row["images_shared"] for name, row in found["by_modality"].items()} == {"CT": 3, "MRI": 1}
    assert found["train"]["read"] == found["test"]["read"] == 6


def test_alike_is_said_only_where_asked_for(pair: tuple[str, str]) -> None:
    found = facts(*pair)[1]
    assert [one["image"] for one in found["shared"]] == ["0.png", "x/1.png", "x/2.bmp"]
    assert found["overall"]["near"] == 0 and found["near_bits"] is None


def test_the_audit_in_words(pair: tuple[str, str]) -> None:
    code, text = call("data", "audit", *pair, "--near")
    assert code == 1
    for expected in (
        "x/2.bmp = 2.png (same pixels)",
        "0.png (same pixels)",
        "x/3.jpg = 3.png (looks alike, ",
        "1 images have the path of one in A, but other pixels",
        "at most 16 differ",
        "5 of 6 questions (83.3 %) are about its images or patients",
    ):
        assert expected in text
    row = next(line.split() for line in text.splitlines() if line.startswith("all"))
    assert row == ["all", "6", "4", "(66.7", "%)", "1", "2", "3", "1", "6", "5", "(83.3", "%)", "2", "1"]


def test_two_pictures_of_one_path_share_only_what_cannot_be_told_apart(pair: tuple[str, str]) -> None:
    """Where no image is opened, the path is all there is."""
    code, found = facts(*pair, "--paths-only")
    assert code == 1 and found["test"]["read"] == 0
    assert [(one["image"], one["how"]) for one in found["shared"]] == [("0.png", ["path"]), ("4.png", ["path"])]
    assert "n/a" in call("data", "audit", *pair, "--paths-only")[1]


def test_the_same_picture_under_two_paths_is_one(tmp_path: Path) -> None:
    """Questions of the training set about a copy count as questions about the image itself."""
    for name in ("a/0.png", "a/copy.bmp", "b/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(0).save(tmp_path / name)
    train = write_table(tmp_path / "a", [{"image": "0.png"}, {"image": "copy.bmp", "question": "Where?"}])
    test = write_table(tmp_path / "b", [{"image": "y.png", "question": "where?"}])
    assert facts(train, test)[1]["overall"]["question"] == 1


def test_another_picture_under_a_known_path_may_be_known_itself(tmp_path: Path) -> None:
    for name, seed in (("a/0.png", 0), ("a/1.png", 1), ("b/0.png", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(seed).save(tmp_path / name)
    train = write_table(tmp_path / "a", [{"image": "0.png"}, {"image": "1.png"}])
    found = facts(train, write_table(tmp_path / "b", [{"image": "0.png"}]))[1]
    assert [(one["of"], one["how"]) for one in found["shared"]] == [("1.png", ["file", "pixels"])]
    assert found["other_content"] == 0


def test_images_that_are_not_there(pair: tuple[str, str], tmp_path: Path) -> None:
    """Paths are compared, and it is said that pixels are not; without a finding the exit code is neither 0 nor 1."""
    for name in ("1.png", "2.png"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "3.png").write_bytes(b"not an image")
    code, found = facts(*pair)
    assert code == 1 and (found["train"]["read"], found["train"]["missing"]) == (3, 3)
    train = write_table(tmp_path / "a", [{"image": "gone.png"}])
    test = write_table(tmp_path / "b", [{"image": "x/5.png"}])
    code, text = call("data", "audit", train, test)
    assert code == 3 and "Nothing is shared as far as could be compared" in text
    assert "Pixels were not looked at: image not found" in text and "--data-root names the folder" in text
    assert facts(train, test, "--paths-only")[0] == 0
    test = write_table(tmp_path / "b", [{"image": "gone.png"}, {"image": "x/5.png"}])
    code, found = facts(train, test)
    assert code == 1 and found["shared"][0]["how"] == ["path"]


def test_patients_alone_are_shared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        picture(ord(name)).save(tmp_path / name / f"{name}.png")
    train = write_table(tmp_path / "a", [{"image": "a.png", "patient_id": "17"}])
    test = write_table(tmp_path / "b", [{"image": "b.png", "patient_id": "17"}])
    code, found = facts(train, test)
    assert code == 1 and found["overall"]["images_shared"] == 0 and found["overall"]["items_shared"] == 1
    test = write_table(tmp_path / "b", [{"image": "b.png", "patient_id": "18"}])
    assert facts(train, test)[0] == 0
    code, text = call("data", "audit", train, write_table(tmp_path / "b", [{"image": "b.png"}]))
    assert code == 0 and "patients are not compared" in text and "patient" not in text.splitlines()[0]


@pytest.fixture
def patients(tmp_path: Path) -> tuple[str, str]:
    """Seven patients in both sets, by names that sort badly and one that is a formula; one is in each set alone."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        picture(ord(name)).save(tmp_path / name / f"{name}.png")
    both = ["=p0", *(f"p{number}" for number in range(1, 7))]
    train = [{"image": "a.png", "patient_id": one} for one in [*both, "p1", *["p2"] * 6, "only-a"]]
    test = [{"image": "b.png", "patient_id": one} for one in [*reversed(both), "only-b", "p2", ""]]
    return write_table(tmp_path / "a", train), write_table(tmp_path / "b", test)


def test_shared_patients_are_named_with_the_items_of_both_sides(patients: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "leaks.csv"
    code, found = facts(*patients, "--csv", file)
    listed = {one["patient"]: (one["of_items"], one["items"]) for one in found["shared_patients"]}
    assert code == 1 and listed.keys() == {"=p0", "p1", "p2", "p3", "p4", "p5", "p6"}
    assert listed["p1"] == (["a1", "a7"], ["b5"])
    assert listed["p2"] == (["a2", *(f"a{number}" for number in range(8, 14))], ["b4", "b8"])
    assert sum(len(items) for _, items in listed.values()) == found["overall"]["patient"]
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["in_a"] for row in rows} == {"'=p0", "p1", "p2", "p3", "p4", "p5", "p6"}, "no formula"
    assert [(row["set"], row["item"]) for row in rows if row["in_b"] == "p1"] == [("A", "a1"), ("A", "a7"), ("B", "b5")]
    text = call("data", "audit", *patients)[1]
    assert "  patient p2: A asks a2, a8, a9, a10, a11 and 2 more; B asks b4, b8\n" in text
    assert "  patient p6: A asks a6; B asks b0\n" in text and "patient p1" not in text and "only-" not in text
    assert "  ... and 2 more patients (--json and --csv list all)" in text


def test_shared_images_are_listed_with_the_items_of_both_sides(pair: tuple[str, str], tmp_path: Path) -> None:
    found = facts(*pair, "--csv", tmp_path / "leaks.csv")[1]
    assert [(one["of_items"], one["items"]) for one in found["shared"]] == [([f"a{n}"], [f"b{n}"]) for n in range(3)]
    with (tmp_path / "leaks.csv").open(newline="") as stream:
        rows = [tuple(row.values()) for row in csv.DictReader(stream)]
    assert rows[2:4] == [
        ("image", "x/1.png", "1.png", "file pixels", "", "A", "a1"),
        ("image", "x/1.png", "1.png", "file pixels", "", "B", "b1"),
    ]
    assert rows[-2:] == [
        ("patient", "p0", "p0", "patient_id", "", which, f"{which.lower()}{n}") for which, n in (("A", 0), ("B", 5))
    ]


def test_an_audit_under_pseudonyms_has_those_of_runs(pair: tuple[str, str], tmp_path: Path) -> None:
    """The same for an item, an image and a patient as in a record; and nothing else of the data is said."""
    (tmp_path / "a" / "3.png").write_bytes(b"no image")
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    under = [*pair, "--near", "--pseudonymize", key]
    code, found = facts(*under, "--csv", tmp_path / "leaks.csv")
    names = Pseudonyms(read_key(key))
    record = names.record({"item": "b5", "patient_id": "p0", "image": "x/1.png"})
    assert code == 1 and [one["patient"] for one in found["shared_patients"]] == [record["patient_id"]]
    assert found["shared_patients"][0]["items"] == [record["item"]]
    assert record["image"] in {one["image"] for one in found["shared"]}
    said = [json.dumps(found), call("data", "audit", *under)[1], (tmp_path / "leaks.csv").read_text()]
    for word in ("p0", "a0", "b5", "1.png", "2.bmp", "no image", str(tmp_path)):
        assert not any(re.search(rf"(?<![0-9a-f]){word}(?![0-9a-f])", text) for text in said), word
    assert WITHHELD in said[0] and found["a"].startswith("table:data-")


def test_images_of_one_colour_are_not_alike(tmp_path: Path) -> None:
    """They have no structure to compare; equal ones are found by their pixels."""
    for name, grey in (("a", 30), ("b", 200), ("b/same", 30)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (grey, grey, grey)).save(tmp_path / name / f"{name[-1]}.png")
    Image.new("RGB", (128, 32), (30, 30, 30)).save(tmp_path / "b" / "wide.png")  # the same bytes, in another shape
    train = write_table(tmp_path / "a", [{"image": "a.png"}])
    test = write_table(tmp_path / "b", [{"image": name} for name in ("b.png", "same/e.png", "wide.png")])
    found = facts(train, test, "--near")[1]
    assert [(one["image"], one["how"]) for one in found["shared"]] == [("same/e.png", ["file", "pixels"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "--near"], "--near compares two data sets"),
        (["{a}", "--paths-only"], "--paths-only compares two data sets"),
        (["{a}", "--csv", "x.csv"], "--csv compares two data sets"),
        (["{a}", "--pseudonymize", "key"], "--pseudonymize compares two data sets"),
        (["{a}", "{b}", "--csv", "/nowhere/x.csv"], "--csv /nowhere/x.csv: cannot be written"),
        (["{a}", "{b}", "--pseudonymize", "/nowhere/key"], "cannot be read"),
        (["{a}", "{b}", "--near", "--paths-only"], "choose one"),
        (["{a}", "table:nowhere.csv"], "no such file"),
        (["{a}", "{bad}"], "none of its 1 questions can be read: b0"),
        (["{bad}"], "none of its 1 questions can be read: b0"),
    ],
)
def test_wrong_input_is_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    names = {"a": write_table(tmp_path / "a", [{"image": "0.png"}])}
    names["b"] = names["a"]
    names["bad"] = write_table(tmp_path / "b", [{"image": "0.png", "answer": "kidney"}])
    code, text = call("data", "audit", *(one.format(**names) for one in arguments))
    assert code == 2 and message in text


def test_questions_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        picture(ord(name)).save(tmp_path / name / f"{name}.png")
    train = write_table(tmp_path / "a", [{"image": "a.png"}])
    test = write_table(tmp_path / "b", [{"image": "b.png"}, {"image": "b.png", "answer": "kidney"}])
    code, text = call("data", "audit", train, test)
    assert code == 0 and "1 more questions cannot be read" in text


def test_phantom_splits_share_nothing() -> None:
    code, found = facts("phantom:split=train,images=16", "phantom:images=16", "--near")
    assert code == 0 and found["verdict"] == "clean" and found["overall"]["images"] == 16
    code, found = facts("phantom:images=24", "phantom:images=16")
    assert code == 1 and found["overall"]["items_shared"] == found["overall"]["question"] == found["overall"]["items"]


def test_a_root_of_its_own(pair: tuple[str, str], tmp_path: Path) -> None:
    """--data-root is for both, --data-root-b for B; what is drawn has none."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("a", "b"):
        (tmp_path / "tables" / name).mkdir(parents=True)
        (tmp_path / name / "t.csv").rename(tmp_path / "tables" / name / "t.csv")
    tables = [f"table:{tmp_path / 'tables' / name / 't.csv'}" for name in ("a", "b")]
    found = facts(*tables, "--data-root", a, "--data-root-b", b)[1]
    assert found["train"]["read"] == found["test"]["read"] == 6 and found["overall"]["images_shared"] == 3
    assert facts(tables[0], "phantom:images=8", "--data-root", a)[0] == 0
    assert facts(tables[0], tables[0], "--data-root", a)[1]["test"]["read"] == 6


# ------------------------------------------------------------------------------------------------------------ real data


def test_published_splits_share_images_by_path(real_data: Find) -> None:
    """The 100 questions that samples of both kinds of splits hold, and images that they share besides."""
    splits = real_data("medr1_splits")
    code, found = facts(f"medr1:{splits / 'question_type' / 'test'}", f"medr1:{splits / 'modality' / 'test'}")
    assert code == 1 and found["train"]["read"] == found["test"]["read"] == 0
    assert found["overall"]["question"] == 100
    names = [
        {record["image"] for file in (splits / kind / "test").glob("*.json") for record in json.loads(file.read_text())}
        for kind in ("question_type", "modality")
    ]
    assert {one["image"] for one in found["shared"]} == names[0] & names[1]


def test_real_images_saved_again_are_found(real_data: Find, tmp_path: Path) -> None:
    """Copies of half the size, as JPEG, with new names: each is alike to its own original and to no other."""
    source = real_data("omnimed_real")
    loaded = data.load(f"omnimedvqa:{source}")
    originals = list({item.image: item for item in loaded.items}.values())[::6]
    rows = []
    for number, item in enumerate(originals):
        copy = Image.fromarray(data.pixels_of(item))
        copy = copy.resize((max(16, copy.width // 2), max(16, copy.height // 2)))
        (tmp_path / "b").mkdir(exist_ok=True)
        copy.save(tmp_path / "b" / f"{number}.jpg", quality=75)
        rows.append({"image": f"{number}.jpg"})
    some = [item for item in loaded.items if item.image in {one.image for one in originals}]
    train = write_table(tmp_path / "a", [{"image": item.image} for item in some])
    code, found = facts(
        train, write_table(tmp_path / "b", rows), "--near", "--data-root", source, "--data-root-b", tmp_path / "b"
    )
    assert code == 1
    assert [(one["of"], one["how"]) for one in found["shared"]] == [(item.image, ["near"]) for item in originals]


def test_real_cues(real_data: Find) -> None:
    """Seen in the published questions: wherever one option alone ends with a period, it is the right one."""
    code, found = facts(f"medr1:{real_data('medr1_splits') / 'question_type' / 'test'}")
    assert code == 0
    by_name = {(cue["question_type"], cue["name"]): cue for cue in found["cues"]}
    period = by_name["Lesion Grading", "period"]
    assert (period["marked"], period["gold"], period["notable"]) == (125, 125, True)
    assert by_name[None, "text alone"]["share"] > 0.9


# ------------------------------------------------------------------------------------------------- hashes that are near


@pytest.mark.parametrize(("rows", "columns"), [(64, 4096), (3, 5), (1, 1), (7, 100)])
def test_nearest_is_what_a_double_loop_finds(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_near, "_ROWS", rows)
    monkeypatch.setattr(_near, "_COLUMNS", columns)
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 2**64, (40, 4), dtype=np.uint64)
    theirs[20:30] = theirs[:10]
    ours = rng.integers(0, 2**64, (30, 4), dtype=np.uint64)
    for place in range(20):  # 0 to 19 bits away from one of theirs
        ours[place] = theirs[place] ^ flip(rng.permutation(256)[:place])
    ours[20] = theirs[39] ^ flip(np.arange(16))  # all in the word that decides first
    theirs[31], theirs[38] = ours[21] ^ flip(np.arange(9)), ours[21] ^ flip(np.arange(200, 202))  # the nearer one later
    expected = []
    for mine in ours:
        distances = [int(np.bitwise_count(mine ^ other).sum()) for other in theirs]
        least = min(distances)
        expected.append((distances.index(least), least) if least <= _near.NEAR else None)
    assert _near.nearest(list(ours), list(theirs)) == expected
    assert [one is not None for one in expected] == [True] * 17 + [False] * 3 + [True] * 2 + [False] * 8
    assert expected[20:22] == [(39, 16), (38, 2)]


def flip(places: Any) -> Any:
    """A hash with these bits set."""
    bits = np.zeros(256, np.uint8)
    bits[places] = 1
    return np.packbits(bits).view(np.uint64)


def test_nearest_of_nothing() -> None:
    some = [np.zeros(4, np.uint64)]
    assert _near.nearest([], some) == [] and _near.nearest(some, []) == [None]


@pytest.mark.slow
def test_eighty_thousand_images_are_compared() -> None:
    rng = np.random.default_rng(0)
    theirs, ours = (rng.integers(0, 2**64, (n, 4), dtype=np.uint64) for n in (80_000, 20_000))
    ours[::1000] = theirs[::4000] ^ flip([3, 100, 255])
    expected = [None if place % 1000 else (4 * place, 3) for place in range(len(ours))]
    assert _near.nearest(list(ours), list(theirs)) == expected


# ----------------------------------------------------------------------------------------------------------------- cues


def item(number: int, options: Sequence[str], label: int, text: str = "What is it?", kind: str = "D") -> Item:
    question = Question(text=text, options=tuple(options))
    return Item(id=str(number), question=question, label=label, image=f"{number}.png", root=Path(), question_type=kind)


def cue_of(items: Sequence[Item], name: str) -> data.Cue:
    return next(cue for cue in cues(items) if cue.name == name)


@pytest.mark.parametrize(
    ("name", "options", "marked"),
    [
        ("lower case", ["Lung", "liver", "Eye"], True),
        ("lower case", ["Lung", "liver", "eye"], False),
        ("lower case", ["1 lung", "liver", "Eye"], False),
        ("period", ["Lung", "Liver.", "Eye"], True),
        ("period", ["Lung.", "Liver.", "Eye"], False),
        ("longest", ["Lung", "Liver", "Eye"], True),
        ("longest", ["Liver", "Liver", "Eye"], False),
        ("in the question", ["Lung", "it", "Eye"], True),
        ("in the question", ["Lung", "hat", "Eye"], False),
        ("in the question", ["is", "it", "Eye"], False),
        ("twins", ["Lung", "lung.", "Eye"], True),
        ("twins", ["Lung", "lungs", "Eye"], False),
    ],
)
def test_what_stands_out(name: str, options: list[str], marked: bool) -> None:
    """Option B is gold; of twins A is one."""
    for label, gold in ((1, 1), (2, 0)):
        found = cue_of([item(0, options, label)], name)
        assert (found.marked, found.gold) == ((1, gold) if marked else (0, 0))
        if name != "twins":
            assert found.expected == pytest.approx(1 / 3 if marked else 0)


@pytest.mark.parametrize(("gold", "notable"), [(40, True), (25, True), (10, False), (0, True)])
def test_a_cue_is_spoken_of_where_chance_does_not_explain_it(gold: int, notable: bool) -> None:
    """40 questions of four options in which the first alone has a period; by chance 10 are gold."""
    items = [item(i, ["Lung.", "Liver", "Eye", "Hand"], 0 if i < gold else 1 + i % 3) for i in range(40)]
    found = cue_of(items, "period")
    assert (found.marked, found.gold, found.expected) == (40, gold, 10)
    assert found.notable == notable


def test_a_few_questions_prove_nothing() -> None:
    assert not cue_of([item(i, ["Lung.", "Liver"], 0) for i in range(5)], "period").notable


def test_letters_count_where_they_exist() -> None:
    """C is gold in all ten questions that have one: in 10 of 10, not 10 of 30."""
    items = [item(i, ["a", "b", "c"], 2) for i in range(10)] + [item(10 + i, ["a", "b"], i % 2) for i in range(20)]
    found = cue_of(items, "letter")
    assert (found.value, found.marked, found.gold, found.notable) == ("C", 10, 10, True)
    assert found.expected == pytest.approx(10 / 3)


def test_text_alone_learns_from_other_images_only() -> None:
    """A label that is always right is found out; one that occurs once is not, nor a copy about the same image."""
    wrong = ["red", "green", "blue", "pink", "grey"]
    always = [item(i, ["MRI", wrong[i % 5]], 0) for i in range(40)]
    assert cue_of(always, "text alone").share == 1
    once = [item(i, [f"right {i}", f"wrong {i}"], 0) for i in range(40)]
    assert cue_of(once, "text alone").gold == 20 == cue_of(once, "text alone").expected
    copies = [item(i // 2, [f"right {i // 2}", f"wrong {i // 2}"], 0) for i in range(40)]
    assert cue_of(copies, "text alone").gold == 20


def test_text_alone_is_chance_where_answers_are_balanced() -> None:
    """phantom promises so; a naive count would fall below chance, since what is left out makes itself rare."""
    found = cue_of(data.load("phantom").items, "text alone")
    assert found.expected is not None and abs(found.gold - found.expected) < 0.01 * found.questions
    assert not [cue.name for cue in cues(data.load("phantom").items) if cue.notable]


def test_one_answer_for_nearly_all() -> None:
    items = [item(i, ["Yes", "No"], int(i % 5 == 0)) for i in range(50)]
    found = cue_of(items, "one answer")
    assert (found.value, found.gold, found.expected, found.notable) == ("yes", 40, 25, True)
    assert not cue_of([item(i, ["Yes", "No"], i % 2) for i in range(50)], "one answer").notable, "half, as by chance"
    assert not cue_of([item(i, ["Yes", "No", "Maybe"], i % 3) for i in range(51)], "one answer").notable


def test_cues_in_words(tmp_path: Path) -> None:
    rows = [
        {
            "image": f"{i}.png",
            "option_a": "Lung.",
            "option_b": "Liver",
            "question_type": "Which [bold]" if i < 30 else "Other",
            "answer": "A" if i < 30 or i % 2 else "B",
        }
        for i in range(60)
    ]
    code, text = call("data", "audit", write_table(tmp_path / "a", rows))
    assert code == 0
    assert "Which [bold]: in 30 of 30 questions one option alone ends with a period; it is gold in 30 of them" in text
    assert "Which [bold]: A is gold in 30 of 30 questions (100.0 %), by chance in 50.0 %." in text
    assert (
        "one answer, 'lung', is gold in 30 of 30 questions (100.0 %), by chance in 50.0 %" in text
        and "Other: in" not in text
    )
    assert text.splitlines()[0].split()[:2] == ["question", "type"] and "30/30 [50 %]" in text
    quiet = call("data", "audit", write_table(tmp_path / "b", rows[30:]))[1]
    assert "No cue is further from chance" in quiet and "\nall " in quiet
