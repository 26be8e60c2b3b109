"""The interactive page: one HTML file that holds all it needs, and asks the network for nothing.

`assets/` holds the template, its style and its script. Text of models and data reaches the page in two ways only:
through the template, which escapes it, and as JSON, from which the script makes text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from safemed_eval.core import UNATTACKED
from safemed_eval.errors import RunError
from safemed_eval.report.findings.reasoning import NOT_MEASURED
from safemed_eval.report.findings.sampling import draws_words
from safemed_eval.report.load import SLICES, Json, LoadedRun, in_order
from safemed_eval.report.page import data
from safemed_eval.report.page import items as single
from safemed_eval.report.page.data import Study
from safemed_eval.report.page.remarks import notices_of, remarks_of
from safemed_eval.report.page.texts import COLUMNS as TEXT_COLUMNS
from safemed_eval.report.page.texts import texts_of
from safemed_eval.rounding import ceil_to
from safemed_eval.text import visible
from safemed_eval.version import __version__

_COMMANDS = {"evaluate": "accuracy, clean and under attack", "certify": "certificates"}
_FOLDER = Path(__file__).parent / "assets"


def write_page(runs: Sequence[LoadedRun], file: Path, *, title: str, radii: str | None = None) -> None:
    """Write the page of these runs, evaluate and certify mixed.

    Args:
        radii: where certified accuracy is read; see `grammar.radii` and `radii_of`.
    Raises:
        SpecError: `radii` cannot be read. RunError: the file cannot be written.
    """
    studies = data.studies_of(runs, radii)
    slices = {column: _names(runs, column) for column in SLICES}
    items = single.Items(runs)
    scripts = [_read("page.js"), _plotly()]
    kinds = {kind: mine for kind in _COMMANDS if (mine := [one for one in studies if one.run.kind == kind])}
    norms = {family["norm"] for study in kinds.get("evaluate", []) for family in data.families(study.run)}
    html = _template().render(
        title=visible(title),
        version=__version__,
        policy=_policy(scripts),
        style=Markup(_read("page.css")),
        scripts=[Markup(script) for script in scripts],
        kinds=kinds,
        texts=texts_of(studies),
        text_columns=TEXT_COLUMNS,
        not_measured=NOT_MEASURED,
        columns={kind: data.columns(mine) for kind, mine in kinds.items()},
        commands=_COMMANDS,
        slices=SLICES,
        names=slices,
        notices=notices_of(studies),
        remarks={kind: remarks_of(mine) for kind, mine in kinds.items()},
        facts=[_facts(study) for study in studies],
        checklists=[_checklist(study) for study in studies if study.summary.notes.get("checklist")],
        false_certificates=[_false_certificates(study) for study in kinds.get("certify", [])],
        most_images=single.MOST_IMAGES,
        sequential=any(run.sequential for run in runs),
        doubtful={kind: _doubtful(mine) for kind, mine in kinds.items()},
        norms=[norm for norm in ("linf", "l2") if norm in norms],
        hides_huge=any(data.hides_huge(study.run) for study in kinds.get("evaluate", [])),
        blocks={
            "data": _embedded(_overview(studies, items, slices)),
            "details": _embedded(
                [single.details(run, known, len(items)) for run, known in zip(runs, items.of, strict=True)]
            ),
            "images": _embedded(single.images(runs, items)),
        },
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}") from None


def _names(runs: Sequence[LoadedRun], column: str) -> list[str]:
    return in_order({str(name) for run in runs if not run.frame.empty for name in run.frame[column].unique()})


def _overview(studies: Sequence[Study], items: single.Items, slices: Mapping[str, Sequence[str]]) -> Json:
    """What is needed before the first item is opened."""
    modality, question_type = ({name: i for i, name in enumerate([None, *slices[column]])} for column in SLICES)
    described = []
    for study, known in zip(studies, items.of, strict=True):
        run = study.run
        about: Json = {"name": visible(run.name), "kind": run.kind, "style": study.style, "grey": data.grey(run)}
        about["cells"] = {
            f"{modality[key[0]]},{question_type[key[1]]}": {"row": cells, "curve": study.curves[key]}
            for key, cells in study.cells.items()
        }
        about |= single.outcomes(run, known, len(items))
        if run.kind == "certify":
            about |= {"sigma": run.smoothing.sigma, "ceiling": run.smoothing.ceiling, "alpha": run.alpha}
        else:
            about |= {"conditions": list(map(visible, run.conditions)), "families": data.families(run)}
            about["attacks"] = [
                name not in UNATTACKED and name.partition(":")[0] != "corrupt" for name in run.conditions
            ]
        described.append(about)
    shown = {column: list(map(visible, names)) for column, names in slices.items()}
    return {"runs": described, "slices": shown, "items": items.to_json(slices)}


def _checklist(study: Study) -> Json:
    found: Json = _all_visible({"name": study.run.name, "checks": study.summary.notes["checklist"]})
    return found


def _doubtful(studies: Sequence[Study]) -> bool:
    return any(cell.few for study in studies for cells in study.cells.values() for cell in cells)


def _facts(study: Study) -> Json:
    """What the page says of how a run was made."""
    run, asked = study.run, study.summary.asked
    meta, spec = run.meta, run.spec
    if run.kind == "certify":
        method = f"noise of sigma {run.smoothing.sigma:g}; {draws_words(run)}; alpha {run.alpha:g}"
    else:
        method = ", ".join(run.conditions) + (", on 8-bit grey levels" if spec["quantize"] else "")
        method += f"; answers of the smoothed model, by vote ({asked['smooth']})" if asked["smooth"] else ""
    if asked["shuffle_options"] is not None:
        method += f"; options in an order drawn by seed {asked['shuffle_options']}"
    sessions = [
        {
            "started": session.get("started"),
            "command": "safemed-eval " + shlex.join(map(str, session.get("argv", []))),
            "commit": session.get("commit"),
            "device": session.get("device"),
            "versions": {
                "safemed-eval": session.get("safemed_eval"),
                "python": session.get("python"),
                **session.get("versions", {}),
            },
            "platform": session.get("platform"),
        }
        for session in meta["sessions"]
    ]
    facts: Json = _all_visible(
        {
            "name": run.name,
            "kind": run.kind,
            "model": asked["model"],
            "denoiser": asked["denoiser"],
            "data": asked["data"],
            "items": f"{study.summary.items:,} of {study.summary.expected:,}",
            "canvas": asked["canvas"],
            "conditions": run.conditions,
            "method": method,
            "readout": asked["readout"],
            "names": {key: _words(value) for key, value in meta["names"].items() if value},
            "weights": {key: _words(value) for key, value in spec["model"].items()},
            "loaded": {
                key: _words(value) for key, value in meta["model"].items() if value is not None and key != "prompt"
            },
            "prompt": meta["model"].get("prompt"),
            "sessions": sessions,
            "image_notes": meta["image_notes"],
            "skipped": meta["skipped"],
            "out": run.out,
            "spec": json.dumps(spec, indent=2, ensure_ascii=False),
        }
    )
    return facts


def _false_certificates(study: Study) -> Json:
    notes, n = study.summary.notes, len(study.run.frame)
    return {
        "name": visible(study.run.name),
        "n": f"{n:,}",
        "expected": f"{ceil_to(notes['false_certificates_expected_at_most'], 2):g}",
        "at_most": f"{notes['false_certificates_at_most_95']:,}",
    }


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _all_visible(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _all_visible(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_all_visible(one) for one in value]
    return value if value is None else visible(value)


def _embedded(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element, or begin markup."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and lone surrogates are escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _script(get_plotlyjs())


def _read(name: str) -> str:
    return _script((_FOLDER / name).read_text(encoding="utf-8"))


def _script(text: str) -> str:
    """Our own code as it may stand in an HTML element; browsers hash it after they have unified line ends."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in unified or "</style" in unified or "<!--" in unified:
        raise RuntimeError("a script or style would end, or comment out, its own element")
    return unified


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy: these scripts and no others, no network. Plotly sets styles of its own."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    sources = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.tests["holding"] = lambda cells, key: key in cells
    return environment.get_template("page.html")
