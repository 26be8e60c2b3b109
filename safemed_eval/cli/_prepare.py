"""From options to a run that goes on: what `evaluate` and `certify` have in common.

Cheap checks come first, then data, then the model's files, and torch last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from safemed_eval import data as datasets
from safemed_eval import models
from safemed_eval.cli._items import choose, verified
from safemed_eval.cli._model import asking_for, asking_of, quiet_transformers, refuse_senseless, resolve_model
from safemed_eval.cli._options import AskedOptions, LoadOptions, ModelOptions, RunOptions
from safemed_eval.cli._show import err, on_one_line, progress, status, visible
from safemed_eval.core import Item, Need, Question, Record
from safemed_eval.data import Canvas, DataSet
from safemed_eval.errors import RunError, SpecError
from safemed_eval.runs import Run, count_records, default_out, refuse_other_spec, session
from safemed_eval.runs.meter import Meter
from safemed_eval.runs.pseudonyms import Pseudonyms, Veiled, read_key
from safemed_eval.runs.ray.cluster import refuse_without_ray
from safemed_eval.runs.ray.crew import crew

if TYPE_CHECKING:
    from safemed_eval.models.loading import Loading
    from safemed_eval.runs.workers import Loaded, Store, Team, Work

RunFolder = Run | Veiled
_BAD_SHOWN = 1000
_EXTREMES = 8


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that may start: its data can be used, its model is there, its folder is free or its own."""

    data: DataSet
    canvas: Canvas
    source: models.Source
    spec: Mapping[str, Any]
    place: Path
    about: Mapping[str, Any]
    total: int
    """How many records the run has when it is complete."""
    names: Pseudonyms | None
    """What ids, paths and texts are called in the run folder; None: as they are."""

    def called(self, item: str) -> str:
        """What an item is called in the run folder."""
        return self.names.item(item) if self.names else item

    @property
    def complete(self) -> bool:
        return count_records(self.place) == self.total


def prepare(
    command: str,
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    asked: Mapping[str, Any],
    *,
    label: str,
    conditions: Sequence[str] = (),
) -> Prepared:
    """Check everything that can be checked without torch.

    Args:
        asked: what else decides the numbers, beside model, data, canvas and seed.
        label: tells runs apart in the default folder's name.
        conditions: what every item is asked under, for a command that has more than one.
    """
    refuse_senseless(model)
    _refuse_senseless_workers(model, run)
    names = Pseudonyms(read_key(run.pseudonymize)) if run.pseudonymize else None
    choice = choose(data, run.seed)  # before anything is downloaded or decoded
    canvas = choice.canvas
    if run.batch == "auto" and not canvas.size:
        raise SpecError("--batch-size auto: images at their own size need batches of different sizes; give a number")
    source = resolve_model(model.model, model, model.denoiser)
    items = verified(choice)
    chosen = items.set
    spec = {
        "command": command,
        "model": source.identity,
        "load": {"dtype": model.dtype, "attn": model.attn, "device_map": model.device_map},
        "asking": None if source.kind == "python" else asking_for(source, asking_of(model, run.seed)).describe(),
        "select": items.selection.to_json(),
        "skipped": len(chosen.bad),
        "data": names.digest(chosen.sha256) if names else chosen.sha256,
        "canvas": str(canvas),
        "seed": run.seed,
        "batch_size": run.batch,
        **({"pseudonyms": names.fingerprint} if names else {}),
        **({} if data.shuffle_options is None else {"shuffle_options": data.shuffle_options}),
        **asked,
    }
    kind, _, path = data.data.partition(":")
    asked_of = "" if names else Path(path).stem
    words = [Path(source.name).name, Path(model.denoiser or "").name, asked_of or kind, label]
    place = run.out or default_out(command, words, spec)
    if run.pseudonymize and run.pseudonymize.absolute().is_relative_to(place.absolute()):
        raise SpecError(f"--pseudonymize {run.pseudonymize}: lies in the run folder, and would be passed on with it")
    refuse_unwritable(place)
    refuse_other_spec(place, spec)
    about = about_of(source, data.data, chosen, conditions) | {"overlap": _overlap(source, chosen)}
    return Prepared(
        data=replace(chosen, items=items.items),
        canvas=canvas,
        source=source,
        spec=spec,
        place=place,
        about=about,
        total=len(chosen.items) * max(1, len(conditions)),
        names=names,
    )


@contextmanager
def started(
    prepared: Prepared,
    options: LoadOptions,
    run: RunOptions,
    make: Callable[[Loaded], Work],
    *,
    needs: Mapping[Need, str],
    surrogates: Mapping[str, Loading] | None = None,
    store: Store | None = None,
) -> Iterator[tuple[Team, RunFolder]]:
    """Load and check the model, here or in workers, lock the run folder. Ctrl-C leaves it resumable, exit code 130.

    Args:
        make: turns loaded models into the work; can be pickled.
        needs: what is asked of the model beside its answers, each with the option that asks.
        store: is given what the work wants to keep.
    """
    place = prepared.place
    with _team(prepared, options, run, make, needs, surrogates or {}, store) as team:
        ready = team.ready
        about, here = {**prepared.about, "checks": list(ready.checks)}, session(ready.device) | dict(team.about)
        if prepared.names:
            about = prepared.names.about(about)
            here["argv"] = prepared.names.arguments(here["argv"])
        with Run(place, prepared.spec, model=ready.model, about=about, session=here) as folder:
            if folder.repaired:
                typer.echo(f"{place}: cut off a torn last line, left by a process that was killed", err=True)
            if len(folder):
                typer.echo(f"{place}: going on, {len(folder)} records are there", err=True)
            try:
                yield team, Veiled(folder, prepared.names) if prepared.names else folder
            except KeyboardInterrupt:
                typer.echo(f"\nstopped; {len(folder)} records are safe in {place}, the same command goes on", err=True)
                raise typer.Exit(130) from None


