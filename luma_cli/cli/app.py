"""The `luma` command: its sub-commands, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import codecs
import os
import signal
import sys
import warnings
from contextlib import suppress
from errno import ENOSPC
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, cast

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
    "compare": "advise:compare",
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
_MANY_VALUED = frozenset({"cost", "profile", "recommend", "compare", "front", "next", "doctor"})
_INTERRUPTED = 130
_LONGEST_NAME = 200
_ESCAPED = "luma-escaped"
_STOPPED = "stopped by Ctrl-C; what was finished is kept"
_LONGEST_WORD = 500  # characters, more than a path in use has
_NAMES_BACKBONES = frozenset(
    {
        "list",
        "show",
        "cost",
        "profile",
        "recommend",
        "compare",
        "estimate",
        "front",
        "next",
        "scaling",
        "plot",
        "findings",
    }
    | {"doctor", "train"}
)
_ADVISES = frozenset({"compare", "estimate", "front", "next", "findings", "scaling"})


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
        print(f"luma {__version__}")
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
    print(context.get_help())
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
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_shortened(os.fsdecode(error.filename))}: {error.strerror}; name another file or folder"
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of Path.expanduser
        return "a path begins with ~, and that user's home folder is not known; write the path out, from / on"
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"unexpected {type(error).__name__}: {first}; LUMA_DEBUG=1 shows where"


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"


def _fail(message: str, code: int) -> int:
    """Print the message, of which words that no line can hold lose their middle."""
    words = (word if len(word) <= _LONGEST_WORD else f"{word[:60]}...{word[-30:]}" for word in message.split(" "))
    with suppress(BrokenPipeError):
        print(f"luma: {' '.join(words)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    return code


def _discard_stdout() -> None:
    # Python flushes stdout at its end, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Make what was closed the null device, and what an encoding lacks an escape sequence.

    With a standard stream closed, the next file that is opened gets its number, and what is printed goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors=_ESCAPED)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """A character that cannot be written: the byte of a file's name that it stands for, else an escape sequence."""
    failed = cast(UnicodeEncodeError, error)
    each = failed.object[failed.start]
    byte = ord(each) - 0xDC00  # https://peps.python.org/pep-0383
    return (bytes([byte]) if 0x80 <= byte <= 0xFF else ascii(each)[1:-1]), failed.start + 1


codecs.register_error(_ESCAPED, _escape)


def main() -> None:
    """Entry point of the `luma` script."""

    def terminated(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    _open_streams()
    signal.signal(signal.SIGTERM, terminated)
    warnings.showwarning = lambda message, *_, **__: print(f"luma: {message}", file=sys.stderr)
    sys.exit(run())
