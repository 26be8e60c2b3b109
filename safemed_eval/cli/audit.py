"""safemed-eval data audit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from csv import QUOTE_NONNUMERIC
from csv import writer as csv_writer
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from safemed_eval import data as datasets
from safemed_eval.cli._cues import show_cues
from safemed_eval.cli._show import as_json, name_cell, print_table, say
from safemed_eval.core import UNKNOWN
from safemed_eval.data import NEAR, Audit, Counts, DataSet, SharedImage, SharedPatient, Side
from safemed_eval.data.audit.leakage import audit as audit_sets
from safemed_eval.errors import DataError, RunError, SpecError
from safemed_eval.files import write_whole
from safemed_eval.progress import progress
from safemed_eval.rounding import percent
from safemed_eval.runs.pseudonyms import Pseudonyms, read_key
from safemed_eval.text import on_one_line

EXAMPLE = (
    "Example: safemed-eval data audit medr1:Splits/modality/train medr1:Splits/modality/test --data-root OmniMedVQA "
    "--near"
)
_SHOWN = 5
_ALL = "--json and --csv list all"
_WAYS = {"path": "same path", "file": "same file", "pixels": "same pixels", "near": "looks alike"}


def audit(
    a: Annotated[str, typer.Argument(metavar="A", help="The training set, as --data of evaluate and certify.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The test set. Without it: what gives answers away in A.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="As --data-root of evaluate and certify, for both.")] = None,
    data_root_b: Annotated[Path | None, typer.Option(help="For B, where it has another.")] = None,
    near: Annotated[
        bool,
        typer.Option(
            "--near", help=f"Also find images that look alike: perceptual hashes of 256 bits, {NEAR} or fewer differ."
        ),
    ] = False,
    paths_only: Annotated[
        bool, typer.Option("--paths-only", help="Open no image: compare paths, questions and patients.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write every shared image and patient, a row for each of their items."),
    ] = None,
    pseudonymize: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYFILE",
            help="Say pseudonyms for items, images and patients, those that runs have under this key.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every shared image and patient, instead of tables.")
    ] = False,
) -> None:
    """Does a test set share images, questions or patients with a training set? And what gives answers away?

    Exit code 0: nothing is shared; 1: something is; 2: wrong input; 3: nothing is as far as was compared, but not all
    images could be read.

    With one data set: how often the gold option alone begins with a small letter, ends with a period or is the longest,
    and what else answers questions without their image, against what chance gives.
    """
    a, b = datasets.spelled(a), b and datasets.spelled(b)
    if b is None:
        given = {"--near": near, "--paths-only": paths_only, "--data-root-b": data_root_b, "--csv": csv}
        given |= {"--pseudonymize": pseudonymize}
        for option in (option for option, value in given.items() if value):
            raise SpecError(f"{option} compares two data sets; name the second")
        show_cues(a, _usable(a, data_root), json=json)
        return
    if near and paths_only:
        raise SpecError("--near looks at pixels, which --paths-only leaves out; choose one")
    names = Pseudonyms(read_key(pseudonymize)) if pseudonymize else None
    if csv and (csv.is_dir() or not os.access(csv.absolute().parent, os.W_OK | os.X_OK)):
        raise SpecError(f"--csv {csv}: cannot be written; name a file in a folder that is there")
    train = _usable(a, data_root)
    test = _usable(b, data_root_b or (None if datasets.is_made(b.partition(":")[0]) else data_root))
    looks = {}
    if not paths_only:
        with progress("reading images", transient=True) as tick:
            looks = datasets.fingerprints((*train.items, *test.items), tick, likeness=near)
    with progress("comparing", transient=True) as tick:
        found = audit_sets(train, test, looks, near=near, progress=tick)
    if names:
        found, a, b = names.audit(found), names.data(a), names.data(b)
    verdict = "shared" if found.leaks else "clean" if found.whole or paths_only else "not all compared"
    if csv:
        _write(found, csv)
    if json:
        facts = {"a": a, "b": b, "verdict": verdict, "near_bits": NEAR if near else None, **asdict(found)}
        typer.echo(as_json(facts))
    else:
        _print(found, verdict, paths_only)
    raise typer.Exit({"clean": 0, "shared": 1, "not all compared": 3}[verdict])


def _usable(spec: str, root: Path | None) -> DataSet:
    data = datasets.load(spec, root)
    if not data.items:
        raise DataError(f"{spec}: none of its {len(data.bad)} questions can be read: {data.bad[0]}")
    return data


def _print(found: Audit, verdict: str, paths_only: bool) -> None:
    tables = {"modality": found.by_modality, "question type": found.by_question_type}
    tables = {heading: groups for heading, groups in tables.items() if set(groups) != {UNKNOWN}}
    names = ["all", *(name for heading, groups in tables.items() for name in (heading, *map(name_cell, groups)))]
    longest = max(map(len, names))
    for heading, groups in (tables or {"": {}}).items():
        rows = [("all", found.overall), *groups.items()]
        print_table(f"{heading:<{longest}}", [(name, _cells(counts, found)) for name, counts in rows])
    for line in _sentences(found, paths_only):
        say(escape(line))
    for way, text in _WAYS.items():
        pairs = [one for one in found.shared if one.how[-1] == way]
        for one in pairs[:_SHOWN]:
            bits = "" if one.distance is None else f", {one.distance} bits"
            same = "" if one.of == one.image else f" = {one.of}"
            say(escape(f"  {on_one_line(one.image)}{on_one_line(same)} ({text}{bits})"))
        if len(pairs) > _SHOWN:
            say(f"  ... and {len(pairs) - _SHOWN} more ({text}; {_ALL})")
    for patient in found.shared_patients[:_SHOWN]:
        about = f"A asks {_few(patient.of_items)}; B asks {_few(patient.items)}"
        say(escape(f"  patient {on_one_line(patient.patient)}: {about}"))
    if len(found.shared_patients) > _SHOWN:
        say(f"  ... and {len(found.shared_patients) - _SHOWN} more patients ({_ALL})")
    whole = found.overall
    if verdict == "shared":
        what = f"{whole.items_shared} of {whole.items} questions ({_share(whole.items_shared, whole.items)})"
        say(f"B is not independent of A: {what} are about its images or patients.", "bold red")
    elif verdict == "clean":
        say("Nothing is shared" + (", by path." if paths_only else "."), "bold green")
    else:
        say(
            "Nothing is shared as far as could be compared; --paths-only says that paths are enough.",
            "bold yellow",
        )


def _few(items: Sequence[str]) -> str:
    """The first of the ids, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(map(on_one_line, items[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _write(found: Audit, file: Path) -> None:
    """A row for each item, of either set, that is about something shared."""
    text = StringIO()
    rows = csv_writer(text, quoting=QUOTE_NONNUMERIC, lineterminator="\n")
    rows.writerow(("shared", "in_b", "in_a", "how", "distance", "set", "item"))
    for image in found.shared:
        what = ("image", image.image, image.of, " ".join(image.how), image.distance)
        rows.writerows(_rows(what, image))
    for patient in found.shared_patients:
        rows.writerows(_rows(("patient", patient.patient, patient.patient, "patient_id", None), patient))
    try:
        write_whole(file, text.getvalue())
    except OSError as error:
        raise RunError(f"--csv {file}: cannot be written: {error.strerror}") from None


def _rows(what: Sequence[object], shared: SharedImage | SharedPatient) -> Iterator[list[object]]:
    """No cell is a formula to a spreadsheet."""
    from safemed_eval.report._text import spreadsheet

    for which, items in (("A", shared.of_items), ("B", shared.items)):
        for item in items:
            yield [spreadsheet(cell) for cell in (*what, which, item)]


def _cells(counts: Counts, found: Audit) -> dict[str, str]:
    cells = {
        "images": str(counts.images),
        "shared": f"{counts.images_shared} ({_share(counts.images_shared, counts.images)})",
        "path": str(counts.path),
        "file": str(counts.file),
        "pixels": str(counts.pixels),
        **({"near": str(counts.near)} if found.near else {}),
        "items": str(counts.items),
        "items shared": f"{counts.items_shared} ({_share(counts.items_shared, counts.items)})",
        "question": str(counts.question),
        **({"patient": str(counts.patient)} if found.patients else {}),
    }
    if not (found.train.read and found.test.read):
        cells |= dict.fromkeys(("file", "pixels"), "n/a")
    return cells


def _share(part: int, whole: int) -> str:
    return f"{percent(part / whole if whole else None)} %"


def _sentences(found: Audit, paths_only: bool) -> Iterator[str]:
    yield (
        "Images of B that are in A: by their path below the data root, the bytes of their file, their decoded pixels. "
        "question: asked in the same words about the same image. Shared items are about a shared image"
        + (" or a patient of A." if found.patients else "; patients are not compared, A and B do not both name them.")
    )
    for name, side in (("A", found.train), ("B", found.test)):
        yield f"{name}: {side.items} questions on {side.images} images.{_left_out(side, paths_only)}"
    if found.other_content:
        yield f"{found.other_content} images have the path of one in A, but other pixels: they are not counted."
    if found.near:
        yield (
            f"near: not the same, but alike: of the 256 bits of their perceptual hashes (pHash) at most {NEAR} differ. "
            "Copies that were saved again, resized or made brighter are as close, and so are a few different images, "
            "such as neighbouring slices of one scan: look at the pairs. Copies that are mirrored, turned or cropped "
            "are not found."
        )


def _left_out(side: Side, paths_only: bool) -> str:
    said = f" {side.bad} more questions cannot be read, and are not compared." if side.bad else ""
    if side.missing and paths_only:
        return f"{said} Pixels were not looked at: --paths-only."
    if side.missing:
        which = f"of {side.missing} of them " if side.read else ""
        root = " (--data-root names the folder that image paths are relative to)"
        reason = on_one_line(str(side.reason)) + (root if str(side.reason).startswith("image not found") else "")
        said += f" Pixels {which}were not looked at: {reason}."
    return said
