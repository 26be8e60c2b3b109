"""Shared steps of `evaluate` and `certify`: check the options, start or resume the run, write its records.

Cheap checks come first, then images, then the model's files, and torch last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from safemed_eval.attacks import Attack
from safemed_eval.codec import Json, decode
from safemed_eval.core import MAX_BATCH, MAX_WORKERS, BatchSize, Domain, Item, Need, Question
from safemed_eval.data import (
    AnyData,
    Canvas,
    Choice,
    Data,
    Donor,
    Selection,
    Training,
    canvas_of,
    choice_of,
    donors_of,
    overlap,
    overlap_sentences,
    verify_masks,
)
from safemed_eval.errors import DataError, SpecError, Stopped, shortened
from safemed_eval.files import refuse_unwritable
from safemed_eval.models import AnyModel, Loading, Model, find_model
from safemed_eval.progress import progress, status
from safemed_eval.runs import Memory, RunFolder, count_records, default_out, refuse_other_spec, session
from safemed_eval.runs.folder import read_meta
from safemed_eval.runs.meta import about_of, meta_of
from safemed_eval.runs.meter import Meter
from safemed_eval.runs.pseudonyms import Pseudonyms, Veiled, read_key
from safemed_eval.runs.ray.cluster import refuse_without_ray
from safemed_eval.runs.ray.crew import crew
from safemed_eval.runs.record import Record
from safemed_eval.runs.spec import Asked, Load, Spec

if TYPE_CHECKING:
    from safemed_eval.report.run import Run
    from safemed_eval.runs.workers import Loaded, Store, Team, Work

Written = RunFolder | Memory | Veiled
"""A run that records are appended to."""
Out = str | Path | None
"""A run folder; "auto": a name below runs/ that the same call finds again; None: the run is kept in memory."""
S = TypeVar("S", bound=Spec)

_EXTREMES = 8
_log = logging.getLogger("safemed_eval")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run's execution and output; see `evaluate`."""

    batch_size: BatchSize = None
    seed: int = 0
    ray: str | None = None
    workers: int | None = None
    out: Out = None
    pseudonymize: str | Path | None = None
    baseline: str | Path | None = None

    def __post_init__(self) -> None:
        size = self.batch_size
        if size not in (None, "auto") and not (isinstance(size, int) and 1 <= size <= MAX_BATCH):
            raise SpecError(f"--batch-size {size}: write a number from 1 to {MAX_BATCH}, or auto")
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise SpecError(f"--workers {self.workers}: write a number from 1 to {MAX_WORKERS}")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to start: its data, its model and its folder have been checked."""

    model: Model
    data: Data
    spec: Spec
    options: Options
    place: Path | None
    about: Json
    names: Pseudonyms | None
    """Replaces ids, paths and texts in the run folder; None: they stay."""

    @property
    def total(self) -> int:
        """Number of records of the complete run."""
        return len(self.data.items) * max(1, len(self.spec.conditions))

    def called(self, item: str) -> str:
        """Return an item's name in the run folder."""
        return self.names.item(item) if self.names else item


def prepare(
    kind: type[S],
    model: AnyModel,
    data: AnyData,
    options: Options,
    *,
    label: str,
    chosen: Collection[Attack] = (),
    masked: str | None = None,
    domain: Domain = "canvas",
    **asked: Any,
) -> Prepared:
    """Check everything that can be checked without torch.

    Args:
        label: part of the automatic folder's name that tells runs apart.
        chosen: attacks, each of which may refuse the canvas or the items.
        masked: the option that needs the mask files beside the images.
        domain: "file" needs a canvas with a size; attacks are then made on images at their own size.
        asked: the fields that only this command's spec has.
    """
    command = kind.command
    judged = model if isinstance(model, Model) else find_model(model)
    _refuse_senseless_workers(judged, options)
    names = Pseudonyms(read_key(Path(options.pseudonymize))) if options.pseudonymize else None
    baseline = meta_of(read_meta(Path(options.baseline)), str(options.baseline)) if options.baseline else None
    if options.out not in (None, "auto"):
        _refuse_place(Path(options.out), options)
    choice = choice_of(data)
    if domain not in get_args(Domain):
        raise SpecError(f"--domain {domain}: write {' or '.join(get_args(Domain))}")
    if domain == "file" and not choice.canvas.size:
        raise SpecError("--domain file --canvas native: the canvas is the file already; leave out one of them")
    refuse_canvas(chosen, choice.canvas, domain)
    _refuse_unknown_items(chosen, choice, pseudonymized=names is not None)
    if options.batch_size == "auto" and not choice.canvas.size:
        raise SpecError("--batch-size auto: images at their own size need batches of different sizes; give a number")
    if isinstance(choice, Choice):
        with progress("reading images", transient=True) as tick:
            choice = choice.verified(tick)
    if masked:
        masks = masks_digest(choice.items, masked)
        asked["masks"] = names.digest(masks) if names else masks
    source = judged.source
    spec = kind(
        model=source.identity,
        load=Load(dtype=judged.dtype, attn=judged.attn, device_map=judged.device_map, compile=judged.compile),
        asking=decode(Asked, judged.asking.describe(), "asking") if source.takes_prompts else None,
        select=choice.selection,
        skipped=len(choice.set.bad),
        data=names.digest(choice.set.sha256) if names else choice.set.sha256,
        canvas=str(choice.canvas),
        seed=options.seed,
        batch_size=options.batch_size,
        pseudonyms=names.fingerprint if names else None,
        shuffle_options=choice.shuffle_options,
        domain=domain,
        **asked,
    )
    if baseline:
        from safemed_eval.report.compare.aligned import refuse_unlike

        refuse_unlike(baseline, spec, (str(options.baseline), "this run"))
    place = _place(command, judged, choice, spec, options, label, named=names is None)
    if place:
        _refuse_place(place, options)
        refuse_other_spec(place, spec.to_json())
    about = about_of(judged, choice, spec.conditions) | {"overlap": _overlap(judged, choice)}
    return Prepared(model=judged, data=choice, spec=spec, options=options, place=place, about=about, names=names)


