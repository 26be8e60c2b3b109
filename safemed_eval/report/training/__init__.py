"""The page of a training: curves, what the model wrote, its adversarial images over time, and what was asked."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from safemed_eval.errors import RunError
from safemed_eval.report.page.rendering import policy, read_asset, template, write_html
from safemed_eval.report.training.chart import chart_of
from safemed_eval.report.training.read import Training
from safemed_eval.report.write import FIGURES, PAGE, Written, refuse_foreign
from safemed_eval.train.log import SHARES, figure
from safemed_eval.version import __version__


def write_training(training: Training, out: Path, *, title: str, images: bool = True) -> Written:
    """Write `report.html` and `figures/training.*` of a training.

    Args:
        images: show the images of samples.
    Raises:
        RunError: the folder holds something else, or cannot be written.
    """
    refuse_foreign(out)
    best = training.outcome.step if training.outcome else None
    charts = [
        chart_of(name.replace("\n", " "), series, share=name in SHARES, best=best if name == SHARES[0] else None)
        for name, series in training.panels.items()
    ]
    html = template("training.html").render(
        title=title,
        version=__version__,
        policy=policy([]),
        style=Markup(read_asset("page.css") + read_asset("training.css")),
        training=training,
        charts=charts,
        histories=training.histories(images=images),
        spec=json.dumps(training.spec, indent=2, ensure_ascii=False),
    )
    try:
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        figure(training.work, out / FIGURES)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be written: {error.strerror}") from None
    write_html(html, out / PAGE)
    return Written(page=out / PAGE, figures=sorted((out / FIGURES).glob("training.png")), tables=[])
