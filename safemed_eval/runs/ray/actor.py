"""The Ray actor that runs in a worker's process; `crew.py` is its counterpart in the main process."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from safemed_eval.errors import RunError, UserError
from safemed_eval.runs.folder import differences
from safemed_eval.runs.provenance import code_sha256
from safemed_eval.runs.workers import BrokenDeviceError, Host

if TYPE_CHECKING:
    from safemed_eval.runs.workers import Ready, Reply, Setup, Unit


class Actor:
    """A worker: loads one model, and does its units one after the other."""

    def where(self) -> tuple[str, str, str]:
        """Return the name of the machine, Ray's id of the node, and the hash of the code there."""
        import ray

        return platform.node(), ray.get_runtime_context().get_node_id(), code_sha256()

    def load(
        self, setup: Setup, folder: str, identity: Mapping[str, object] | None
    ) -> tuple[Ready | UserError, list[str]]:
        """Load and check the model.

        Args:
            folder: working directory of the main process, for relative paths; it may not exist here.
            identity: hashes of the models' files to compare the files here with; None: no comparison.
        Returns:
            The worker's report or its error, and the lines that the package has logged.
        """
        from safemed_eval.data import pixels_of

        self._notes = _Notes()
        try:
            with suppress(OSError):
                os.chdir(folder)
            pixels_of(setup.first)
            if identity is not None and (other := differences(identity, setup.identity)):
                raise RunError(f"other models are here: {'; '.join(other)}")
            self._host = Host(setup)
        except UserError as error:
            return error, self._notes.taken()
        return self._host.ready, self._notes.taken()

    def do(self, unit: Unit) -> tuple[Reply | UserError, list[str]]:
        """Do a unit; return its result or its error, and the lines that the package has logged."""
        try:
            reply: Reply | UserError = self._host.do(unit)
        except BrokenDeviceError:
            os._exit(1)  # another worker takes its place
        except UserError as error:
            reply = error
        return reply, self._notes.taken()


class _Notes(logging.Handler):
    """Collects the package's log lines in a worker, to show them to the user."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        logging.getLogger("safemed_eval").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def taken(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self._lines = self._lines, []
        return lines
