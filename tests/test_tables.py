"""Runs read at another alpha, told apart by name, and the tables of a report: by hand, escaped, rounded down."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import ATTACKS, certified, evaluated, failed, numbers, write_run
from test_cli import call

from safemed_eval import stats
from safemed_eval.cli._show import show_run
from safemed_eval.errors import RunError
from safemed_eval.report import Run, make, page, read_all
from safemed_eval.report.page.studies import studies_of
from safemed_eval.report.summary import DAGGER
from safemed_eval.report.tables import Table, tables_of, write_tables
from safemed_eval.report.write import Written

RADII = "0,0.3,0.31,3s"


def evaluate_run(out: Path, rights: tuple[int, int, int] = (8, 5, 3), **settings: Any) -> Path:
    """Ten items, the first of each condition right: five MRI questions of two kinds, five CT."""
    records = [
        evaluated(i, attack, i < right, modality="MRI" if i < 5 else "CT", question_type=kind)
        for attack, right in zip(ATTACKS, rights, strict=True)
        for i in range(10)
        for kind in ["Disease Diagnosis" if i % 2 else "Anatomy Identification"]
    ]
    return write_run(out, records, "evaluate", **settings)


def certify_run(out: Path, **settings: Any) -> Path:
    """0.307 right, 0.616 right, 0.495 but wrong, abstained, failed."""
    records = [certified(0, 920), certified(1, 1000), certified(2, 990, chosen=0), certified(3, 500), failed(4)]
    return write_run(out, records, "certify", **settings)


def named(runs: list[Run], radii: str = RADII) -> dict[str, Table]:
    return {table.name: table for table in tables_of(runs, radii=radii)}


# ----------------------------------------------------------------------------------------------------------- loading


def test_certificates_follow_another_alpha(tmp_path: Path) -> None:
    out = certify_run(tmp_path / "run")
    as_run, laxer = Run.read(out), Run.read(out, alpha=0.05)
    assert (as_run.alpha, laxer.alpha, Run.read(evaluate_run(tmp_path / "e"), alpha=0.05).alpha) == (0.001, 0.05, None)
    expected = stats.certified_radius(stats.clopper_pearson_lower(920, 1000, 0.05), 0.25)
    assert (
        laxer.frame()["radius"][0] == pytest.approx(expected)
        and laxer.frame()["radius"][0] > as_run.frame()["radius"][0]
    )
    assert laxer.budget.ceiling == pytest.approx(0.25 * stats.sps.norm.ppf(0.05 ** (1 / 1000)))
    assert Run.read(out, alpha=0.001).frame()["radius"].equals(as_run.frame()["radius"])


def test_an_alpha_that_certifies_nothing_is_refused(tmp_path: Path) -> None:
    out = certify_run(tmp_path / "run")
    assert call("report", out, "--out", tmp_path / "r", "--alpha", "2") == (
        2,
        "--alpha 2.0: alpha must lie between 0 and 1, got 2",
    )


@pytest.mark.parametrize(
    ("field", "value"), [("radius", 0.9), ("prediction", 0), ("correct", False), ("p_lower", 0.99)]
)
def test_a_certificate_that_does_not_follow_from_its_votes_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    out = write_run(tmp_path / "run", [certified(0, 900), certified(1, 900, **{field: value})], "certify")
    with pytest.raises(RunError, match=r"'i1'.*(does not follow from its votes|its prediction says otherwise)"):
        Run.read(out)


def test_runs_of_one_model_get_names_that_tell_them_apart(tmp_path: Path) -> None:
    folders = [evaluate_run(tmp_path / "a"), evaluate_run(tmp_path / "b"), certify_run(tmp_path / "c")]
    assert [run.name for run in read_all([str(f) for f in folders])] == ["toy, a", "toy, b", "toy"]
    given = read_all([f"SFT={folders[0]}", f"SFT={folders[2]}", str(folders[1])])
    assert [run.name for run in given] == ["SFT", "SFT", "toy"]
    for twice in ([str(folders[0])] * 2, [f"SFT={folders[0]}", f"SFT={folders[1]}"]):
        assert call("report", *twice, "--out", tmp_path / "r")[0] == 2


def test_only_runs_of_evaluate_and_certify_are_read(tmp_path: Path) -> None:
    write_run(tmp_path / "t", [], "certify", spec={"command": "train"})
    with pytest.raises(RunError, match="a run of 'train'"):
        Run.read(tmp_path / "t")


# ------------------------------------------------------------------------------------------------------------ tables


def test_accuracy_by_hand(tmp_path: Path) -> None:
    tables = named([Run.read(evaluate_run(tmp_path / "a"))])
    assert list(tables) == [
        *("accuracy", "accuracy-by-modality", "accuracy-by-question-type"),
        *("calibration", "calibration-by-modality", "calibration-by-question-type"),
        *("selective", "selective-by-modality", "selective-by-question-type", "odds"),
        *("methods-by-modality", "methods-by-question-type", "published"),
    ]
    (row,) = tables["accuracy"].shown.to_dict("records")
    low, high = (stats.clopper_pearson_lower(8, 10, 0.025), stats.clopper_pearson_upper(8, 10, 0.025))
    assert (row["run"], row["items"], row["clean"]) == ("toy", "10", "80.0 [44.3-97.5]")
    assert (round(low, 4), round(high, 4)) == (0.4439, 0.9748), "the ends are rounded outward"
    values = tables["accuracy-by-modality"].values.set_index(["modality", "column"])
    assert values.loc[("CT", "clean"), ["correct", "items"]].tolist() == [3, 5]
    assert values.loc[("MRI", "pgd:eps=4/255,steps=10"), "accuracy"] == 0.6
    methods = tables["methods-by-question-type"].shown.set_index("attack")
    assert methods.loc["clean"].tolist() == ["toy", "80.0", "80.0", "80.0"]
    assert methods.loc["fgsm:eps=4/255"].tolist() == ["toy", "50.0", "60.0", "40.0"]


@pytest.mark.parametrize(
    ("attacked", "mri", "of_run", "of_slice"),
    [(20, 0, False, False), (4, 0, True, True), (20, 4, False, True), (20, 20, False, False)],
)
def test_one_figure_of_few_clusters_is_enough_to_say_so(
    attacked: int, mri: int, of_run: bool, of_slice: bool, tmp_path: Path
) -> None:
    """Of twenty items so many have an attacked record so far, and so many are MRI, the others CT."""
    records = [
        evaluated(i, attack, True, modality="MRI" if i < mri else "CT")
        for attack, count in zip(ATTACKS[:2], (20, attacked), strict=True)
        for i in range(count)
    ]
    run = Run.read(write_run(tmp_path / "run", records, "evaluate", conditions=ATTACKS[:2]))
    assert ("few" in [finding.key for finding in run.findings]) == of_run
    (study,) = studies_of([run])
    assert study.few == of_slice


def test_each_kind_of_run_has_a_table_of_its_own_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_plotly", lambda: "")
    runs = read_all([f"attacked={evaluate_run(tmp_path / 'e')}", f"proved={certify_run(tmp_path / 'c')}"])

    def rows(*shown: Run) -> dict[str, list[str]]:
        """The first figures of each run that has a row in the table of a kind."""
        page.write_page(shown, tmp_path / "page.html", title="t")
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        bodies = re.findall(r'<tbody id="live-(\w+)">(.*?)</tbody>', html, re.DOTALL)
        return {
            f"{kind}: {name}": re.findall(r"<td>\s*([^\s<]+)", row)[:3]
            for kind, body in bodies
            for name, row in re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', body, re.DOTALL)
        }

    both = {"evaluate: attacked": ["10", "80.0", "50.0"], "certify: proved": ["5", "float32,", "40.0"]}
    assert rows(*runs) == rows(*runs[::-1]) == both
    assert list(rows(runs[0])) == ["evaluate: attacked"] and list(rows(runs[1])) == ["certify: proved"]


REPORTED = {"alpha": None, "radii": None, "by": None, "images": True, "title": "Robustness report", "paper": False}
REPORTED |= {"width": None, "font": None}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--no-images"], {"images": False}),
        (["--alpha", "0.01", "--radii", "0,1s", "--by", "age,sex"], {"alpha": 0.01, "radii": "0,1s", "by": "age,sex"}),
        (["--paper", "--width", "3", "--font", "9"], {"paper": True, "width": 3.0, "font": 9.0}),
        (["--title", "Of models"], {"title": "Of models"}),
    ],
)
def test_the_command_asks_for_what_its_options_say(
    options: list[str], changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def made(runs: list[str], out: Path, **given: Any) -> Written:
        asked.update(given, runs=runs, out=out)
        return Written(page=out / "report.html", figures=[Path("a.png")] * 2, tables=[Path("b.md")])

    monkeypatch.setattr(make, "report", made)
    code, text = call("report", "SFT=a", "b", "--out", tmp_path, *options)
    assert code == 0 and "2 figures, 1 tables. Open:" in text
    assert asked == REPORTED | changed | {"runs": ["SFT=a", "b"], "out": tmp_path}


def test_certified_numbers_are_rounded_down_and_know_their_ceiling(tmp_path: Path) -> None:
    tables = named([Run.read(certify_run(tmp_path / "c"))])
    (row,) = tables["certified"].shown.to_dict("records")
    assert {key: row[key] for key in ("r>=3s", "ACR", "median r", "abstain", "items", "n0", "n", "alpha")} == {
        **{"r>=3s": ">ceiling", "ACR": "0.184", "median r": "n/a", "abstain": "20.0", "items": "5"},
        **{"n0": "100", "n": "1,000", "alpha": "0.001"},
    }
    assert row["r>=0.3"].startswith("40.0 [") and row["r>=0.31"].startswith("20.0 [")
    numbers = tables["certified"].values.set_index("column")
    assert numbers.loc["ACR", "average_radius"] == pytest.approx(0.18452, abs=1e-5), "0.1845 is shown as 0.184"
    assert numbers.loc["ACR", ["wrong", "abstained", "failed"]].tolist() == [1, 1, 1]
    seven = [certified(i, 1000 if i < 2 else 500) for i in range(7)]
    shown = named([Run.read(write_run(tmp_path / "d", seven, "certify"))], "0")["certified"].shown
    assert shown["r>=0"][0].startswith("28.5 ["), "2 of 7 is 28.57 %"


def test_methods_that_lack_an_attack_or_a_slice_say_so(tmp_path: Path) -> None:
    one = evaluate_run(tmp_path / "a", names={"model": "one"})
    two = write_run(
        tmp_path / "b",
        [evaluated(i, "clean", True, modality="OCT") for i in range(3)],
        "evaluate",
        conditions=("clean",),
        names={"model": "two"},
    )
    methods = named(read_all([str(one), str(two)]))["methods-by-modality"].shown
    assert list(methods.columns) == ["attack", "method", "all", "CT", "MRI", "OCT"]
    assert methods[methods["method"] == "two"].to_numpy().tolist() == [["clean", "two", "100.0", "n/a", "n/a", "100.0"]]
    assert methods[methods["attack"] == "clean"].iloc[0].tolist() == ["clean", "one", "80.0", "60.0", "100.0", "n/a"]


def test_published_numbers_stand_apart(tmp_path: Path) -> None:
    tables = named([Run.read(evaluate_run(tmp_path / "a"))])
    assert "NOT measured here" in tables["published"].caption
    assert not any("84.45" in table.shown.to_string() for name, table in tables.items() if name != "published")


def test_a_changed_alpha_is_said_in_the_caption(tmp_path: Path) -> None:
    out = certify_run(tmp_path / "c")
    assert "are read at alpha" not in named([Run.read(out)])["certified"].caption
    assert (
        "toy: certificates are read at alpha 0.05; the run was made for alpha 0.001"
        in named([Run.read(out, alpha=0.05)])["certified"].caption
    )


def test_the_three_formats_hold_the_same_and_text_stays_text(tmp_path: Path) -> None:
    name = r"a|b_c & 5% $x$ \end{table} <script> [x](y)"
    run = Run.read(evaluate_run(tmp_path / "a", names={"model": name}))
    files = write_tables(tables_of([run], radii="0"), [run], tmp_path / "tables")
    assert [file.name for file in files if file.name.startswith("acc")] == [
        *("accuracy.md", "accuracy-by-modality.md", "accuracy-by-question-type.md")
    ]
    lines = files[0].read_text().splitlines()
    assert lines[-1].count(" | ") == 4 and "<script>" not in lines[-1] and r"a\|b\_c" in lines[-1]
    tex = (tmp_path / "tables/accuracy.tex").read_text()
    assert r"\textbackslash{}end\{table\}" in tex and tex.count(r"\end{table") == 1
    assert r"a|b\_c \& 5\% \$x\$" in tex and r"\toprule" in tex
    back = pd.read_csv(tmp_path / "tables/accuracy.csv")
    assert set(back["run"]) == {name} and back["accuracy"].tolist() == [0.8, 0.5, 0.3]


def test_cohens_format_is_read_as_his_scripts_read_it(tmp_path: Path) -> None:
    run = Run.read(certify_run(tmp_path / "c"))
    write_tables(tables_of([run], radii="0"), [run], tmp_path / "tables")
    text = (tmp_path / "tables/certified-toy.tsv").read_text()
    assert text.splitlines()[0] == "idx\tlabel\tpredict\tradius\tcorrect\ttime"
    frame = pd.read_csv(io.StringIO(text), delimiter="\t")
    assert frame["predict"].tolist() == [1, 1, 0, -1, -1] and frame["radius"][3] == 0.0
    assert (frame["correct"] & (frame["radius"] >= 0.3)).mean() == 0.4, "his certified accuracy at 0.3"
    assert frame["radius"][0] <= Run.read(tmp_path / "c").frame()["radius"][0]


# ----------------------------------------------------------------------------------------------------- the command


def test_a_report_of_several_runs(tmp_path: Path) -> None:
    runs = [f"SFT={evaluate_run(tmp_path / 'a')}", f"SFT={certify_run(tmp_path / 'c')}"]
    out = tmp_path / "report"
    code, text = call("report", *runs, "--out", out, "--alpha", "0.01", "--title", "Of <b> models")
    assert code == 0 and "certificates are read at alpha 0.01; the run was made for alpha 0.001" in text
    assert str(out / "report.html") in text.replace("\n", "")
    page = (out / "report.html").read_text()
    assert "Of &lt;b&gt; models" in page and "Of <b>" not in page
    assert {file.suffix for file in (out / "figures").iterdir()} == {".pdf", ".png"}
    before = {file.name for file in (out / "figures").iterdir()}
    assert call("report", runs[0], "--out", out)[0] == 0
    after = {file.name for file in (out / "figures").iterdir()}
    assert after < before, "figures of the earlier report are gone"
    assert not list((out / "tables").glob("certified*"))


def test_a_report_replaces_nothing_but_a_report(tmp_path: Path) -> None:
    out = evaluate_run(tmp_path / "a")
    code, text = call("report", out, "--out", out)
    assert code == 2 and "no report" in text and json.loads((out / "run.json").read_text())
    assert call("report", out, "--out", out / "run.json")[0] == 2


def test_unfinished_and_empty_runs_are_reported_as_such(tmp_path: Path) -> None:
    out = evaluate_run(tmp_path / "a", items=12)
    empty = write_run(tmp_path / "b", [], "certify", items=5)
    code, text = call("report", out, empty, "--out", tmp_path / "r")
    assert code == 0 and "6 of 36 records are missing" in text and "5 of 5 records are missing" in text


# --------------------------------------------------------------------------------------------- attacks made of several

SUITE, ADAPTIVE = "suite:eps=4/255,steps=100", "adaptive:eps=4/255,steps=10"
LEFT = [
    ({"apgd-ce": True, "apgd-targeted": True, "square": True}, {"answer": True, "rationale": True, "x": True}),
    ({"apgd-ce": True, "apgd-targeted": True, "square": False}, {"answer": True, "rationale": False, "x": False}),
    ({"apgd-ce": True, "apgd-targeted": False}, {"answer": False, "rationale": True, "x": False}),
    ({"apgd-ce": False}, {"answer": True, "rationale": True, "x": False}),
    ({}, {}),
]
"""For four correct items and a wrong one: True where suite and adaptive left them correct."""


def of_parts(out: Path, **changes: Any) -> Path:
    """LEFT twice: MRI, where the last of the five failed under attack, and CT, where only the wrong one is asked."""
    records = []
    for number, both in enumerate([*LEFT, LEFT[4]]):
        about = {"modality": "CT" if number == 5 else "MRI"}
        records.append(evaluated(number, "clean", number < 4, **about))
        for name, parts in zip((SUITE, ADAPTIVE), both, strict=True):
            lost = {"prediction": None, "error": "broken"} if number == 4 else {"parts": parts}
            records.append(evaluated(number, name, bool(parts) and all(parts.values()), **about | lost | changes))
    return write_run(out, records, "evaluate", conditions=("clean", SUITE, ADAPTIVE))


def test_each_part_is_shown_beside_the_worst_of_all(tmp_path: Path) -> None:
    summary = numbers(run := Run.read(of_parts(tmp_path / "run")))
    counts = {
        name: {part: one["correct"] for part, one in cell["parts"].items()}
        for name, cell in summary.overall.items()
        if cell["parts"]
    }
    assert counts == {
        SUITE: {"apgd-ce": 3, "apgd-targeted": 2, "square": 1},
        ADAPTIVE: {"answer": 3, "rationale": 3, "x": 1},
    }
    assert summary.overall["clean"]["parts"] is None and summary.overall[ADAPTIVE]["correct"] == 1
    assert all(one["n"] == 6 for name in counts for one in summary.overall[name]["parts"].values()), "failed ones, too"
    (ct,) = [cell["parts"] for name, cell in summary.by_modality["CT"].items() if name == SUITE]
    assert {name: (one["accuracy"], one["n"]) for name, one in ct.items()} == dict.fromkeys(LEFT[0][0], (0.0, 1))
    tables = named([run])
    shown = tables["parts"].shown.set_index("attack")
    assert shown.loc[ADAPTIVE, ["all parts", "answer", "x"]].str.split(" ").str[0].tolist() == ["16.7", "50.0", "16.7"]
    assert shown.loc[ADAPTIVE, "square"] == "n/a" and {"parts-by-modality", "parts-by-question-type"} <= set(tables)
    assert "parts" not in named([Run.read(evaluate_run(tmp_path / "plain"))])
    code, text = call("report", run.out, "--out", tmp_path / "r")
    assert code == 0, text
    assert "rationale 50.0" in (tmp_path / "r/report.html").read_text()
    (line,) = [found.sentence for found in run.findings if found.key == "parts" and ADAPTIVE in found.sentence]
    assert "answer 50.0, rationale 50.0, x 16.7" in line


@pytest.mark.parametrize("parts", ["all", {"answer": 1}, [True]])
def test_parts_that_say_nothing_are_refused(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"parts.* cannot be"):
        Run.read(of_parts(tmp_path / "run", parts=parts))


# -------------------------------------------------------------------------------------------------------- corruptions


PGD = "pgd:eps=4/255,steps=10"


def worn(kind: str, severity: int) -> str:
    return f"corrupt:kind={kind},severity={severity}"


WORN = {worn("jpeg", 1): 8, worn("jpeg", 5): 4, worn("blur", 1): 7, worn("blur", 3): 6, worn("blur", 5): 1}
"""Items answered correctly, of ten."""


def worn_run(out: Path, rights: dict[str, int], **changes: Any) -> Path:
    rights = {"clean": 9} | rights
    records = [
        evaluated(i, attack, i < right, modality="MRI" if i < 5 else "CT", **changes)
        for attack, right in rights.items()
        for i in range(10)
    ]
    return write_run(out, records, "evaluate", conditions=tuple(rights))


def test_corruptions_are_one_table_of_kinds_and_severities(tmp_path: Path) -> None:
    """By hand: means with equal weight, the worst with its place; other conditions stay columns."""
    tables = named([run := Run.read(worn_run(tmp_path / "run", {PGD: 2} | WORN))])
    plain = [cell.rstrip(DAGGER) for cell in tables["corruptions"].shown.to_numpy().ravel()]
    assert list(tables["corruptions"].shown) == ["run", "corruption", "items", "1", "3", "5", "mean", "worst"]
    rows = [plain[i + 1 : i + 8] for i in range(0, len(plain), 8)]
    assert rows == [
        ["jpeg", "10", "80.0", "n/a", "40.0", "60.0", "40.0 (5)"],
        ["blur", "10", "70.0", "60.0", "10.0", "46.7", "10.0 (5)"],
        ["all kinds", "10", "75.0", "60.0", "25.0", "52.0", "10.0 (blur 5)"],
    ]
    assert list(tables["accuracy"].shown) == ["run", "items", "clean", PGD]
    assert set(tables["methods-by-modality"].shown["attack"]) == {"clean", PGD}
    values = tables["corruptions"].values
    cell = values[(values["corruption"] == "blur") & (values["column"] == "5")].iloc[0]
    assert (cell["accuracy"], cell["correct"], cell["items"]) == (0.1, 1, 10) and 0.1 < cell["upper"] < 0.5
    ct = tables["corruptions-by-modality"].shown.query("modality == 'CT' and corruption == 'jpeg'").iloc[0]
    assert [ct[name].rstrip(DAGGER) for name in ("items", "1", "5", "worst")] == ["5", "60.0", "0.0", "0.0 (5)"]
    code, text = call("report", run.out, "--out", tmp_path / "r")
    assert code == 0, text
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert page.count("10.0 (blur 5)") == 1 and ">all kinds<" in page
    shown = run._repr_html_()
    assert "10.0 (blur 5)" in shown and f"<th>{worn('blur', 5)}</th>" not in shown


def test_the_terminal_shows_corruptions_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_run(Run.read(worn_run(tmp_path / "run", WORN)), json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["modality", "items", "clean"]
    (place,) = [i for i, line in enumerate(lines) if line.startswith("corruption")]
    assert lines[place].split() == ["corruption", "items", "1", "3", "5", "mean", "worst"]
    assert lines[place + 3].replace(DAGGER, "").split() == [
        *("all", "kinds", "10", "75.0", "60.0", "25.0", "52.0", "10.0", "(blur", "5)")
    ]


def test_one_corruption_stays_a_column_and_unknown_is_not_the_worst(tmp_path: Path) -> None:
    tables = named([Run.read(worn_run(tmp_path / "one", {worn("jpeg", 3): 5}))])
    assert list(tables["accuracy"].shown) == ["run", "items", "clean", worn("jpeg", 3)] and "corruptions" not in tables
    broken = {"prediction": None, "log_probs": None, "error": "broken"}
    rights = {"clean": 9, worn("jpeg", 1): 8, worn("jpeg", 2): 0}
    records = [
        evaluated(i, attack, i < right, **(broken if right == 0 else {}))
        for attack, right in rights.items()
        for i in range(10)
    ]
    out = write_run(tmp_path / "lost", records, "evaluate", conditions=tuple(rights))
    row = named([Run.read(out)])["corruptions"].shown.iloc[0]
    assert [row[name] for name in ("2", "mean", "worst")] == ["failed", "n/a", "n/a"]