@contextmanager
def _team(
    prepared: Prepared,
    options: LoadOptions,
    run: RunOptions,
    make: Callable[[Loaded], Work],
    needs: Mapping[Need, str],
    surrogates: Mapping[str, Loading],
    store: Store | None,
) -> Iterator[Team]:
    """Those who do the work, with their models loaded."""
    from safemed_eval.runs.workers import Alone, Setup

    model = loading_of(prepared.source, options, prepared, needs)
    first = prepared.data.items[0]
    shown = prepared.names.asked(first) if prepared.names else first
    setup = Setup(model=model, make=make, first=shown, surrogates=surrogates)
    store = store or (lambda *what: None)
    quiet_transformers()
    with ExitStack() as stack:
        with status(f"loading and checking {prepared.source.name}"):
            if run.ray is None:
                team: Team = Alone(setup, store)
            else:
                team = stack.enter_context(crew(setup, store, address=run.ray, workers=run.workers, tell=_tell))
        yield team


def _tell(line: str) -> None:
    typer.echo(visible(line), err=True)


def loading_of(source: models.Source, options: LoadOptions, prepared: Prepared, needs: Mapping[Need, str]) -> Loading:
    """What it takes to load a model for this run, and to check it."""
    from safemed_eval.models.loading import Loading

    items = prepared.data.items
    _, height, width = datasets.canvas_of(items[0], prepared.canvas).shape
    return Loading(
        source=source,
        device=options.device,
        dtype=options.dtype,
        attn=options.attn,
        device_map=options.device_map,
        asking=source.asked(asking_of(options, prepared.spec["seed"])),
        size=(height, width),
        options=max(len(item.question.options) for item in items),
        questions=_extremes(items),
        needs=needs,
    )


def _extremes(items: Sequence[Item]) -> tuple[Question, ...]:
    """The questions with the fewest and the most characters: among them are those with the fewest and most tokens."""
    questions = sorted(
        {item.question for item in items},
        key=lambda question: (question.characters, question.text, question.options),
    )
    return (*questions[:_EXTREMES], *questions[_EXTREMES:][-_EXTREMES:])


def surrogate_loading(
    source: models.Source, options: ModelOptions, prepared: Prepared, needs: Mapping[Need, str]
) -> Loading:
    """It is loaded as the judged model is, but asked for a letter, in its own words where it was trained here."""
    template = None if source.template or source.kind == "python" else options.template
    asked = replace(options, readout="choice", temperature=0.0, template=template)
    return loading_of(source, asked, prepared, needs)


def write_all(
    text: str, team: Team, folder: RunFolder, prepared: Prepared, meter: Meter, groups: Iterable[Sequence[Record]]
) -> None:
    """Append what comes, with a progress bar that counts items: an item is done with all its records."""
    items = len(prepared.data.items)
    each = prepared.total / items
    note = (lambda: team.note) if team.note else None
    with progress(text, forwards=lambda: team.forwards, note=note, share=lambda: meter.share) as tick:
        tick(len(folder) / each, items)
        for records in groups:
            folder.append(records)
            for record in records if prepared.names else ():
                if record["error"] is not None:  # the folder does not say it
                    err.print(escape(on_one_line(f"{record['item']} failed: {record['error']}")))
            tick(len(folder) / each, items)


def _overlap(source: models.Source, data: DataSet) -> datasets.Overlap | None:
    """What is tested and was trained on, told at once; None where the model was not trained here."""
    found = datasets.overlap(data.items, [datasets.Training(*training) for training in source.trainings])
    for sentence in datasets.overlap_sentences(found):
        typer.echo(f"warning: {visible(sentence)}", err=True)
    return found


def about_of(source: models.Source, name: str, data: DataSet, conditions: Sequence[str] = ()) -> dict[str, Any]:
    """What run.json keeps beside the spec; `name` is what --data said."""
    return {
        "names": {
            "model": source.name,
            "denoiser": source.denoiser.name if source.denoiser else None,
            "commits": source.commits,
            "data": name,
            "trained": source.trained,
        },
        "sampled": data.sampled,
        "image_notes": dict(data.notes),
        "items": len(data.items),
        "skipped": [{"item": bad.id, "reason": bad.reason} for bad in data.bad],
        "conditions": list(conditions),
    }


def _refuse_senseless_workers(options: ModelOptions, run: RunOptions) -> None:
    """Refuse what cannot be had from Ray's workers."""
    if run.ray is None:
        if run.workers is not None:
            raise SpecError("--workers has no effect without --ray; --ray local starts them on this machine")
        return
    if not run.ray or "://" in run.ray:
        raise SpecError(f"--ray {run.ray}: write local, auto or HOST:PORT; start the command on a node of the cluster")
    if options.device not in ("auto", "cpu", "cuda"):
        raise SpecError(
            f"--device {options.device}: Ray gives each worker a device of its own; write auto, cpu or cuda"
        )
    if options.device_map:
        raise SpecError(f"--device-map {options.device_map}: a worker of --ray has one device; leave one of them out")
    refuse_without_ray()


def refuse_unwritable(place: Path) -> None:
    """Tell before the model is loaded that the folder cannot be made or written."""
    try:
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    except OSError as error:
        raise RunError(f"--out {place}: {error.strerror}; choose another --out") from None
    if not there.is_dir():
        raise RunError(f"--out {place}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"--out {place}: {there} cannot be written; choose another --out")
