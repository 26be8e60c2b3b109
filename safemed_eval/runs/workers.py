"""Who does the work of a run: the model in this process, or several in other processes (`crew`).

Work is cut into units. What comes of a unit does not depend on who does it, nor on what was done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from safemed_eval.codec import Json
from safemed_eval.errors import RunError

if TYPE_CHECKING:
    from safemed_eval.core import Item
    from safemed_eval.models import Loading
    from safemed_eval.models.waist import Waist

Store = Callable[..., None]
"""Puts something that the work found, such as an attacked canvas, where it is kept."""


Result = object
"""What comes of a unit: records, or votes of a part of an item."""


class Unit(Protocol):
    """A piece of work. Can be pickled."""

    @property
    def name(self) -> str:
        """What it is about, for messages; units of one name share the count of the workers that died on them."""
        ...

    def coming(self, work: Any) -> None:
        """What can be begun while the unit before it is done."""
        ...

    def do(self, work: Any) -> Result:
        """What comes of it, from an Evaluation or a Certification."""
        ...

    def alone(self) -> Sequence[Unit]:
        """The same work, each item by itself; nothing where there is only one."""
        ...

    def failed(self, why: str) -> Result:
        """What comes of it when nobody can do it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a worker has to work with."""

    model: Waist
    surrogates: Mapping[str, Waist]
    keep: Store


class Work(Protocol):
    """An Evaluation or a Certification."""

    batch: int


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What makes a worker, in whichever process. Can be pickled.

    Args:
        model: the model that is judged.
        surrogates: the models that transfer attacks search, by name.
        make: turns loaded models into the work.
        first: an item of the run, as an example for the model to describe itself with.
    """

    model: Loading
    make: Callable[[Loaded], Work]
    first: Item
    surrogates: Mapping[str, Loading] = field(default_factory=dict)

    @property
    def identity(self) -> Json:
        """Of the files of all models, by the names that they were called by; reads them once through."""
        sources = [loading.source for loading in (self.model, *self.surrogates.values())]
        return {source.name: source.identity for source in sources}


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a worker says once its model is loaded and checked."""

    model: Mapping[str, object]
    """Of the model, for run.json."""
    checks: Sequence[Mapping[str, object]]
    device: str
    batch: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What comes of a unit."""

    result: Result
    kept: Sequence[tuple[object, ...]]
    """Arguments for `Store`."""
    forwards: int
    """Images that have gone through the worker's model so far."""


class BrokenDeviceError(RunError):
    """An error such as an illegal access breaks a process for good: all that it computes from then on would fail."""


class Host:
    """A loaded model at work, one unit at a time.

    Raises:
        CheckpointError: the model, or a surrogate, cannot be loaded or fails a check.
    """

    def __init__(self, setup: Setup) -> None:
        self._kept: list[tuple[object, ...]] = []
        self.model, found = setup.model()
        surrogates = {name: loading()[0] for name, loading in setup.surrogates.items()}
        self._work = setup.make(Loaded(model=self.model, surrogates=surrogates, keep=self._keep))
        self.ready = Ready(
            model=self.model.describe(setup.first.question),
            checks=[asdict(one) for one in found],
            device=self.model.device_name,
            batch=self._work.batch,
        )

    def do(self, unit: Unit, following: Unit | None = None) -> Reply:
        """Do a unit, and begin what can be begun of the one that follows.

        Raises:
            BrokenDeviceError: nothing that came of the unit counts.
        """
        self._kept.clear()
        for one in filter(None, (unit, following)):
            one.coming(self._work)
        result = unit.do(self._work)
        self._refuse_broken_device(unit)
        return Reply(result=result, kept=tuple(self._kept), forwards=self.model.forwards)

    def _refuse_broken_device(self, unit: Unit) -> None:
        import torch

        if self.model.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.model.device)
            except RuntimeError as error:
                raise BrokenDeviceError(
                    f"the device failed on {unit.name} and works no more: {' '.join(str(error).split())[:200]}; what "
                    "was done before is safe, the same command goes on; where it ends here again, --ray local gives "
                    "the item up"
                ) from None

    def _keep(self, *what: object) -> None:
        import torch

        # A row of a batch is copied: it would take its whole batch along.
        self._kept.append(tuple(x.cpu().clone() if isinstance(x, torch.Tensor) else x for x in what))


class Team(Protocol):
    """Those who do the work of a run."""

    @property
    def ready(self) -> Ready:
        """What the first of them said."""
        ...

    @property
    def about(self) -> Mapping[str, object]:
        """Who they are, for run.json."""
        ...

    @property
    def forwards(self) -> int:
        """Images that have gone through their models so far."""
        ...

    @property
    def note(self) -> str:
        """Who they are now, in short; "" for this process alone."""
        ...

    def do(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Any]]:
        """Each unit, in the order in which they are done, with what came of it. What is to be kept is stored before."""
        ...


class Alone:
    """The model in this process."""

    note = ""
    about: Mapping[str, object] = {}

    def __init__(self, setup: Setup, store: Store) -> None:
        self._host, self._store = Host(setup), store
        self.ready = self._host.ready

    @property
    def forwards(self) -> int:
        return self._host.model.forwards

    def do(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Any]]:
        left = iter(units)
        unit = next(left, None)
        while unit:
            following = next(left, None)
            reply = self._host.do(unit, following)
            for what in reply.kept:
                self._store(*what)
            yield unit, reply.result
            unit = following
