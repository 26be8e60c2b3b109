"""From options to data, model and run folder: what `evaluate` and `certify` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safemed_eval import data as datasets
from safemed_eval import models
from safemed_eval.cli._options import DataOptions, LoadOptions, ModelOptions, RunOptions
from safemed_eval.cli._show import progress, status
from safemed_eval.data import Canvas, DataSet
from safemed_eval.errors import DataError
from safemed_eval.runs import Run, count_records, default_out, refuse_other_spec, session

if TYPE_CHECKING:
    from safemed_eval.models.waist import Waist

Spec = Mapping[str, Any]
_BAD_SHOWN = 1000


def load_data(options: DataOptions, seed: int) -> tuple[DataSet, Canvas]:
    """Load, select and verify; refuse bad items unless they are to be skipped."""
    data = datasets.load(options.data, options.data_root)
    canvas = datasets.parse_canvas(options.canvas, options.fit.value, data.canvas)
    data = datasets.select(
        data,
        seed=seed,
        per_group=options.per_group,
        limit=options.limit,
        modalities=options.modality or (),
        question_types=options.question_type or (),
    )
    with progress("reading images", transient=True) as tick:
        data = datasets.verify(data, tick)
    if data.bad and not options.skip_bad:
        listed = "\n".join(f"  {bad}" for bad in data.bad[:_BAD_SHOWN])
        more = f"\n  ... and {len(data.bad) - _BAD_SHOWN} more" if len(data.bad) > _BAD_SHOWN else ""
        raise DataError(
            f"--data {options.data}: {len(data.bad)} of {len(data.bad) + len(data.items)} items cannot be used; mend "
            f"them, or pass --skip-bad to run without them and have them counted:\n{listed}{more}"
        )
    if not data.items:
        raise DataError(f"--data {options.data}: none of the {len(data.bad)} items can be used, first: {data.bad[0]}")
    return data, canvas


def resolve_model(name: str, options: LoadOptions) -> models.Source:
    """Find the model's files; no torch yet."""
    return models.resolve(name, trust_remote_code=options.trust_remote_code, allow_pickle=options.allow_pickle)


def load_model(source: models.Source, options: LoadOptions) -> Waist:
    """Import torch and load the model."""
    with status(f"loading {source.name}"):
        quiet_transformers()
        return models.load(
            source,
            device=options.device,
            dtype=options.dtype.value,
            attn=options.attn,
            device_map=options.device_map,
        )


def quiet_transformers() -> None:
    """Our own progress and errors are enough."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def check_model(model: Waist, name: str, data: DataSet, canvas: Canvas, *, gradients: bool) -> None:
    """Run the checks on the run's own canvas, and refuse a model that fails one."""
    from safemed_eval.models.check import check, refuse_failures

    with status("checking the model"):
        _, height, width = datasets.canvas_of(data.items[0], canvas).shape
        refuse_failures(check(model, (height, width), gradients=gradients), name)


def run_folder(
    spec: Spec, model: ModelOptions, data: DataOptions, run: RunOptions, *, label: str, records: int
) -> tuple[Path, bool]:
    """`--out` or a readable name below runs/, and whether all its records are there already.

    Refused, before the model is loaded, if the folder holds another run.
    """
    names = [Path(model.model).name, Path(data.data.partition(":")[2]).stem, label]
    place = run.out or default_out(str(spec["command"]), names, spec)
    refuse_other_spec(place, spec)
    return place, count_records(place) == records


@contextmanager
def open_run(
    place: Path,
    spec: Spec,
    waist: Waist,
    items: DataSet,
    *,
    names: Mapping[str, str | None],
    conditions: Sequence[str] = (),
) -> Iterator[Run]:
    """The run folder, locked; Ctrl-C leaves it resumable and exits with code 130."""
    about = {
        "names": dict(names),
        "sampled": items.sampled,
        "image_notes": dict(items.notes),
        "items": len(items.items),
        "skipped": [{"item": bad.id, "reason": bad.reason} for bad in items.bad],
        "conditions": list(conditions),
    }
    model = {**waist.describe(), "device_type": waist.device.type}
    with Run(place, spec, model=model, about=about, session=session()) as folder:
        if folder.repaired:
            typer.echo(f"{place}: cut off a torn last line, left by a process that was killed", err=True)
        if len(folder):
            typer.echo(f"{place}: going on, {len(folder)} records are there", err=True)
        try:
            yield folder
        except KeyboardInterrupt:
            typer.echo(f"\nstopped; {len(folder)} records are safe in {place}, the same command goes on", err=True)
            raise typer.Exit(130) from None
