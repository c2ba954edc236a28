"""The questions of guided mode, as values without a terminal: what is asked, what may be replied, what comes next.

Licences: the DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/) and the NVIDIA Open
Model License (https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/) allow commercial
use under terms of their own. Those named as research or doubtful are for research alone, or leave it in doubt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from luma_cli.errors import BadBudget, StoreError
from luma_cli.units import BudgetKind, parse_budget

PERMISSIVE = ("apache-2.0", "mit")
OWN_TERMS = ("dinov3-license", "nvidia-open-model-license")
RESEARCH_OR_DOUBTFUL = ("apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "fastvit-license")
# What is asked for -> the licences that will do, empty for any; and how a list shows it.
DEMANDS: Mapping[str, tuple[str, ...]] = {
    "any": (),
    "commercial": (*PERMISSIVE, *OWN_TERMS),
    "permissive": PERMISSIVE,
}
LABELS: Mapping[str, str] = {
    "any": "any licence",
    "commercial": "commercial use allowed, also by own terms (DINOv3, NVIDIA)",
    "permissive": f"{' or '.join(PERMISSIVE)} only",
}
NO_DEVICE = "none"
NOTHING = "nothing"
_BARE_NUMBER = re.compile(r"[0-9.]+")

Topic = Literal["dataset", "device", "limit", "amount", "licence"]


class Move(Enum):
    """What can be replied to every question instead of an answer."""

    back = "back"
    quit = "quit"


Reply = str | Move


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
    problem: Callable[[str], str] = lambda typed: ""
    default: str = ""
    has_back: bool = True

    def moves(self) -> tuple[Move, ...]:
        """The moves that are open here."""
        return (Move.back, Move.quit) if self.has_back else (Move.quit,)

    def move(self, typed: str) -> Move | None:
        """The move that a typed word stands for, None for an answer."""
        word = typed.strip().lower()
        return next((move for move in self.moves() if move.value == word), None)


@dataclass(frozen=True, slots=True)
class Limit:
    """What can bind.

    label: as a list shows it. quantity: as a sentence names it. kinds: of the budgets that state it. unit: of a bare
    number. example: a usual amount. axis: of `luma front --x`. on_device: whether it means nothing without a device.
    """

    label: str
    quantity: str
    kinds: tuple[BudgetKind, ...]
    unit: str
    example: str
    axis: str
    on_device: bool = True

    def budget(self, typed: str) -> str:
        """The budget, as `--budget` takes it. Raises BadBudget with an example.

        >>> LIMITS["compute"].budget("200"), LIMITS["time"].budget("30 fps")
        ('200gflops', '30fps')
        """
        text = "".join(typed.split())
        text += self.unit if _BARE_NUMBER.fullmatch(text) else ""
        try:
            is_ours = parse_budget(text).kind in self.kinds
        except BadBudget:
            is_ours = False
        if not is_ours:
            raise BadBudget(f"{typed.strip()!r} is no limit on {self.quantity}; try {self.example}")
        return text

    def problem(self, typed: str) -> str:
        """What is wrong with the typed amount, or ""."""
        try:
            self.budget(typed)
        except BadBudget as error:
            return str(error)
        return ""


_TIME = "time per image (ms), or frames per second"
_RATE = "images per second, many at once"
LIMITS: Mapping[str, Limit] = {
    "compute": Limit("GFLOPs of one image", "GFLOPs", ("macs",), "gflops", "200gflops", "gflops", on_device=False),
    "time": Limit(_TIME, "time", ("ms", "fps"), "ms", "20ms or 50fps", "latency"),
    "throughput": Limit(_RATE, "throughput", ("images_per_second",), "img/s", "500img/s", "throughput"),
    "memory": Limit("memory (GiB)", "memory", ("bytes",), "GiB", "8GiB", "memory"),
    "params": Limit(
        "parameters (millions)", "parameters", ("params",), "Mparams", "100Mparams", "params", on_device=False
    ),
    "energy": Limit("energy per image (J)", "energy", ("joules",), "J", "2J", "energy"),
}


@dataclass(frozen=True, slots=True)
class DeviceHere:
    """A device that costs are asked for.

    name: as the store and `luma recommend --device` spell it. note: how it is known. local: what `luma profile
    --device` calls it, empty where it is not in this machine.
    """

    name: str
    note: str
    local: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """datasets: name and number of classes. devices: detected ones first."""

    datasets: tuple[tuple[str, int], ...]
    devices: tuple[DeviceHere, ...] = ()

    def local(self, device: str) -> str:
        """What this machine calls the device; empty when it is elsewhere."""
        return next((each.local for each in self.devices if each.name == device), "")


def find_place() -> Place:
    """The datasets with evidence; the GPUs and the CPU here, then devices of the store and of timm's shipped table.

    Imports no torch and uses no network.
    """
    from luma_cli.advise.candidates import NUM_CLASSES
    from luma_cli.speed.reference import load_table

    shipped = [DeviceHere(each.device_name, "timm's speeds") for each in load_table().settings]
    first: dict[str, DeviceHere] = {}
    for each in (*gpus_here(), cpu_here(), *measured_before(), *shipped):
        first.setdefault(each.name, each)
    return Place(tuple(NUM_CLASSES.items()), tuple(first.values()))


def gpus_here(variables: Mapping[str, str] = os.environ) -> list[DeviceHere]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by the name that measurements carry; none without a driver."""
    from luma_cli.measure.devices import visible
    from luma_cli.measure.nvml import NvmlMissing, load_nvml

    try:
        nvml = load_nvml()
        names = [nvml.open(uuid).name() for uuid in visible(nvml.uuids(), variables)]
    except NvmlMissing:
        return []
    return [DeviceHere(name, "GPU here", f"cuda:{index}") for index, name in enumerate(names)]


