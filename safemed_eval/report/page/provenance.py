"""Facts about the making of each run: its method, model, data and spec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from safemed_eval.codec import encode
from safemed_eval.report.findings.sampling import draws_words
from safemed_eval.report.run import Run
from safemed_eval.report.summary import smooth_words


class Fact(NamedTuple):
    """A line of a list of facts; `mono` is for text that is compared letter by letter."""

    name: str
    text: str
    mono: bool = False


def method_of(run: Run) -> str:
    """Describe the attacks of a run, or the noise and the sample budget of its certificates."""
    if run.kind == "certify":
        method = f"noise {run.budget.kind.title}; {draws_words(run)}; alpha {run.budget.alpha:g}"
        method += "; options in a random order for each noisy copy" * run.random_order
    else:
        method = ", ".join(run.conditions) + ", on 8-bit grey levels" * run.quantized
        method += " of the file's own pixels" * (run.spec.domain == "file")
        method += f"; answers of the smoothed model, by vote ({smooth_words(run)})" if run.voting else ""
    seed = run.spec.shuffle_options
    return method if seed is None else f"{method}; options in an order drawn by seed {seed}"


def facts_of(run: Run) -> Iterator[Fact]:
    """List the folder of a run, its model and data, and the conversions of its images."""
    meta = run.meta
    yield Fact("folder", run.where)
    names = encode(meta.names)
    yield from (Fact(name, _words(value)) for name, value in names.items() if value)
    yield from (Fact(name, _words(value), mono=True) for name, value in run.spec.model.items())
    yield from (
        Fact(name, _words(value)) for name, value in meta.model.items() if value is not None and name != "prompt"
    )
    yield from (Fact(f"images: {name}", str(count)) for name, count in meta.image_notes.items())


def spec_text(run: Run) -> str:
    """The spec as indented JSON."""
    return json.dumps(run.spec.to_json(), indent=2, ensure_ascii=False)


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