def masks_digest(items: Sequence[Item], option: str) -> str:
    """Open the mask of every image, and return the hash of all.

    Raises:
        DataError: a mask cannot be used; the message names the option that needs it.
    """
    try:
        with progress("reading masks", transient=True) as tick:
            return verify_masks(items, tick)
    except DataError as error:
        raise DataError(f"{option}: {error}") from None


def finished(prepared: Prepared, work: Callable[[Prepared], Written]) -> Run:
    """Compute the missing records of a run, and read it."""
    from safemed_eval.report.run import Run

    place = prepared.place
    if place and count_records(place) == prepared.total:
        return Run.read(place)
    written = work(prepared)
    if place:
        return Run.read(place)
    meta, lines = written.contents()
    return Run.of(meta, map(json.loads, lines))


def _place(
    command: str, model: Model, data: Data, spec: Spec, options: Options, label: str, *, named: bool
) -> Path | None:
    if options.out != "auto":
        return None if options.out is None else Path(options.out)
    kind, _, path = data.name.partition(":")
    denoiser = model.source.denoiser.name if model.source.denoiser else ""
    words = [Path(model.source.name).name, Path(denoiser).name, (Path(path).stem if named else "") or kind, label]
    return default_out(command, words, spec.to_json())


@contextmanager
def started(
    prepared: Prepared,
    make: Callable[[Loaded], Work],
    *,
    needs: Mapping[Need, str],
    surrogates: Mapping[str, Loading] | None = None,
    store: Store | None = None,
) -> Iterator[tuple[Team, Written]]:
    """Load and check the model, here or in workers, and lock the run folder.

    Args:
        make: builds the work from loaded models; can be pickled.
        needs: what the model must provide besides answers, each with the option that needs it.
        surrogates: the models that transfer attacks search, by name.
        store: stores images that the work keeps.
    Yields:
        The workers, and the run to append records to.
    Raises:
        Stopped: Ctrl-C; the records computed so far are kept.
    """
    place = prepared.place
    with _team(prepared, make, needs, surrogates or {}, store) as team:
        ready = team.ready
        for check in ready.checks:
            if check["status"] == "warn" and check["canvas"]:
                _log.warning("%s", check["detail"])
        about, here = {**prepared.about, "checks": list(ready.checks)}, session(ready.device) | dict(team.about)
        if prepared.names:
            about = prepared.names.about(about)
            here["argv"] = prepared.names.arguments(here["argv"])
        spec = prepared.spec.to_json()
        with (
            Memory(spec, model=ready.model, about=about, session=here)
            if place is None
            else RunFolder(place, spec, model=ready.model, about=about, session=here)
        ) as folder:
            if folder.repaired:
                _log.warning("%s: cut off a torn last line, left by a process that was killed", place)
            if len(folder):
                _log.info("%s: going on, %d records are there", place, len(folder))
            try:
                yield team, Veiled(folder, prepared.names) if prepared.names else folder
            except KeyboardInterrupt:
                safe = (
                    f"{len(folder)} records are safe in {place}, the same command goes on"
                    if place
                    else "nothing is kept"
                )
                raise Stopped(f"stopped; {safe}") from None


@contextmanager
def _team(
    prepared: Prepared,
    make: Callable[[Loaded], Work],
    needs: Mapping[Need, str],
    surrogates: Mapping[str, Loading],
    store: Store | None,
) -> Iterator[Team]:
    """Load the models, in this process or in Ray's workers."""
    from safemed_eval.runs.workers import Alone, Setup

    options, first = prepared.options, prepared.data.items[0]
    shown = prepared.names.asked(first) if prepared.names else first
    setup = Setup(model=loading_of(prepared.model, prepared, needs), make=make, first=shown, surrogates=surrogates)
    store = store or (lambda *what: None)
    with ExitStack() as stack:
        compiling = ", compiling" * prepared.model.compile
        with status(f"loading{compiling} and checking {prepared.model.source.name}"):
            if options.ray is None:
                team: Team = Alone(setup, store)
            else:
                team = stack.enter_context(
                    crew(setup, store, address=options.ray, workers=options.workers, tell=_log.warning)
                )
        yield team