def cpu_here() -> DeviceHere:
    """The CPU of this machine."""
    from luma_cli.measure.devices import cpu_name

    return DeviceHere(cpu_name(), "CPU here", "cpu")


def measured_before() -> Iterable[DeviceHere]:
    """Devices that the store knows; none where it cannot be read, which the answer will say."""
    from luma_cli.store.database import open_read
    from luma_cli.store.profiles import device_names

    try:
        connection = open_read()
        if connection is None:
            return []
        with closing(connection):
            return [DeviceHere(name, "measured before") for name in device_names(connection)]
    except StoreError:
        return []


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
        match self.topic:
            case "dataset":
                choices = [Choice(name, f"{name} ({classes} classes)") for name, classes in self.place.datasets]
                return Question("Which dataset is most like yours?", tuple(choices), has_back=False)
            case "device":
                none = [Choice(NO_DEVICE, "none: GFLOPs and parameters only")]
                named = [Choice(each.name, f"{each.name} ({each.note})") for each in self.place.devices]
                has_gpu = any(each.local.startswith("cuda") for each in self.place.devices)
                return Question("On which device?", tuple(named + none if has_gpu else none + named))
            case "limit":
                limits = [Choice(key, LIMITS[key].label) for key in self._open_limits()]
                if self.replies[-1][0] == "device":
                    return Question("What limits you most?", (*limits, Choice(NOTHING, "nothing")))
                return Question("What else limits you?", (Choice(NOTHING, "nothing else"), *limits))
            case "amount":
                limit = LIMITS[self._last("limit")]
                return Question(f"How much, for example {limit.example}?", problem=limit.problem)
            case "licence":
                return Question("Which licence?", tuple(Choice(*each) for each in LABELS.items()))
            case None:
                return None

    def answers(self) -> Answers:
        """What was replied, once all was."""
        if self.topic is not None:
            raise ValueError(f"{self.topic} was not answered")
        device = self._last("device")
        limits = [LIMITS[key].axis for topic, key in self.replies if topic == "limit" and key in LIMITS]
        return Answers(
            dataset=self._last("dataset"),
            device="" if device == NO_DEVICE else device,
            budgets=tuple(value for topic, value in self.replies if topic == "amount"),
            licences=DEMANDS[self._last("licence")],
            axis=limits[0] if limits else "gflops",
        )

    def _last(self, topic: Topic) -> str:
        return next(value for about, value in reversed(self.replies) if about == topic)

    def _open_limits(self) -> list[str]:
        """Limits that were not set yet and that mean something on the device."""
        taken = {value for topic, value in self.replies if topic == "limit"}
        has_device = self._last("device") != NO_DEVICE
        return [key for key, each in LIMITS.items() if key not in taken and (has_device or not each.on_device)]
