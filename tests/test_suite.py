"""The suite: at least as strong as its members, over questions of any number of options, and open about which fell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_attacks import survivors, wavy
from test_cli import summary_of
from test_pipeline import CPU
from test_sanity import masked
from toys import AB, ABCD, generators, linear, middle_canvases, run

from safemed_eval import attacks
from safemed_eval.attacks.suite import NO_TARGET, targets_by_rank
from safemed_eval.errors import SpecError
from safemed_eval.models import resolve
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.findings.checklist import checklist
from safemed_eval.report.page.studies import slices_of

MEASURED = Path(__file__).parents[1] / "reports" / "suite" / "evaluate-sft"


def test_it_is_at_least_as_strong_as_pgd_and_as_its_members() -> None:
    net, x, labels = wavy(120)
    suite = survivors("suite:eps=0.01,steps=15,queries=15", net, x, labels)
    others = [
        survivors(f"{spec}:eps=0.01,steps={steps}", net, x, labels) for spec, steps in (("pgd", 10), ("apgd", 15))
    ]
    assert 0 < suite <= min(others) < 1


def test_records_say_which_a_row_met_and_what_it_left() -> None:
    net, x, labels = wavy(60)
    labels[0] = (labels[0] + 1) % 4  # wrong when clean
    found = run("suite:eps=0.012,steps=10,queries=15", net, x, labels)
    right = net.scores(found.canvas, None).argmax(1) == labels
    assert found.parts is not None
    assert found.parts[0] == {} and found.steps[0] == 0 and torch.equal(found.canvas[0], x[0])
    met = found.parts[1:]
    assert all(list(part) == ["apgd-ce", "apgd-targeted", "square"][: len(part)] for part in met)
    for part, holds in zip(met, right[1:].tolist(), strict=True):
        assert all(part.values()) == holds, "what fell to one has fallen"
    assert {part["apgd-ce"] for part in met} == {True, False}
    assert found.climb is not None and found.dead is not None and found.dead[1:] == [0.0] * 59


def test_only_survivors_go_on() -> None:
    """A linear model's nearest rows fall to the first attack, and meet no other."""
    toy, x = linear(), middle_canvases(8)
    toy.bias -= float(toy.margin(x).median())
    labels = (toy.margin(x) <= 0).long()
    found = run("suite:eps=0.001,steps=10,queries=3", toy, x, labels, AB)
    assert found.parts is not None
    near = toy.margin(x).abs() < 0.9 * toy.best_drop(attacks.parse("suite:eps=0.001").threat)
    assert 0 < near.sum() < 8
    for part, falls in zip(found.parts, near.tolist(), strict=True):
        assert (part == {"apgd-ce": False}) is falls
        assert falls or part == {"apgd-ce": True, "apgd-targeted": True, "square": True}


def test_square_flips_what_gradients_cannot() -> None:
    """A staircase whose slope leads astray: the checklist is told by `parts`."""
    model = masked()
    x = torch.full((4, 3, 16, 16), 0.5)
    labels = torch.ones(4, dtype=torch.int64)
    classify = Waist(model, CPU).classify([AB] * 4)
    spec = attacks.parse("suite:eps=0.12,steps=5,queries=300")
    found = spec(classify, x, labels, generators(4))
    assert found.parts == [{"apgd-ce": True, "apgd-targeted": True, "square": False}] * 4
    assert classify(found.canvas).argmax(1).tolist() == [0] * 4


def test_its_ball_is_that_of_other_attacks() -> None:
    assert str(attacks.parse("suite")) == "suite:eps=4/255,steps=100"
    for spec, message in (("suite:eps=4", "4/255"), ("suite:norm=l2", "norm=l2 needs eps")):
        with pytest.raises(SpecError, match=message):
            attacks.parse(spec)


@pytest.mark.parametrize("queries", [30, 90])
def test_square_shows_about_as_many_images_as_were_asked_for(queries: int) -> None:
    toy = linear()
    toy.bias = 40.0  # nothing flips
    labels = torch.zeros(4, dtype=torch.int64)
    found = run(f"suite:eps=0.001,steps=3,queries={queries}", toy, middle_canvases(4), labels, AB)
    assert all(abs(steps - 2 * 3 - queries) <= 3 for steps in found.steps), "two APGD of three gradients come before"


def test_targets_are_the_wrong_options_from_the_likeliest_on() -> None:
    log_probs = torch.tensor([[0.0, -1.0, -3.0, -2.0], [-1.0, -0.5, -torch.inf, -torch.inf]])
    found = [targets.tolist() for targets in targets_by_rank(log_probs, torch.tensor([0, 1]))]
    assert found == [[1, 0], [3, NO_TARGET], [2, NO_TARGET]]


def test_questions_of_different_sizes_share_a_batch() -> None:
    net, x, _ = wavy(12)
    asked = [AB if row % 2 else ABCD for row in range(12)]
    classify = Waist(net, CPU).classify(asked)
    labels = classify(x).argmax(1)
    spec = attacks.parse("suite:eps=0.01,steps=6,queries=9")
    together = spec(classify, x, labels, generators(12))
    for row in (3, 4):
        alone = spec(
            Waist(net, CPU).classify(asked[row : row + 1]),
            x[row : row + 1],
            labels[row : row + 1],
            generators(12)[row : row + 1],
        )
        torch.testing.assert_close(alone.canvas[0], together.canvas[row], atol=2e-6, rtol=0)
        assert together.parts is not None and alone.parts == [together.parts[row]]


def test_on_a_shipped_checkpoint_it_leaves_no_more_right_than_pgd_in_any_slice(tmp_path: Path) -> None:
    """A short suite, run here; of the whole one see `MEASURED`."""
    pgd, suite = "pgd:eps=4/255,steps=10", "suite:eps=4/255,steps=15,queries=15"
    asked = ["--model", "builtin:sft", "--data", "phantom:images=128", "--limit", 20]
    summary_of("evaluate", *asked, "--attack", pgd, "--attack", suite, "--out", tmp_path / "run")
    for key, part in slices_of(Run.read(tmp_path / "run").answers):
        right = {name: part.under(name).correct.sum() for name in ("clean", pgd, suite)}
        assert right[suite] <= right[pgd], key
        assert key != (None, None) or right[suite] < right[pgd] < right["clean"], "there was something to find"


@pytest.mark.parametrize("eps", ["3/255", "4/255"])
def test_what_pgd_flips_on_a_shipped_checkpoint_the_suite_has_flipped_too(eps: str) -> None:
    """So that it is at least as strong on every set of these items."""
    run = Run.read(MEASURED)
    assert run.spec.model == resolve("builtin:sft").identity and not run.unfinished and not run.failed
    right = run.frame().pivot(index="item", columns="attack", values="correct")
    pgd, suite = right[f"pgd:eps={eps},steps=10"], right[f"suite:eps={eps},steps=100"]
    assert len(right) == 80 and not (suite & ~pgd).any() and suite.sum() < pgd.sum() < right["clean"].sum()


def test_the_measurement_passes_the_checklist() -> None:
    found = {check.name: check.status for check in checklist(Run.read(MEASURED))}
    assert {name: status for name, status in found.items() if status != "pass"} == {
        "more steps would not help": "warn",  # PGD, ten steps
        "the attack finds a planted region": "n/a",
    }