def donors_for(data: Data, seed: int) -> dict[str, Donor]:
    """Find each item's donor; see `data.donors_of`.

    Raises:
        SpecError: no item has one.
    """
    donors = donors_of(data.items, seed)
    if not donors:
        raise SpecError(
            f"--grounding: none of the {len(data.items)} items has another patient's image of its question or "
            "modality; take more items"
        )
    return donors


def loading_of(model: Model, prepared: Prepared, needs: Mapping[Need, str]) -> Loading:
    """Collect what is needed to load and check a model for this run."""
    items = prepared.data.items
    _, height, width = canvas_of(items[0], prepared.data.canvas).shape
    return Loading(
        model=model,
        size=(height, width),
        options=max(len(item.question.options) for item in items),
        questions=_extremes(items),
        needs=needs,
        may_be_blind=prepared.spec.asks_grounding,
    )


def _extremes(items: Sequence[Item]) -> tuple[Question, ...]:
    """Return the shortest and the longest questions, which include those with the fewest and the most tokens."""
    questions = sorted(
        {item.question for item in items},
        key=lambda question: (question.characters, question.text, question.options),
    )
    return (*questions[:_EXTREMES], *questions[_EXTREMES:][-_EXTREMES:])


def write_all(
    text: str,
    team: Team,
    folder: Written,
    prepared: Prepared,
    meter: Meter,
    groups: Iterable[Sequence[Record]],
) -> None:
    """Append the records as they are computed, with a progress bar that counts items."""
    items = len(prepared.data.items)
    each = prepared.total / items
    note = (lambda: team.note) if team.note else None
    with progress(text, forwards=lambda: team.forwards, note=note, share=lambda: meter.share) as tick:
        tick(len(folder) / each, items)
        for records in groups:
            folder.append([record.to_json(prepared.spec.recorded) for record in records])
            for record in records if prepared.names else ():
                if record.error is not None:  # withheld from the folder
                    _log.warning("%s failed: %s", record.item, record.error)
            tick(len(folder) / each, items)


def _refuse_place(place: Path, options: Options) -> None:
    """Refuse a run folder that cannot be written, or that holds the key of its pseudonyms."""
    key = options.pseudonymize
    if key and Path(key).absolute().is_relative_to(place.absolute()):
        raise SpecError(f"--pseudonymize {key}: lies in the run folder, and would be passed on with it")
    refuse_unwritable(place)


def _overlap(model: Model, data: Data) -> Json | None:
    """Count and log the items whose images the model was trained on; None if this package did not train it."""
    shared = overlap(data.items, [Training(*training) for training in model.source.trainings])
    for sentence in overlap_sentences(shared):
        _log.warning(sentence)
    return None if shared is None else dict(shared)


def refuse_canvas(chosen: Iterable[Attack], canvas: Canvas, domain: Domain = "canvas") -> None:
    """Refuse attacks that cannot be made on this canvas; where images keep their own size, each item tells."""
    for attack in chosen:
        if canvas.size is None or domain == "file":
            if attack.fits:
                advice = "leave out --domain file" if domain == "file" else "name a --canvas"
                raise SpecError(f"--attack {attack}: is one change for all images, which need one size; {advice}")
            continue
        try:
            attack.refuse_canvas(*canvas.size)
        except ValueError as error:
            raise SpecError(f"--attack {attack}: {error}") from None


def _refuse_unknown_items(chosen: Iterable[Attack], choice: Choice | Data, *, pseudonymized: bool) -> None:
    """Refuse attacks that name items which are not in the data, or whose names a pseudonymized run would give away.

    Of loaded data that were filtered or sampled the other items are not known: there one known item is enough.
    """
    whole = choice.whole if isinstance(choice, Choice) else choice.set
    known = {item.id for item in whole.items} | {bad.id for bad in whole.bad}
    complete = isinstance(choice, Choice) or choice.selection == Selection()
    for attack in chosen:
        unknown = [item for item in attack.named if item not in known]
        if unknown and (complete or len(unknown) == len(attack.named)):
            raise DataError(f"--attack {attack}: names the item '{shortened(unknown[0])}', which is not in the data")
        if attack.named and pseudonymized:
            raise SpecError(f"--attack {attack}: reads a file about the data; leave it out, or --pseudonymize")


def _refuse_senseless_workers(model: Model, options: Options) -> None:
    """Refuse options that do not work with Ray's workers."""
    if options.ray is None:
        if options.workers is not None:
            raise SpecError("--workers has no effect without --ray; --ray local starts them on this machine")
        return
    if not options.ray or "://" in options.ray:
        raise SpecError(
            f"--ray {options.ray}: write local, auto or HOST:PORT; start the command on a node of the cluster"
        )
    if not model.source.can_be_sent:
        raise SpecError(f"--ray: {model.source.name} is an object of this process; name a model that workers can load")
    if model.device not in ("auto", "cpu", "cuda"):
        raise SpecError(f"--device {model.device}: Ray gives each worker a device of its own; write auto, cpu or cuda")
    if model.device_map:
        raise SpecError(f"--device-map {model.device_map}: a worker of --ray has one device; leave one of them out")
    refuse_without_ray()
