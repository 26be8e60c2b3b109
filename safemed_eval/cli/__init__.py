"""The command line, with one small module per command; heavy imports are inside the commands."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from safemed_eval.cli import certify, compare, data, demo, evaluate, models, plan, report, train
from safemed_eval.errors import UserError, shortened
from safemed_eval.text import on_one_line, visible
from safemed_eval.version import __version__

_LONGEST_LINE = 1000
"""Longest line of an error message, in characters."""

app = typer.Typer(
    name="safemed-eval",
    help="How robust is a medical vision-language model? Accuracy under attack and certified radii, broken down by "
    "imaging modality and question type. Not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": str.lower},
)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("certify", epilog=certify.EXAMPLE)(certify.certify)
app.command("plan", epilog=plan.EXAMPLE)(plan.plan)
app.command("report", epilog=report.EXAMPLE)(report.report)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("demo")(demo.demo)
app.add_typer(train.app, name="train")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _log_to_stderr()


def main() -> NoReturn:
    """Run the command line. An error that the user can fix is one line on stderr, exit code 2; others keep traces."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", module=r"PIL\.|pydicom\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _refuse(str(error))
    except OSError as error:  # not a bug: a full disk, a path that is too long, a closed pipe
        where = f" {error.filename}" if error.filename else ""
        _refuse(f"{error.strerror or error}{where}")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
            sys.exit(2)
        _refuse(_usage(error))  # an error of typer: an option is unknown, missing or of the wrong type
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    """Print the message on stderr, one line or a line with a list below it, and exit with 2."""
    lines = "\n".join(shortened(line, _LONGEST_LINE) for line in visible(message).split("\n"))
    typer.echo(f"error: {lines}", err=True)
    sys.exit(2)


def _usage(error: Any) -> str:
    """Format an error of typer, with a hint to --help."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "safemed-eval"
    message = error.format_message().replace(": Value error, ", ": ")  # which typer 0.29 takes over from pydantic
    return f"{on_one_line(message.rstrip('.'))}; `{command} --help` explains the options"


def _log_to_stderr() -> None:
    """Show the package's log messages on stderr, warnings with the prefix "warning: "."""
    log = logging.getLogger("safemed_eval")
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())
        log.setLevel(logging.INFO)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        word = "warning: " if record.levelno >= logging.WARNING else ""
        typer.echo(visible(f"{word}{record.getMessage()}"), err=True)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM like Ctrl-C: the run ends cleanly and can be resumed."""
    raise KeyboardInterrupt
