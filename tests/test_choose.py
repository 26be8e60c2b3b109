"""Chosen and verified data as the Python API hands them out, and kinds of data that other packages add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from safemed_eval import data
from safemed_eval.codec import encode
from safemed_eval.data import Data, choose_data, load_data
from safemed_eval.errors import DataError, SpecError
from safemed_eval.plugins import plugins


def test_chosen_data_are_those_of_each_step() -> None:
    chosen = load_data("Phantom:images=64", limit=20, modality="ct", question_type=["Disease Diagnosis"], seed=3)
    by_hand = data.select(
        data.load("phantom:images=64"), seed=3, limit=20, modalities=["ct"], question_types=["Disease Diagnosis"]
    )
    assert chosen.set == data.verify(by_hand) and chosen.name == "phantom:images=64"
    assert len(chosen) == 8 and list(chosen) == list(chosen.items) == list(chosen.set.items)
    assert str(chosen.canvas) == "64x64 stretch"
    assert encode(chosen.selection) == {
        "modality": ["ct"],
        "question_type": ["disease diagnosis"],
        "per_group": None,
        "limit": 20,
    }


def test_options_are_shuffled_after_the_set_is_hashed() -> None:
    plain, shuffled = (load_data("phantom:images=8", shuffle_options=seed) for seed in (None, 7))
    assert plain.set.sha256 == shuffled.set.sha256 and plain.set.items == shuffled.set.items
    assert shuffled.items == data.shuffled(plain.set, 7).items != plain.items


def test_choosing_opens_no_image_and_refuses_a_wrong_filter(table: Path) -> None:
    items = data.load(f"table:{table}").items
    items[0].path.unlink()
    choice = choose_data(f"table:{table}", canvas="24x24", fit="pad")
    assert len(choice) == len(items) and str(choice.canvas) == "24x24 pad"
    with pytest.raises(DataError, match=r"--skip-bad(.|\n)*image not found(.|\n)*--data-root names the folder"):
        choice.verified()
    for wrong in ({"modality": "none such"}, {"canvas": "24"}, {"limit": 0}):
        with pytest.raises(SpecError):
            choose_data(f"table:{table}", **wrong)


def test_a_bad_item_is_replaced_where_that_is_wanted(table: Path) -> None:
    spec = f"table:{table}"
    first = choose_data(spec, limit=3).chosen.items
    first[0].path.unlink()
    chosen = load_data(spec, limit=3, skip_bad=True)
    lost = {item.id for item in first if item.path == first[0].path}
    assert len(chosen) == 3 and lost <= {bad.id for bad in chosen.set.bad}
    assert {item.id for item in first} - lost <= {item.id for item in chosen}
    assert "left out" in repr(chosen)


def test_a_pilot_is_drawn_from_the_same_items(table: Path) -> None:
    choice = choose_data(f"table:{table}", per_group=1)
    assert choice.pilot(2).verified().items == load_data(f"table:{table}", limit=2).items


def test_items_that_are_built_in_python(table: Path) -> None:
    items = data.load(f"table:{table}").items
    mine = Data.from_items(items, name="ward", canvas=data.Canvas(size=(24, 24)))
    assert mine.set.sha256 == load_data(f"table:{table}").set.sha256 and mine.name == "ward"
    assert data.canvas_of(mine.items[0], mine.canvas).shape == torch.Size([3, 24, 24])
    with pytest.raises(DataError, match="label 9 is not the index of one of its"):
        Data.from_items([replace(items[0], label=9)])
    with pytest.raises(DataError, match="the id occurs twice"):
        Data.from_items([items[0], items[0]])
    with pytest.raises(DataError, match="no item is left"):
        Data.from_items([])


WRONG: dict[str, object] = {
    "id": ["a"],
    "label": 0.0,
    "modality": 3,
    "patient_id": 7,
    "extra": {"age": 41},
    "options": ["yes", "no"],
}


@pytest.mark.parametrize("field", WRONG)
def test_a_field_of_another_type_is_refused_before_the_run(table: Path, field: str) -> None:
    """Its records could be written, but not be read again."""
    item, value = data.load(f"table:{table}").items[0], WRONG[field]
    changes = {"question": replace(item.question, options=value)} if field == "options" else {field: value}
    with pytest.raises(SpecError, match=field):
        Data.from_items([replace(item, **changes)])


def test_numbers_of_numpy_are_labels(table: Path) -> None:
    items = [replace(item, label=np.int64(item.label)) for item in data.load(f"table:{table}").items]
    assert Data.from_items(items).set.sha256 == load_data(f"table:{table}").set.sha256


def test_data_show_themselves() -> None:
    chosen = load_data("phantom:images=64", limit=50)
    assert repr(chosen).startswith("<Data phantom:images=64: 50 items, canvas 64x64 stretch, 50 drawn at random from")
    html = chosen._repr_html_()
    assert "<td>CT</td>" in html and "<td>Disease Diagnosis</td>" in html and html.count("<tr>") == 9


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    choose_data("phantom:images=4").verified(lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ------------------------------------------------------------------- plug-ins

READS = """
from functools import partial
from safemed_eval.core import Item
from safemed_eval.data.dataset import DataSet
from safemed_eval.data.records import Builder, gold_index, make_question

def load(place, root):
    builder = Builder()
    for number, line in enumerate(place.read_text().splitlines()):
        image, text, gold, *options = line.split("|")
        builder.add(str(number), partial(item, str(number), image, text, gold, options, root or place.parent))
    return builder.done()

def item(key, image, text, gold, options, root):
    question, label = make_question(text, options), gold_index(gold, options)
    return Item(id=key, question=question, label=label, image=image, root=root)
"""
MAKES = """
from safemed_eval.data.sources import phantom

class Half:
    def make(self, options):
        return phantom.make(options or "images=2")

half, neither = Half(), object()
"""
POINTS = """[safemed_eval.data]
piped = piped_format
half = half_format:half
neither = half_format:neither
gone = no_such_module
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with four entry points of the group safemed_eval.data."""
    info = tmp_path / "site" / "fake_formats-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-formats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "site" / "piped_format.py").write_text(READS)
    (tmp_path / "site" / "half_format.py").write_text(MAKES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins.cache_clear()
    yield
    plugins.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_plug_in_reads_its_files(table: Path) -> None:
    image = data.load(f"table:{table}").items[0].image
    file = table.parent / "x.txt"
    file.write_text(f"{image}|What is it?|MRI|CT|MRI\n{image}|What is it?|PET|CT|MRI\n")
    assert "piped" in data.kinds() and not data.is_made("piped")
    assert data.spelled("PIPED:X.txt") == "piped:X.txt"
    loaded = load_data(f"piped:{file}", skip_bad=True)
    assert [item.label for item in loaded] == [1] and "PET" in str(loaded.set.bad[0])


@pytest.mark.usefixtures("installed")
def test_a_plug_in_makes_its_data() -> None:
    assert data.is_made("Half") and data.spelled("HALF:Images=3") == "half:images=3"
    assert data.load("half").items == data.load("phantom:images=2").items


@pytest.mark.usefixtures("installed")
def test_a_broken_plug_in_is_named() -> None:
    with pytest.raises(SpecError, match=r"--data neither: this plug-in has neither load\(place, root\) nor make"):
        data.load("neither")
    with pytest.raises(SpecError, match="the plug-in gone of fake-formats"):
        data.load("gone")
    assert data.load("phantom:images=1").items
