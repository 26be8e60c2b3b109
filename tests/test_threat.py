"""The ball itself, against brute force and closed forms; attacks are in test_attacks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safemed_eval.threat import TOLERANCE, Threat

levels = st.lists(st.integers(0, 255), min_size=3, max_size=3)
anywhere = st.lists(st.floats(0, 255), min_size=3, max_size=3)


def canvas(values: list[float]) -> torch.Tensor:
    """Three pixels in grey levels."""
    return (torch.tensor(values, dtype=torch.float64) / 255).float().view(1, 3, 1, 1)


def grey(x: torch.Tensor) -> list[float]:
    return (x.double() * 255).flatten().tolist()


@given(x0=levels, x=anywhere, eps=st.sampled_from([1.0, 1.5, 4.0, 7.9, 255.0]))
def test_linf_snapping_is_the_nearest_level_of_the_ball(x0: list[int], x: list[float], eps: float) -> None:
    """Also of points that have left it."""
    found = grey(Threat(norm="linf", eps=eps / 255).snap(canvas(x0), canvas(x)))
    for before, wanted, after in zip(x0, x, found, strict=True):
        allowed = [level for level in range(256) if abs(level - before) <= eps + 1e-3]
        assert after == pytest.approx(round(after), abs=1e-4) and round(after) in allowed
        assert abs(after - wanted) <= min(abs(level - wanted) for level in allowed) + 1e-3


@settings(max_examples=200)
@given(x0=levels, moves=st.lists(st.floats(-6, 6), min_size=3, max_size=3), eps=st.sampled_from([2.0, 3.0, 5.0, 6.5]))
def test_l2_snapping_moves_what_was_cut_most_as_far_as_there_is_room(
    x0: list[int], moves: list[float], eps: float
) -> None:
    threat, start = Threat(norm="l2", eps=eps / 255), canvas(x0)
    x = threat.project(start, canvas([a + b for a, b in zip(x0, moves, strict=True)]))
    deltas = [after - before for after, before in zip(grey(x), x0, strict=True)]
    cut = [math.trunc(delta) for delta in deltas]
    lost = [abs(delta - whole) for delta, whole in zip(deltas, cut, strict=True)]
    order = sorted(range(3), key=lambda i: -lost[i])
    if any(abs(lost[a] - lost[b]) < 1e-3 for a, b in itertools.combinations(range(3), 2)) or min(lost) < 1e-3:
        return  # a tie may be broken either way
    spent = sum(whole**2 for whole in cut)
    for i in order:
        spent += 2 * abs(cut[i]) + 1
        if spent > eps**2 + 1e-9:
            break
        cut[i] += 1 if deltas[i] > 0 else -1
    found = [round(after) - before for after, before in zip(grey(threat.snap(start, x)), x0, strict=True)]
    assert found == cut
    assert math.hypot(*found) <= eps + 1e-9


def test_a_change_may_reach_the_surface_exactly() -> None:
    """A change of 1.6 levels is cut to 1, and comes to 2 where eps is 2 levels: all the room that there is."""
    snapped = Threat(norm="l2", eps=2 / 255).snap(canvas([100, 100, 100]), canvas([101.6, 100, 100]))
    assert grey(snapped) == pytest.approx([102, 100, 100], abs=1e-4)
    assert grey(Threat(norm="l2", eps=2 / 255).snap(canvas([0, 0, 0]), canvas([1, 0, 0]))) == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("eps", [0.01, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("side", [4, 32, 224])
def test_l2_projection_ends_on_the_surface(eps: float, side: int) -> None:
    """Points far out are moved to eps, up to the rounding of float32; points inside stay."""
    generator = torch.Generator().manual_seed(0)
    threat = Threat(norm="l2", eps=eps, box=False)
    x0 = torch.stack([torch.full((3, side, side), level / 255) for level in range(0, 256, 15)])
    for step in (torch.ones_like(x0), torch.randn(x0.shape, generator=generator)):
        size = threat.size(threat.project(x0, x0 + eps * step) - x0)
        assert bool((size <= eps * (1 + TOLERANCE)).all())
        if eps * float(step[0].norm()) > eps:
            assert bool((size >= eps * (1 - 2e-3)).all())
    near = x0 + 0.4 * eps / math.sqrt(3 * side * side)
    assert torch.allclose(threat.project(x0, near), near, atol=1e-7)


def test_the_check_knows_what_has_left_its_bounds() -> None:
    """Just inside each bound is nothing, just outside is told."""
    x0 = torch.full((2, 3, 4, 4), 0.5)
    for norm, moved in (("linf", 0.1), ("l2", 0.1 / math.sqrt(48))):
        x = x0.clone()
        x[1] += moved
        Threat(norm=norm, eps=0.1).check(x0, x)
        with pytest.raises(RuntimeError, match="left its ball"):
            Threat(norm=norm, eps=0.1 - 5e-6).check(x0, x)
    Threat(norm="l2", eps=100.0).check(x0, x0 * 0)
    for value in (-1e-5, 1 + 1e-5, math.nan):
        beyond = x0.clone()
        beyond[0, 0, 0, 0] = value
        with pytest.raises(RuntimeError, match="left"):
            Threat(norm="linf", eps=1.0).check(x0, beyond)
    out = torch.full_like(x0, 1.25)
    Threat(norm="linf", eps=1.0, box=False).check(x0, out)
    with pytest.raises(RuntimeError, match=r"left \[0, 1\]"):
        Threat(norm="linf", eps=1.0).check(x0, out)
    with pytest.raises(RuntimeError, match="left the 8-bit grey levels"):
        Threat(norm="linf", eps=1.0).check(x0, x0, on_grid=True)
    on = torch.full_like(x0, 127 / 255)
    Threat(norm="linf", eps=1 / 255).check(on, on + 1 / 255, on_grid=True)
    with pytest.raises(RuntimeError, match="left its ball"):
        Threat(norm="linf", eps=1 / 255).check(on, on + 2 / 255, on_grid=True)


def test_directions_have_unit_size() -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0], [1e-8, 0.0, 0.0]]).view(3, 3, 1, 1)
    linf, l2 = (Threat(norm=norm, eps=1.0).direction(gradient).flatten(1) for norm in ("linf", "l2"))
    assert linf.tolist() == [[1, -1, 0], [0, 0, 0], [1, 0, 0]]
    assert torch.allclose(l2, torch.tensor([[0.6, -0.8, 0.0], [0, 0, 0], [1, 0, 0]]), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_samples_are_uniform_in_the_ball(norm: str) -> None:
    """For three pixels, (length / eps)^3 is uniform in the L2 ball, each pixel in the L-infinity one."""
    threat = Threat(norm=norm, eps=0.2)  # type: ignore[arg-type]
    x0 = torch.full((4000, 3, 1, 1), 0.5)
    delta = (threat.sample(x0, [torch.Generator().manual_seed(i) for i in range(len(x0))]) - x0).flatten(1).double()
    share = (delta.norm(dim=1) / 0.2) ** 3 if norm == "l2" else (delta.flatten() / 0.2 + 1) / 2
    quantiles = torch.quantile(share, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    assert quantiles.tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert delta.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.01)
