"""The command `safemed-eval data audit`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from csv import QUOTE_NONNUMERIC
from csv import writer as csv_writer
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from safemed_eval import data as datasets
from safemed_eval.cli._show import as_json, name_cell, print_table, say
from safemed_eval.core import UNKNOWN
from safemed_eval.data import NEAR, Audit, Comparison, Counts, Cue, DataSet, Side
from safemed_eval.errors import RunError, SpecError
from safemed_eval.files import write_whole
from safemed_eval.progress import progress, status
from safemed_eval.rounding import percent
from safemed_eval.text import on_one_line

EXAMPLE = (
    "Example: safemed-eval data audit medr1:Splits/modality/train medr1:Splits/modality/test --data-root OmniMedVQA "
    "--near"
)
_SHOWN = 5
_ALL = "--json and --csv list all"
_WAYS = {"path": "same path", "file": "same file", "pixels": "same pixels", "near": "looks alike"}
_ODD = {
    "lower case": "one option alone begins with a small letter",
    "period": "one option alone ends with a period",
    "longest": "one option alone is the longest",
    "in the question": "the words of one option alone stand in the question",
}


def audit(
    a: Annotated[str, typer.Argument(metavar="A", help="The training set, as --data of evaluate and certify.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The test set. Without it: cues in A that give answers away.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="As --data-root of evaluate and certify, for both.")] = None,
    data_root_b: Annotated[Path | None, typer.Option(help="Data root of B, if it differs.")] = None,
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
            help="Print pseudonyms of items, images and patients, the same as runs have under this key.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with every shared image and patient, instead of tables.")
    ] = False,
) -> None:
    """List images, questions and patients that a test set shares with a training set, or cues that give answers away.

    Exit code 0: nothing is shared; 1: something is shared; 2: wrong input; 3: nothing shared was found, but not all
    images could be read.

    With one data set: count how often only the gold option begins with a small letter, ends with a period or is the
    longest, and other cues that answer questions without their image, and compare with chance.
    """
    from safemed_eval.runs.pseudonyms import Pseudonyms, read_key

    a, b = datasets.spelled(a), b and datasets.spelled(b)
    if b is None:
        given = {"--near": near, "--paths-only": paths_only, "--data-root-b": data_root_b, "--csv": csv}
        given |= {"--pseudonymize": pseudonymize}
        for option in (option for option, value in given.items() if value):
            raise SpecError(f"{option} compares two data sets; name the second")
        _show_cues(a, datasets.load_readable(a, data_root), json=json)
        return
    names = Pseudonyms(read_key(pseudonymize)) if pseudonymize else None
    if csv and (csv.is_dir() or not os.access(csv.absolute().parent, os.W_OK | os.X_OK)):
        raise SpecError(f"--csv {csv}: cannot be written; name a file in a folder that is there")
    pair = Comparison.load(a, b, root=data_root, test_root=data_root_b, near=near, paths_only=paths_only)
    with progress("reading images", transient=True) as tick:
        seen = pair.open_images(tick)
    with progress("comparing", transient=True) as tick:
        result = pair.audit(seen, tick)
    if names:
        result, a, b = names.audit(result), names.data(a), names.data(b)
    if csv:
        _write(result, csv)
    if json:
        typer.echo(as_json({"a": a, "b": b, **result.to_json()}))
    else:
        _print(result)
    raise typer.Exit(result.exit_code)


def _print(result: Audit) -> None:
    tables = {"modality": result.by_modality, "question type": result.by_question_type}
    tables = {heading: groups for heading, groups in tables.items() if set(groups) != {UNKNOWN}}
    names = ["all", *(name for heading, groups in tables.items() for name in (heading, *map(name_cell, groups)))]
    longest = max(map(len, names))
    for heading, groups in (tables or {"": {}}).items():
        rows = [("all", result.overall), *groups.items()]
        print_table(f"{heading:<{longest}}", [(name, _cells(counts, result)) for name, counts in rows])
    for line in _sentences(result):
        say(escape(line))
    for way, text in _WAYS.items():
        pairs = [image for image in result.shared if image.how[-1] == way]
        for image in pairs[:_SHOWN]:
            bits = "" if image.distance is None else f", {image.distance} bits"
            same = "" if image.of == image.image else f" = {image.of}"
            say(escape(f"  {on_one_line(image.image)}{on_one_line(same)} ({text}{bits})"))
        if len(pairs) > _SHOWN:
            say(f"  ... and {len(pairs) - _SHOWN} more ({text}; {_ALL})")
    for patient in result.shared_patients[:_SHOWN]:
        about = f"A asks {_few(patient.of_items)}; B asks {_few(patient.items)}"
        say(escape(f"  patient {on_one_line(patient.patient)}: {about}"))
    if len(result.shared_patients) > _SHOWN:
        say(f"  ... and {len(result.shared_patients) - _SHOWN} more patients ({_ALL})")
    whole = result.overall
    if result.verdict == "shared":
        what = f"{whole.items_shared} of {whole.items} questions ({_share(whole.items_shared, whole.items)})"
        say(f"B is not independent of A: {what} are about its images or patients.", "bold red")
    elif not result.exit_code:
        say("Nothing is shared" + (", by path." if result.paths_only else "."), "bold green")
    else:
        say(
            "Nothing is shared as far as could be compared; --paths-only compares paths alone.",
            "bold yellow",
        )


def _few(items: Sequence[str]) -> str:
    """List the first ids, and the number of the others."""
    more = len(items) - _SHOWN
    return ", ".join(map(on_one_line, items[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _write(result: Audit, file: Path) -> None:
    """Write the rows of the audit as CSV, with cells that a spreadsheet does not take for formulas."""
    from safemed_eval.report._text import spreadsheet

    text = StringIO()
    rows = csv_writer(text, quoting=QUOTE_NONNUMERIC, lineterminator="\n")
    rows.writerows(map(spreadsheet, row) for row in result.rows())
    try:
        write_whole(file, text.getvalue())
    except OSError as error:
        raise RunError(f"--csv {file}: cannot be written: {error.strerror}") from None


def _cells(counts: Counts, result: Audit) -> dict[str, str]:
    cells = {
        "images": str(counts.images),
        "shared": f"{counts.images_shared} ({_share(counts.images_shared, counts.images)})",
        "path": str(counts.path),
        "file": str(counts.file),
        "pixels": str(counts.pixels),
        **({"near": str(counts.near)} if result.near else {}),
        "items": str(counts.items),
        "items shared": f"{counts.items_shared} ({_share(counts.items_shared, counts.items)})",
        "question": str(counts.question),
        **({"patient": str(counts.patient)} if result.patients else {}),
    }
    if not (result.train.read and result.test.read):
        cells |= dict.fromkeys(("file", "pixels"), "n/a")
    return cells


def _share(part: int, whole: int) -> str:
    return f"{percent(part / whole if whole else None)} %"


def _sentences(result: Audit) -> Iterator[str]:
    yield (
        "Images of B that are in A: by their path below the data root, the bytes of their file, their decoded pixels. "
        "question: asked in the same words about the same image. Shared items are about a shared image"
        + (" or a patient of A." if result.patients else "; patients are not compared, A and B do not both name them.")
    )
    for name, side in (("A", result.train), ("B", result.test)):
        yield f"{name}: {side.items} questions on {side.images} images.{_left_out(side, result.paths_only)}"
    if result.other_content:
        yield f"{result.other_content} images have the path of one in A, but other pixels: they are not counted."
    if result.near:
        yield (
            f"near: similar, but not equal: of the 256 bits of their perceptual hashes (pHash) at most {NEAR} differ. "
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


def _show_cues(spec: str, data: DataSet, *, json: bool) -> None:
    """Count and print every cue of these data, with the count expected by chance."""
    with status("counting"):
        cues = datasets.cues(data.items)
    if json:
        counts = {"a": spec, "questions": len(data.items), "bad": len(data.bad)}
        typer.echo(as_json({**counts, "cues": [cue.to_json() for cue in cues]}))
        return
    rows: dict[str, dict[str, str]] = {}
    for cue in cues:
        rows.setdefault(cue.question_type or "all", {"n": str(cue.questions)})[cue.name] = _cue_cell(cue)
    longest = max(len(name) for name in ("question type", *map(name_cell, rows)))
    print_table(f"{'question type':<{longest}}", list(rows.items()))
    say(
        escape(
            "x/n [c %]: n questions have the cue, in x of them it points to the gold answer, and in c % it would by "
            "chance. This does not show whether a model uses a cue. No image was opened."
        )
    )
    if data.bad:
        say(f"{len(data.bad)} more questions cannot be read, and are not counted.")
    _say_notable(cues, by_type=len(rows) > 1)


def _say_notable(cues: Sequence[Cue], *, by_type: bool) -> None:
    notable = [cue for cue in cues if cue.notable and bool(cue.question_type) == by_type]
    for cue in notable:
        where = f"{cue.question_type}: " if cue.question_type else ""
        say(escape(on_one_line(f"{where}{_cue_sentence(cue)}")))
    if not notable:
        say("No cue is further from chance than 10 points, and than chance explains.")


def _cue_cell(cue: Cue) -> str:
    if not cue.marked:
        return "-"
    letter = f"{cue.value} " if cue.name == "letter" else ""
    chance = "" if cue.expected is None else f" [{100 * cue.expected / cue.marked:.0f} %]"
    return escape(f"{letter}{cue.gold:.0f}/{cue.marked}{chance}")


def _cue_sentence(cue: Cue) -> str:
    gold, share = f"{cue.gold:.0f}", f"{percent(cue.share)} %"
    if cue.expected is None:
        return (
            f"in {cue.marked} of {cue.questions} questions two options say the same; in {gold} the gold one is of them."
        )
    chance = f"by chance in {percent(cue.expected / cue.marked)} %"
    if cue.name == "one answer":
        return f"one answer, '{cue.value}', is gold in {gold} of {cue.marked} questions ({share}), {chance}."
    if cue.name == "letter":
        return f"{cue.value} is gold in {gold} of {cue.marked} questions ({share}), {chance}."
    if cue.name == "text alone":
        return (
            "a reader of the text alone, who picks the option that is most often gold in the other questions, is right "
            f"in {share}, {chance}."
        )
    return (
        f"in {cue.marked} of {cue.questions} questions {_ODD[cue.name]}; it is gold in {gold} of them ({share}), "
        f"{chance}."
    )
