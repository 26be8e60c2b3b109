"""python -m torture kills|mutants|table"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

REPORT = Path(__file__).parents[2] / "reports" / "torture"


def main(what: str, *options: str) -> None:
    if what == "kills":
        from conftest import draw_table

        from torture import kills

        with tempfile.TemporaryDirectory() as place:
            table = draw_table(Path(place) / "data", rows=24)
            found = kills.run(Path(place), table, each=int(options[0]) if options else 16)
        _write("kills", found)
    elif what == "mutants":
        _mutants(int(options[0]) if options else 200)


def _mutants(total: int) -> None:
    """Try a sample of the changes; those that a test has noticed before are not tried again."""
    from torture import mutants

    before = json.loads((REPORT / "mutants.json").read_text()) if (REPORT / "mutants.json").exists() else []
    known = {one["name"]: one for one in before if one["fate"] == "killed"}
    chosen = mutants.sample(total)
    found = mutants.run([one for one in chosen if one.name not in known], lambda line: print(line, flush=True))
    new = {one["name"]: one for one in found}
    _write("mutants", [new.get(one.name) or known[one.name] for one in chosen])


def _write(name: str, found: object) -> None:
    REPORT.mkdir(exist_ok=True)
    (REPORT / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
