"""Data files: tables, OmniMedVQA's JSON, Med-R1's splits, and what --data itself says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bad.case import Case, Make, described, evaluated, row

Content = str | bytes | list[Any] | dict[str, Any]
HEAD = "id,image,question,option_a,option_b,answer\n"
LONG = "x" * 10_000_000


def image(folder: Path) -> None:
    Image.new("RGB", (16, 12), (9, 99, 200)).save(folder / "x.png")


def file(name: str, content: Content) -> Make:
    """A file beside an image; lists and objects are written as JSON, in a .jsonl one a line."""

    def make(folder: Path) -> None:
        image(folder)
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
            return
        text = content if isinstance(content, str) else json.dumps(content)
        if name.endswith(".jsonl") and isinstance(content, list):
            text = "\n".join(map(json.dumps, content))
        place.write_text(text, encoding="utf-8", newline="")

    return make


def rows(*changes: dict[str, Any]) -> list[Any]:
    """Rows of a table: one for each set of changes."""
    return [row(**change) for change in changes]


def raw(**changes: Any) -> dict[str, Any]:
    """A record of OmniMedVQA."""
    whole = {
        "dataset": "Drawn",
        "question_id": "Drawn_1",
        "question_type": "Modality Recognition",
        "question": "What is it?",
        "gt_answer": "MRI",
        "image_path": "x.png",
        "option_A": "CT",
        "option_B": "MRI",
        "modality_type": "MRI",
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def split(**changes: Any) -> dict[str, Any]:
    """A record of Med-R1."""
    whole = {"image": "x.png", "problem": "What is it? A)CT, B)MRI", "solution": "<answer> B </answer>"}
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


RAW = "QA_information/Open-access/Drawn.json"
SPLIT = "X-Ray_test.json"

# name, the changes of one row, words of its reason
ROWS: list[tuple[str, dict[str, Any], Sequence[str]]] = [
    ("gold outside", {"answer": "a kidney"}, ["q1", "'a kidney' equals none of the options"]),
    ("gold letter outside", {"answer": "F"}, ["q1", "'F' equals none"]),
    ("gold missing", {"answer": ""}, ["q1", "no gold answer"]),
    ("gold of blanks", {"answer": "   "}, ["q1", "no gold answer"]),
    ("gold twice", {"option_a": "a liver"}, ["q1", "equals 2 of the options"]),
    ("gold is a number", {"answer": 1}, ["q1", "answer 1 is not text"]),
    ("gold is a list", {"answer": ["a liver"]}, ["q1", "is not text"]),
    ("gold is null", {"answer": None, "x": 1}, ["t.jsonl", "no column answer"]),
    (
        "letter and text differ",
        {"option_a": "B", "option_b": "A", "answer": "A"},
        ["letter of one option and the text"],
    ),
    ("no options", {"option_a": None, "option_b": None}, ["no column option_a", "it has answer"]),
    ("one option", {"option_a": "a liver", "option_b": None}, ["q1", "needs 2 to 26 options"]),
    ("thirty options", {"options": [f"no. {i}" for i in range(30)], "answer": "no. 3"}, ["needs 2 to 26", "has 30"]),
    ("an empty option between", {"option_b": "", "option_c": "a liver"}, ["q1", "an option is empty"]),
    ("options of numbers", {"options": [1, 2], "answer": "A"}, ["q1", "an option is empty, or not text"]),
    ("options of lists", {"options": [["a"], ["b"]], "answer": "A"}, ["q1", "not text"]),
    ("options as one text", {"options": "a, b", "option_a": None, "option_b": None}, ["q1", "options"]),
    ("options of null", {"options": [None, "b"], "answer": "b"}, ["q1", "not text"]),
    ("empty question", {"question": ""}, ["q1", "the question is empty"]),
    ("question of blanks", {"question": " \t\u3000"}, ["q1", "the question is empty"]),
    ("question is a number", {"question": 7}, ["q1", "the question is"]),
    ("question is a list", {"question": ["What?"]}, ["q1", "the question is"]),
    ("question of 10 MB", {"question": LONG}, ["q1", "the question", "10,000,000 characters", "100,000"]),
    ("option of 10 MB", {"option_a": LONG}, ["q1", "10,000,000 characters"]),
    ("id of 10 MB", {"id": LONG}, ["10,000,000 characters"]),
    ("modality of 10 MB", {"modality": LONG}, ["q1", "10,000,000 characters"]),
    ("further column of 10 MB", {"notes": LONG}, ["q1", "10,000,000 characters"]),
    ("image path of 10 MB", {"image": LONG}, ["q1", "characters"]),
    ("gold of 10 MB", {"answer": LONG}, ["q1", "equals none of the options"]),
    ("no image path", {"image": ""}, ["q1", "no image path"]),
    ("image path is a number", {"image": 3}, ["q1", "no image path"]),
    ("path upwards", {"image": "../x.png"}, ["q1", "leaves the data root"]),
    ("path down and upwards", {"image": "a/../../x.png"}, ["q1", "leaves the data root"]),
    ("absolute path", {"image": "/etc/passwd"}, ["q1", "is not inside"]),
    ("path to a home", {"image": "~/x.png"}, ["q1", "image not found"]),
    ("path of Windows", {"image": "C:\\data\\x.png"}, ["q1", "image not found"]),
    ("path with a zero byte", {"image": "x.png\0.txt"}, ["q1", "not an image path"]),
    ("path that is an address", {"image": "https://example.org/x.png"}, ["q1", "image not found"]),
    ("path that is a file address", {"image": "file:///etc/passwd"}, ["q1", "image not found"]),
    ("path of 300 letters", {"image": "y" * 300}, ["q1", "image path cannot be followed"]),
    ("path of a folder", {"image": "."}, ["q1", "image not found"]),
    ("half a character", {"question": "\ud800"}, ["q1", "lone surrogate"]),
]

FINE: list[tuple[str, dict[str, Any]]] = [
    ("right to left", {"question": "מה רואים בתמונה?", "option_a": "ריאה", "option_b": "כבד", "answer": "כבד"}),
    ("arabic", {"question": "ماذا يظهر؟", "option_a": "رئة", "option_b": "كبد", "answer": "B"}),
    ("emoji", {"question": "👩🏽‍⚕️?", "option_a": "🫁", "option_b": "🫀", "answer": "🫀"}),
    ("bidirectional controls", {"question": "What is \u202eshown\u202c?"}),
    ("control characters", {"question": "What\x1b[31m is\x07 \0shown?"}),
    ("markup", {"question": "<script>[red]$x$ \\input{y}", "option_a": "=1+1", "option_b": "| a"}),
    ("an id of a number", {"id": 17}),
    ("an empty id", {"id": ""}),
    ("an id that is a path", {"id": "../../q1"}),
    ("26 options", {"options": [f"no. {i}" for i in range(26)], "answer": "Z"}),
    ("a letter in lower case", {"answer": "b"}),
    ("a path through its own folder", {"image": "./x.png"}),
    ("a long question", {"question": "x" * 90_000}),
]
FINE = [(name, {**change, **({"answer": "A"} if name == "markup" else {})}) for name, change in FINE]

# name, name of the file, its content, words of the refusal
TABLES: list[tuple[str, str, Content, Sequence[str]]] = [
    ("an empty csv", "t.csv", "", ["t.csv", "found no questions"]),
    ("only a head", "t.csv", HEAD, ["t.csv", "found no questions"]),
    ("only a byte order mark", "t.csv", b"\xef\xbb\xbf", ["t.csv", "found no questions"]),
    ("an empty jsonl", "t.jsonl", "\n\n", ["t.jsonl", "found no questions"]),
    ("a missing column", "t.csv", "image,question\nx.png,Q\n", ["t.csv", "no column answer", "image, question"]),
    ("wrong columns", "t.csv", "a,b,c\n1,2,3\n", ["no column image, question, answer"]),
    ("a column twice", "t.csv", HEAD.strip() + ",answer\n", ["t.csv", "two columns have the same name"]),
    ("a column twice but for case", "t.csv", HEAD.strip() + ",ID\n1,2,3,4,5,6,7\n", ["two columns have the same name"]),
    ("a short row", "t.csv", HEAD + "q1,x.png,Q\n", ["line 2 has 3 cells, the header has 6"]),
    ("a long row", "t.csv", HEAD + "q1,x.png,Q,a,b,a,c\n", ["line 2 has 7 cells", "double quotes"]),
    ("an open quote", "t.csv", HEAD + 'q1,x.png,"Q,a,b,a\n', ["broken CSV at line"]),
    ("utf-16", "t.csv", HEAD.encode("utf-16"), ["t.csv", "not UTF-8", "save it as UTF-8"]),
    ("latin-1", "t.csv", (HEAD + "q1,x.png,Größe?,a,b,a\n").encode("latin-1"), ["not UTF-8"]),
    ("a cell of 10 MB", "t.csv", HEAD + f"q1,x.png,{LONG},a,b,a\n", ["broken CSV at line 2", "field"]),
    ("a spreadsheet", "t.xlsx", b"PK\3\4", ["t.xlsx", ".csv, .tsv or .jsonl"]),
    ("a parquet file", "t.parquet", b"PAR1", ["t.parquet", ".csv, .tsv or .jsonl"]),
    ("no extension", "t", HEAD, ["a table is a .csv, .tsv or .jsonl file"]),
    ("broken json", "t.jsonl", '{"image": 1}\n{"a"', ["t.jsonl", "broken JSON at line 2"]),
    ("a json array", "t.jsonl", "[1, 2]", ["line 1 is not an object"]),
    ("a json text", "t.jsonl", '"x"', ["line 1 is not an object"]),
    ("json without end", "t.jsonl", "[" * 100_000, ["t.jsonl"]),
    ("a number without end", "t.jsonl", '{"image": ' + "9" * 5000 + "}", ["t.jsonl"]),
    ("binary jsonl", "t.jsonl", bytes(range(256)), ["not UTF-8"]),
    ("an id twice", "t.jsonl", rows({}, {}), ["1 of 2", "q1: the id occurs twice"]),
    ("an id twice but for blanks", "t.jsonl", rows({}, {"id": " q1 "}), ["the id occurs twice"]),
]

OMNI: list[tuple[str, Content, Sequence[str]]] = [
    ("broken", '[{"a": 1},', ["Drawn.json", "broken JSON at line 1"]),
    ("empty", "", ["Drawn.json", "broken JSON"]),
    ("an object", {"data": []}, ["Drawn.json", "expected a list of objects"]),
    ("a list of texts", ["a"], ["Drawn.json", "expected a list of objects"]),
    ("an empty list", [], ["found no questions"]),
    ("null", "null", ["expected a list of objects"]),
    ("wrong keys", [{"a": 1}], ["Drawn#0", "no gold answer"]),
    ("an id twice", [raw(), raw()], ["the id occurs twice"]),
    ("gold outside", [raw(gt_answer="PET")], ["Drawn_1", "equals none of the options"]),
    ("gold is a number", [raw(gt_answer=2)], ["Drawn_1", "no gold answer"]),
    ("one option", [raw(option_A="MRI", option_B=None)], ["Drawn_1", "needs 2 to 26 options"]),
    ("options of numbers", [raw(option_A=1, option_B=2)], ["Drawn_1", "equals none"]),
    ("path upwards", [raw(image_path="../../x.png")], ["leaves the data root"]),
    ("absolute path", [raw(image_path="/etc/passwd")], ["is not inside"]),
    ("path is a list", [raw(image_path=["x.png"])], ["no image path"]),
    ("utf-16", json.dumps([raw()]).encode("utf-16"), ["not UTF-8"]),
    ("not a number", '[{"question_id": NaN, "question": NaN}]', ["#0", "no gold answer"]),
]

MEDR1: list[tuple[str, Content, Sequence[str]]] = [
    ("broken", '[{"a": 1},', ["X-Ray_test.json", "broken JSON at line 1"]),
    ("an object", {}, ["expected a list of objects"]),
    ("an empty list", [], ["found no questions"]),
    ("wrong keys", [{"a": 1}], ["' A)' occurs 0 times"]),
    ("no image", [split(image=None)], ["no image path"]),
    ("no solution", [split(solution=None)], ["is not '<answer> LETTER </answer>'"]),
    ("a solution without tags", [split(solution="B")], ["solution 'B' is not"]),
    ("two solutions", [split(solution="<answer> A </answer><answer> B </answer>")], ["is not '<answer>"]),
    ("a solution in lower case", [split(solution="<answer> b </answer>")], ["is not '<answer>"]),
    ("a solution outside", [split(solution="<answer> C </answer>")], ["gold letter C but only 2 options"]),
    ("a solution of 10 MB", [split(solution=LONG)], ["is not '<answer>"]),
    ("no options", [split(problem="What is it?")], ["' A)' occurs 0 times"]),
    ("one option", [split(problem="What? A)MRI", solution="<answer> A </answer>")], ["needs 2 to 26 options"]),
    ("A) twice", [split(problem="Q A)x A)y, B)z")], ["' A)' occurs 2 times"]),
    ("B) twice", [split(problem="Q A)x, B)y, B)z")], ["', B)' occurs 2 times"]),
    ("an empty option", [split(problem="Q? A), B)MRI")], ["an option is empty"]),
    ("an empty question", [split(problem="A)CT, B)MRI")], ["the question is empty"]),
    ("a problem of lists", [split(problem=["Q?"])], ["occurs 0 times"]),
    ("a problem of 10 MB", [split(problem=f"{LONG} A)CT, B)MRI")], ["10,000,000 characters"]),
    ("a twin of the gold option", [split(problem="Q? A)MRI, B)MRI")], ["equals more than one of the options"]),
    ("path upwards", [split(image="../x.png")], ["leaves the data root"]),
    ("absolute path", [split(image="/etc/passwd")], ["is not inside"]),
]


def _mixed(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / f"X-Ray_{part}.json").write_text("[]")


def _linked_folder(folder: Path) -> None:
    file("data/t.jsonl", rows({"image": "there/x.png"}))(folder)
    (folder / "data/there").symlink_to(folder)


def _link_inside(folder: Path) -> None:
    file("t.jsonl", rows({"image": "y.png"}))(folder)
    (folder / "y.png").symlink_to("x.png")


def _absolute(folder: Path) -> None:
    file("t.jsonl", rows({"image": str(folder / "x.png")}))(folder)


def _root(folder: Path) -> None:
    file("t.jsonl", rows({}))(folder)
    (folder / "file").touch()


SPECS: list[tuple[str, Make, tuple[str, ...], Sequence[str]]] = [
    ("an unknown kind", image, ("--data", "tabel:t.csv"), ["unknown kind 'tabel'", "did you mean 'table'"]),
    ("no kind", image, ("--data", "x.png"), ["say what it is", "table:x.png"]),
    ("nothing", image, ("--data", ""), ["--data", "table"]),
    ("a colon", image, ("--data", ":"), ["unknown kind ''"]),
    ("a private module", image, ("--data", "_images:x"), ["unknown kind '_images'"]),
    ("no path", image, ("--data", "table:"), ["needs a path, --data table:PATH"]),
    ("no such file", image, ("--data", "table:gone.csv"), ["no such file or folder: gone.csv"]),
    ("a folder as table", image, ("--data", "table:."), ["a table is a .csv, .tsv or .jsonl file"]),
    ("a folder called csv", lambda f: (f / "d.csv").mkdir(), ("--data", "table:d.csv"), ["d.csv", "cannot be read"]),
    ("a zero byte in the path", image, ("--data", "table:a\0b"), ["table:a\\x00b"]),
    ("a name of 5000 letters", image, ("--data", "table:" + "x" * 5000), ["File name too long"]),
    ("omnimedvqa of a file", image, ("--data", "omnimedvqa:x.png"), ["not OmniMedVQA's raw layout"]),
    ("omnimedvqa of a folder without", image, ("--data", "omnimedvqa:."), ["no QA_information"]),
    ("medr1 of another file", image, ("--data", "medr1:x.png"), ["no Med-R1 split file"]),
    ("medr1 of a folder without", image, ("--data", "medr1:."), ["no Med-R1 split file", "X-Ray_test.json"]),
    ("medr1 of train and test", _mixed, ("--data", "medr1:."), ["holds train and test splits"]),
    ("phantom without images", image, ("--data", "phantom:images=0"), ["images must be at least 1"]),
    ("phantom of -1 images", image, ("--data", "phantom:images=-1"), ["images must be at least 1", "got -1"]),
    ("phantom of endless images", image, ("--data", "phantom:images=1000000000000"), ["images", "at most"]),
    ("phantom of half an image", image, ("--data", "phantom:images=1.5"), ["images: '1.5' is not a whole number"]),
    ("phantom of a digit too many", image, ("--data", f"phantom:images={'9' * 5000}"), ["is not a whole number"]),
    ("phantom of no split", image, ("--data", "phantom:split=dev"), ["'dev' is not a choice", "validation"]),
    ("phantom with a wrong key", image, ("--data", "phantom:image=3"), ["unknown option 'image'", "'images'"]),
    ("phantom with a key twice", image, ("--data", "phantom:images=3,images=4"), ["'images' is given twice"]),
    ("phantom with no value", image, ("--data", "phantom:images="), ["'images=' is not key=value"]),
    ("phantom with no key", image, ("--data", "phantom:3"), ["'3' is not key=value"]),
    ("a root that is not there", _root, ("--data", "table:t.jsonl", "--data-root", "gone"), ["gone: no such folder"]),
    ("a root that is a file", _root, ("--data", "table:t.jsonl", "--data-root", "file"), ["file: no such folder"]),
    ("a root for phantom", _root, ("--data", "phantom", "--data-root", "."), ["--data-root has no effect"]),
    ("a link out of the root", _linked_folder, ("--data", "table:data/t.jsonl"), ["leaves the data root"]),
]

CASES = [
    *(
        Case(
            name=f"row: {name}", make=file("t.jsonl", [row(**change)]), argv=evaluated(data="table:t.jsonl"), says=says
        )
        for name, change, says in ((name, change, tuple(says)) for name, change, says in ROWS)
    ),
    *(
        Case(
            name=f"row: {name}",
            make=file("t.jsonl", [row(**change)]),
            argv=described("table:t.jsonl"),
            says=("1 of them usable",),
            code=0,
        )
        for name, change in FINE
    ),
    *(
        Case(name=f"table: {name}", make=file(place, content), argv=evaluated(data=f"table:{place}"), says=tuple(says))
        for name, place, content, says in TABLES
    ),
    *(
        Case(name=f"omnimedvqa: {name}", make=file(RAW, content), argv=evaluated(data="omnimedvqa:."), says=tuple(says))
        for name, content, says in OMNI
    ),
    *(
        Case(name=f"medr1: {name}", make=file(SPLIT, content), argv=evaluated(data=f"medr1:{SPLIT}"), says=tuple(says))
        for name, content, says in MEDR1
    ),
    *(
        Case(name=f"data: {name}", make=make, argv=evaluated(*argv), says=tuple(says))
        for name, make, argv, says in SPECS
    ),
]
CASES += [
    Case(name=f"table: {name}", make=make, argv=described(f"table:{place}"), says=("1 of them usable",), code=0)
    for name, make, place in (
        ("byte order mark", file("t.csv", "\ufeff" + HEAD + "q1,x.png,Q,a,b,a\n"), "t.csv"),
        ("carriage returns", file("t.csv", (HEAD + "q1,x.png,Q,a,b,a\n").replace("\n", "\r\n")), "t.csv"),
        ("semicolons", file("t.csv", (HEAD + "q1,x.png,Q,a,b,a\n").replace(",", ";")), "t.csv"),
        ("a jsonl with a byte order mark", file("t.jsonl", "\ufeff" + json.dumps(row())), "t.jsonl"),
        ("a jsonl with carriage returns", file("t.jsonl", json.dumps(row()) + "\r\n\r\n"), "t.jsonl"),
        ("a link inside the root", _link_inside, "t.jsonl"),
        ("an absolute path inside the root", _absolute, "t.jsonl"),
    )
]
