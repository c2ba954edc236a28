"""Questions asked on a terminal by questionary: lists that filter as one types, with back and quit everywhere."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from luma_cli.cli.guided.dialogue import GuidedQuestion, Move, Reply

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings
    from questionary.question import Question

MISSING = (
    "guided mode needs questionary, which is not installed; pip install questionary, "
    "or ask directly: luma recommend --budget 200gflops"
)
_LABELS = {Move.back: "back (Esc)", Move.quit: "quit (Ctrl-D)"}


def can_ask(
    stdin: TextIO | None = None, stdout: TextIO | None = None, variables: Mapping[str, str] = os.environ
) -> bool:
    """Whether both streams are terminals that can be drawn on, outside a CI job."""
    is_ci = variables.get("CI", "").lower() not in {"", "0", "false", "no"}
    if is_ci or variables.get("TERM", "").lower() in {"", "dumb", "unknown"}:
        return False
    try:
        return all(stream is not None and stream.isatty() for stream in (stdin or sys.stdin, stdout or sys.stdout))
    except ValueError:  # closed
        return False


def is_installed() -> bool:
    """Whether questionary is installed."""
    return importlib.util.find_spec("questionary") is not None


def ask(question: GuidedQuestion) -> Reply:
    """The reply to the question. Raises KeyboardInterrupt on Ctrl-C; the terminal is restored in every case."""
    prompt = _list(question) if question.choices else _text(question)
    try:
        reply: Reply = prompt.unsafe_ask()
    except EOFError:  # the terminal has gone
        return Move.quit
    return (question.move(reply) or reply) if isinstance(reply, str) and not question.choices else reply


def _list(question: GuidedQuestion) -> Question:
    import questionary
    from prompt_toolkit.filters import Condition
    from questionary.prompts.common import InquirerControl

    choices = [questionary.Choice(label, value) for value, label in question.choices]
    choices += [questionary.Choice(_LABELS[move], move) for move in question.moves()]
    prompt = questionary.select(
        question.text,
        choices=choices,
        pointer=">",
        use_search_filter=True,
        use_jk_keys=False,
        instruction="(arrows, or type to filter; Enter)",
    )
    lists = (window.content for window in prompt.application.layout.find_all_windows())
    shown: Any = next(each for each in lists if isinstance(each, InquirerControl))
    keys = _add_keys(prompt, question)

    def matches_nothing() -> bool:
        typed = (shown.search_filter or "").lower()
        return bool(typed) and not any(typed in choice.title.lower() for choice in shown.choices)

    # questionary shows the whole list when the filter matches nothing; Enter must not take its first entry then.
    @keys.add("enter", eager=True, filter=Condition(matches_nothing))
    def _ignored(event: Any) -> None:
        event.app.output.bell()

    return prompt


def _text(question: GuidedQuestion) -> Question:
    import questionary

    prompt = questionary.text(
        question.text,
        default=question.default,
        validate=lambda typed: question.move(typed) is not None or question.problem(typed) or True,
        instruction=f"({', '.join(repr(move.value) for move in question.moves())})",
        validate_while_typing=False,
    )
    _add_keys(prompt, question)
    return prompt


def _add_keys(prompt: Question, question: GuidedQuestion) -> KeyBindings:
    """Bind Esc and Ctrl-D; the bindings, to which more can be added."""
    from prompt_toolkit.key_binding import KeyBindings, merge_key_bindings

    keys = KeyBindings()

    @keys.add("c-d", eager=True)
    def _quit(event: Any) -> None:
        event.app.exit(result=Move.quit)

    @keys.add("escape", eager=True)
    def _back(event: Any) -> None:
        if question.has_back:
            event.app.erase_when_done = True
            event.app.exit(result=Move.back)

    application = prompt.application
    application.key_bindings = merge_key_bindings([application.key_bindings or keys, keys])
    return keys
