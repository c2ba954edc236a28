"""A question as a value: what is asked, what may be chosen or typed. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Move(Enum):
    """What can be replied to every question instead of an answer."""

    back = "back"
    quit = "quit"


Reply = str | Move


def anything(typed: str) -> str:
    """Accepts every text."""
    return ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a list: the value that is replied, and the line that is shown and filtered by."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Question:
    """choices: the list to choose from; empty where text is typed.

    problem: of typed text, what is wrong with it in one line, or "". default: text that stands there already.
    has_back: whether there is something to go back to.
    """

    text: str
    choices: tuple[Choice, ...] = ()
    problem: Callable[[str], str] = anything
    default: str = ""
    has_back: bool = True

    def moves(self) -> tuple[Move, ...]:
        """The moves that are open here."""
        return (Move.back, Move.quit) if self.has_back else (Move.quit,)

    def move(self, typed: str) -> Move | None:
        """The move that a typed word stands for, None for an answer."""
        word = typed.strip().lower()
        return next((move for move in self.moves() if move.value == word), None)
