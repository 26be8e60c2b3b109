"""Execution of a run's work: by the model in this process, or by several in other processes (`ray.crew`).

Work is divided into units. The result of a unit depends neither on the worker, nor on the units before it.
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
"""Stores something that the work produced, such as an attacked canvas."""


Result = object
"""The result of a unit: records, or the votes of a part of an item."""


class Unit(Protocol):
    """A piece of work that can be pickled."""

    @property
    def name(self) -> str:
        """Its items, for messages; units of the same name share one count of workers that died on them."""
        ...

    def coming(self, work: Any) -> None:
        """Start what can run while the previous unit is still being done, such as reading images."""
        ...

    def do(self, work: Any) -> Result:
        """Do the work with an Evaluation or a Certification, and return the result."""
        ...

    def alone(self) -> Sequence[Unit]:
        """Split into one unit per item; empty where there is only one item."""
        ...

    def failed(self, why: str) -> Result:
        """Return the result to record when no worker can do the unit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The loaded models of a worker, and where its work stores images."""

    model: Waist
    surrogates: Mapping[str, Waist]
    keep: Store


class Work(Protocol):
    """The work of a run: an Evaluation or a Certification."""

    model: Waist
    batch: int


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that a worker needs to start, in any process. Can be pickled.

    Args:
        model: the evaluated model.
        surrogates: the models that transfer attacks search, by name.
        make: builds the work from loaded models.
        first: an item of the run, for the example prompt in the model's description.
    """

    model: Loading
    make: Callable[[Loaded], Work]
    first: Item
    surrogates: Mapping[str, Loading] = field(default_factory=dict)

    @property
    def identity(self) -> Json:
        """Hashes of all models' files by model name; computing them reads the files once."""
        sources = [loading.source for loading in (self.model, *self.surrogates.values())]
        return {source.name: source.identity for source in sources}


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker's report once its model is loaded and checked."""

    model: Mapping[str, object]
    """The model's description, for run.json."""
    checks: Sequence[Mapping[str, object]]
    device: str
    batch: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The result of a unit."""

    result: Result
    kept: Sequence[tuple[object, ...]]
    """Arguments of the calls of `Store` to make."""
    forwards: int
    """Images that have passed through the worker's model so far."""


class BrokenDeviceError(RunError):
    """The device failed, as after an illegal access: everything that this process computes from then on would fail."""


class Host:
    """Loads the models, and does one unit at a time.

    Raises:
        CheckpointError: the model, or a surrogate, cannot be loaded or fails a check.
    """

    def __init__(self, setup: Setup) -> None:
        self._kept: list[tuple[object, ...]] = []
        loaded, checks = setup.model()
        surrogates = {name: loading()[0] for name, loading in setup.surrogates.items()}
        self._work = setup.make(Loaded(model=loaded, surrogates=surrogates, keep=self._keep))
        self.model = self._work.model
        self.ready = Ready(
            model=self.model.describe(setup.first.question),
            checks=[asdict(check) for check in checks],
            device=self.model.device_name,
            batch=self._work.batch,
        )

    def do(self, unit: Unit, following: Unit | None = None) -> Reply:
        """Do a unit, and start what can be started of the one that follows.

        Raises:
            BrokenDeviceError: the device failed; the result of the unit is discarded.
        """
        self._kept.clear()
        for started in filter(None, (unit, following)):
            started.coming(self._work)
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
                    f"the device failed on {unit.name} and is unusable: {' '.join(str(error).split())[:200]}; what "
                    "was done before is safe, and the same command goes on; if the item fails again, --ray local "
                    "records it as failed"
                ) from None

    def _keep(self, *what: object) -> None:
        import torch

        # Clone a row of a batch: pickling a view would send the whole batch.
        self._kept.append(tuple(x.cpu().clone() if isinstance(x, torch.Tensor) else x for x in what))


class Team(Protocol):
    """The workers that do the units of a run."""

    @property
    def ready(self) -> Ready:
        """The report of the first worker that was ready."""
        ...

    @property
    def about(self) -> Mapping[str, object]:
        """A description of the workers, for run.json."""
        ...

    @property
    def forwards(self) -> int:
        """Images that have passed through their models so far."""
        ...

    @property
    def note(self) -> str:
        """A short description for the progress bar, such as "3 workers"; "" for this process alone."""
        ...

    def do(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Any]]:
        """Yield each unit with its result, in the order of completion, after storing its images."""
        ...


class Alone:
    """Does the units one by one with the model in this process."""

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
