"""The questions in their order, as a state machine without a terminal: replies so far in, the next question out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from luma_cli.cli.guided.licence import DEMANDS, LABELS
from luma_cli.cli.guided.limit import LIMITS
from luma_cli.cli.guided.place import Place
from luma_cli.cli.guided.question import Choice, Question

Topic = Literal["dataset", "device", "limit", "amount", "licence"]
NO_DEVICE = "none"
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answers:
    """All that was replied.

    device: empty for none. budgets: as `--budget` takes them. licences: that will do, empty for any. axis: of the
    front, as `luma front --x` takes it: what the first budget limits.
    """

    dataset: str
    device: str
    budgets: tuple[str, ...]
    licences: tuple[str, ...] = ()
    axis: str = "gflops"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Replies so far, each with what it was about, in the order in which they were given."""

    place: Place
    replies: tuple[tuple[Topic, str], ...] = ()

    @property
    def topic(self) -> Topic | None:
        """What is asked next, None when all is said."""
        if not self.replies:
            return "dataset"
        last, value = self.replies[-1]
        if last == "dataset":
            return "device"
        if last in ("device", "amount"):
            return "limit" if self._open_limits() else "licence"
        if last == "limit":
            return "licence" if value == NOTHING else "amount"
        return None

    def replied(self, reply: str) -> Dialogue:
        """With the reply to the next question. An amount is kept as `--budget` takes it; raises BadBudget."""
        topic = self.topic
        if topic is None:
            raise ValueError("every question was answered")
        value = LIMITS[self._last("limit")].budget(reply) if topic == "amount" else reply
        return replace(self, replies=(*self.replies, (topic, value)))

    def back(self) -> Dialogue:
        """One question back; the first question stays."""
        return replace(self, replies=self.replies[:-1])

    def before_limits(self) -> Dialogue:
        """Back to the first question about limits, or one back where nothing was limited."""
        topics = [topic for topic, _ in self.replies]
        if "amount" not in topics:
            return self.back()
        return replace(self, replies=self.replies[: topics.index("limit")])

    def question(self) -> Question | None:
        """The next question, None when all is said."""
        topic = self.topic
        if topic is None:
            return None
        ask = {
            "dataset": self._dataset,
            "device": self._device,
            "limit": self._limit,
            "amount": self._amount,
            "licence": self._licence,
        }
        return ask[topic]()

    def answers(self) -> Answers:
        """What was replied, once all was."""
        if self.topic is not None:
            raise ValueError(f"{self.topic} was not answered")
        device = self._last("device")
        return Answers(
            dataset=self._last("dataset"),
            device="" if device == NO_DEVICE else device,
            budgets=tuple(value for topic, value in self.replies if topic == "amount"),
            licences=DEMANDS[self._last("licence")],
            axis=next(
                (LIMITS[key].axis for topic, key in self.replies if topic == "limit" and key in LIMITS), "gflops"
            ),
        )

    def _last(self, topic: Topic) -> str:
        return next(value for about, value in reversed(self.replies) if about == topic)

    def _open_limits(self) -> list[str]:
        """Limits that were not set yet and that mean something on the device."""
        taken = {value for topic, value in self.replies if topic == "limit"}
        has_device = self._last("device") != NO_DEVICE
        return [key for key, each in LIMITS.items() if key not in taken and (has_device or not each.on_device)]

    def _dataset(self) -> Question:
        choices = tuple(Choice(name, f"{name} ({classes} classes)") for name, classes in self.place.datasets)
        return Question("Which dataset is most like yours?", choices, has_back=False)

    def _device(self) -> Question:
        none = Choice(NO_DEVICE, "none: GFLOPs and parameters only")
        named = [Choice(each.name, f"{each.name} ({each.note})") for each in self.place.devices]
        has_gpu = any(each.local.startswith("cuda") for each in self.place.devices)
        return Question("On which device?", (*named, none) if has_gpu else (none, *named))

    def _limit(self) -> Question:
        is_first = self.replies[-1][0] == "device"
        text = "What limits you most?" if is_first else "What else limits you?"
        nothing = Choice(NOTHING, "nothing" if is_first else "nothing else")
        limits = tuple(Choice(key, LIMITS[key].label) for key in self._open_limits())
        return Question(text, (*limits, nothing) if is_first else (nothing, *limits))

    def _amount(self) -> Question:
        limit = LIMITS[self._last("limit")]
        return Question(f"How much, for example {limit.example}?", problem=limit.problem)

    def _licence(self) -> Question:
        choices = tuple(Choice(demand, LABELS[demand]) for demand in DEMANDS)
        return Question("Which licence?", choices)
