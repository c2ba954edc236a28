"""The `luma` command: its sub-commands, and one place where every failure becomes one line and an exit code."""

from __future__ import annotations

import copy
import os
import signal
import sys
import warnings
from contextlib import suppress
from errno import ENOSPC
from types import FrameType
from typing import Annotated

import typer

from luma_cli.cli import (
    cost,
    data,
    db,
    doctor,
    estimate,
    eval_,
    evidence,
    export,
    findings,
    front,
    list_,
    next_,
    plot,
    predict,
    profile,
    recommend,
    runs,
    scaling,
    show,
    train,
)
from luma_cli.cli.command import ManyValued
from luma_cli.cli.garbage import uncollected
from luma_cli.errors import LumaError
from luma_cli.version import __version__

app = typer.Typer(
    name="luma",
    help="Which backbone, which pretraining, which resolution? Evidence for segmentation.",
    epilog="Start with: luma cost convnext_b --res 512 1024    luma recommend --budget 200gflops",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_.list_backbones)
app.command("show")(show.show)
app.command("cost", cls=ManyValued)(cost.cost)
app.command("profile", cls=ManyValued)(profile.profile)
app.command("recommend", cls=ManyValued)(recommend.recommend)
app.command("estimate")(estimate.estimate)
app.command("front", cls=ManyValued)(front.front)
app.command("next", cls=ManyValued)(next_.next_)
app.command("findings")(findings.findings)
app.command("scaling")(scaling.scaling)
app.add_typer(plot.app, name="plot")
app.command("doctor", cls=ManyValued)(doctor.doctor)
app.command("train")(train.train)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.command("eval")(eval_.evaluate_run)
app.command("predict")(predict.predict)
app.command("export")(export.export_run)
app.add_typer(evidence.app, name="evidence")
app.add_typer(db.app, name="db")

_INTERRUPTED = 130
_STOPPED = "stopped by Ctrl-C; what was finished is kept"
_NAMES_BACKBONES = frozenset(
    {"list", "show", "cost", "profile", "recommend", "estimate", "front", "next", "scaling", "plot", "findings"}
    | {"doctor", "train"}
)
_ADVISES = frozenset({"estimate", "front", "next", "findings", "scaling"})


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"luma {__version__}")
        raise typer.Exit


@app.callback()
def luma(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Which backbone, which pretraining, which resolution? Evidence for segmentation."""
    if context.invoked_subcommand is None:
        _start(context)
    elif context.invoked_subcommand in _NAMES_BACKBONES:
        _announce_index()
    if context.invoked_subcommand in _ADVISES:
        context.with_resource(uncollected())


def _start(context: typer.Context) -> None:
    """`luma` alone: questions on a terminal, the help anywhere else."""
    from luma_cli.cli.guided import terminal

    if not terminal.can_ask():
        typer.echo(context.get_help())
    elif not terminal.is_installed():
        typer.echo(context.get_help())
        print(f"luma: {terminal.MISSING}", file=sys.stderr)
    else:
        from luma_cli.cli.guided.session import guide

        _announce_index()
        raise typer.Exit(guide())


def _announce_index() -> None:
    from luma_cli.catalogue.timm_index import is_current

    if not is_current():
        print("luma: indexing the installed timm, once, about 10 s", file=sys.stderr)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _one_line(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    return " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".") + hint


def with_only(name: str) -> typer.Typer:
    """The program with that command alone, the whole one where there is none of the name.

    Typer reads the signatures of all commands before it runs one, which takes 35 ms.
    """
    small = copy.copy(app)
    small.registered_commands = [each for each in app.registered_commands if each.name == name]
    small.registered_groups = [each for each in app.registered_groups if each.name == name]
    return small if small.registered_commands or small.registered_groups else app


def run(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own); return the exit code.

    0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 SIGTERM. `LUMA_DEBUG=1` shows the traceback of a failure.
    """
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = with_only(given[0] if given else "")(given, prog_name="luma", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _fail(_one_line(error), error.exit_code)
    except LumaError as error:
        if os.environ.get("LUMA_DEBUG") == "1":
            raise
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_STOPPED, _INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has gone (`luma list | head`): nothing to say, and nothing more to flush.
        _discard_stdout()
        return 1
    except Exception as error:
        if os.environ.get("LUMA_DEBUG") == "1":
            raise
        if isinstance(error, OSError) and error.errno == ENOSPC:
            return _fail(f"no space left on the device{_where(error)}; free some and run this again", 1)
        return _fail(f"unexpected {type(error).__name__}: {_first_line(error)}; LUMA_DEBUG=1 shows where", 1)
    if code == _INTERRUPTED:
        # Typer turns Ctrl-C into an exit code of its own accord.
        return _fail(_STOPPED, _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _where(error: OSError) -> str:
    return f" of {error.filename}" if error.filename else " that the output goes to"


def _fail(message: str, code: int) -> int:
    with suppress(BrokenPipeError):
        print(f"luma: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    return code


def _discard_stdout() -> None:
    """Nobody takes the rest of the output: nothing more is to be flushed at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"luma: {message}", file=sys.stderr)


def main() -> None:
    """Entry point of the `luma` script."""
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _warn
    sys.exit(run())
