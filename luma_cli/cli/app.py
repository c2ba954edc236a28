"""The `luma` command: its sub-commands, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from errno import ENOSPC
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from luma_cli.cli.options import ManyValued, uncollected
from luma_cli.errors import LumaError
from luma_cli.version import __version__

# Command -> module and its function, or its Typer where it has sub-commands, in the order of the help.
_COMMANDS = {
    "list": "catalogue:list_backbones",
    "show": "catalogue:show",
    "cost": "measure:cost",
    "profile": "measure:profile",
    "recommend": "advise:recommend",
    "estimate": "advise:estimate",
    "front": "advise:front",
    "next": "advise:next_",
    "findings": "learn:findings",
    "scaling": "learn:scaling",
    "doctor": "catalogue:doctor",
    "train": "train:train",
    "eval": "runs:evaluate_run",
    "predict": "runs:predict",
    "export": "runs:export_run",
    "import": "runs:import_run",
    "plot": "learn:plot",
    "data": "data:app",
    "runs": "runs:app",
    "evidence": "evidence:app",
    "db": "db:app",
}
_MANY_VALUED = frozenset({"cost", "profile", "recommend", "front", "next", "doctor"})
_INTERRUPTED = 130
_STOPPED = "stopped by Ctrl-C; what was finished is kept"
_NAMES_BACKBONES = frozenset(
    {"list", "show", "cost", "profile", "recommend", "estimate", "front", "next", "scaling", "plot", "findings"}
    | {"doctor", "train"}
)
_ADVISES = frozenset({"estimate", "front", "next", "findings", "scaling"})


class Lazy(TyperGroup):
    """The commands of luma, each imported when it is asked for: `luma list` must not wait for torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None where there is none."""
        if cmd_name not in _COMMANDS:
            # Typer suggests a name from the loaded commands only.
            self.commands = {name: self.get_command(ctx, name) for name in _COMMANDS}
            return None
        if cmd_name not in self.commands:
            module, _, attribute = _COMMANDS[cmd_name].partition(":")
            found = getattr(import_module(f"luma_cli.cli.{module}"), attribute)
            if not isinstance(found, typer.Typer):
                callback, found = found, typer.Typer(add_completion=False)
                found.command(cls=ManyValued if cmd_name in _MANY_VALUED else None)(callback)
            command = typer.main.get_command(found)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]


app = typer.Typer(
    name="luma",
    cls=Lazy,
    help="Choose a backbone, its pretraining and its resolution for segmentation, from evidence.",
    epilog="Start with: luma recommend --budget 200gflops    luma cost convnext_b --res 512 1024",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Choose a backbone, its pretraining and its resolution for segmentation, from evidence."""
    if context.invoked_subcommand is None:
        _start(context)
    elif context.invoked_subcommand in _NAMES_BACKBONES:
        _announce_index()
    if context.invoked_subcommand in _ADVISES:
        context.with_resource(uncollected())


def _start(context: typer.Context) -> None:
    """`luma` alone: guided mode on a terminal, the help anywhere else."""
    from luma_cli.cli.guided import prompt

    if prompt.can_ask() and prompt.is_installed():
        from luma_cli.cli.guided.session import guide

        _announce_index()
        raise typer.Exit(guide())
    typer.echo(context.get_help())
    if prompt.can_ask():
        print(f"luma: {prompt.MISSING}", file=sys.stderr)


def _announce_index() -> None:
    from luma_cli.catalogue.timm_index import is_current

    if not is_current():
        print("luma: indexing the installed timm, once, about 10 s", file=sys.stderr)


def _one_line(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    return " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".") + hint


def run(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own); return the exit code.

    0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 SIGTERM. `LUMA_DEBUG=1` shows the traceback of a failure.
    """
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(given, prog_name="luma", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _fail(_one_line(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_STOPPED, _INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has gone (`luma list | head`), which is no failure to report.
        _discard_stdout()
        return 1
    except Exception as error:
        if os.environ.get("LUMA_DEBUG") == "1":
            raise
        return _fail(_said(error), error.exit_code if isinstance(error, LumaError) else 1)
    if code == _INTERRUPTED:
        # Typer itself turns Ctrl-C into an exit code.
        return _fail(_STOPPED, _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _said(error: Exception) -> str:
    """A failure in one line."""
    if isinstance(error, LumaError):
        return str(error)
    if isinstance(error, OSError) and error.errno == ENOSPC:
        where = f" of {error.filename}" if error.filename else " that the output goes to"
        return f"no space left on the device{where}; free some and run this again"
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"unexpected {type(error).__name__}: {first}; LUMA_DEBUG=1 shows where"


def _fail(message: str, code: int) -> int:
    with suppress(BrokenPipeError):
        print(f"luma: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    return code


def _discard_stdout() -> None:
    # Python flushes stdout at its end, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point of the `luma` script."""

    def terminated(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminated)
    warnings.showwarning = lambda message, *_, **__: print(f"luma: {message}", file=sys.stderr)
    sys.exit(run())
