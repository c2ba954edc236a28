"""The questions of guided mode as values, without a terminal: what is asked, what may be replied, what comes next."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from luma_cli.catalogue.licences import GROUPS, PERMISSIVE
from luma_cli.errors import BadBudget, StoreError
from luma_cli.units import BudgetKind, parse_budget

# Reply -> the licences that are accepted; empty: any.
DEMANDS: dict[str, tuple[str, ...]] = {"any": (), **GROUPS}
LABELS = {
    "any": "any licence",
    "commercial": "commercial use allowed, also under own terms (DINOv3, NVIDIA)",
    "permissive": f"{' or '.join(PERMISSIVE)} only",
}
NO_DEVICE = "none"
NOTHING = "nothing"


class Move(Enum):
    """What may be replied to every question instead of an answer."""

    back = "back"
    quit = "quit"


Reply = str | Move


@dataclass(frozen=True, slots=True)
class GuidedQuestion:
    """A question with a list of choices (value and label), or for a typed text where there are none.

    problem: what is wrong with a typed text, in one line, or "". has_back: False for the first question.
    """

    text: str
    choices: tuple[tuple[str, str], ...] = ()
    problem: Callable[[str], str] = lambda typed: ""
    default: str = ""
    has_back: bool = True

    def moves(self) -> tuple[Move, ...]:
        """The moves that are allowed here."""
        return (Move.back, Move.quit) if self.has_back else (Move.quit,)

    def move(self, typed: str) -> Move | None:
        """The move that a typed word means; None for an answer."""
        return next((move for move in self.moves() if move.value == typed.strip().lower()), None)


@dataclass(frozen=True, slots=True)
class Limit:
    """A quantity that the user may limit.

    unit: of a bare number. axis: of `luma front --x`. on_device: whether the quantity depends on the device.
    """

    label: str
    quantity: str
    kinds: tuple[BudgetKind, ...]
    unit: str
    example: str
    axis: str
    on_device: bool = True

    def budget(self, typed: str) -> str:
        """The amount as `--budget` takes it. Raises BadBudget with an example.

        >>> LIMITS["compute"].budget("200"), LIMITS["time"].budget("30 fps")
        ('200gflops', '30fps')
        """
        text = "".join(typed.split())
        text += self.unit if re.fullmatch(r"[0-9.]+", text) else ""
        if self.kinds == ("training_bytes",) and re.fullmatch(r"[0-9.]+[gm]i?b", text, re.IGNORECASE):
            text += "-train"
        try:
            if parse_budget(text).kind in self.kinds:
                return text
        except BadBudget:
            pass  # the message below names this limit and its units
        raise BadBudget(f"{typed.strip()!r} is not a limit on {self.quantity}; try {self.example}")

    def problem(self, typed: str) -> str:
        """What is wrong with the typed amount, or ""."""
        try:
            self.budget(typed)
        except BadBudget as error:
            return str(error)
        return ""


_TIME = "time of a crop (ms), or crops per second (fps)"
_RATE = "crops per second, in large batches"
LIMITS = {
    "compute": Limit("GFLOPs of one crop", "GFLOPs", ("macs",), "gflops", "200gflops", "gflops", on_device=False),
    "time": Limit(_TIME, "time", ("ms", "fps"), "ms", "20ms or 50fps", "latency"),
    "throughput": Limit(_RATE, "throughput", ("images_per_second",), "img/s", "500img/s", "throughput"),
    "memory": Limit("memory for inference (GiB)", "memory", ("bytes",), "GiB", "8GiB", "memory"),
    "training": Limit(
        "memory for training (GiB)", "training memory", ("training_bytes",), "GiB-train", "8GiB-train", "gflops", False
    ),
    "params": Limit("parameters (millions)", "parameters", ("params",), "Mparams", "100Mparams", "params", False),
    "energy": Limit("energy of a crop (J)", "energy", ("joules",), "J", "2J", "energy"),
}


@dataclass(frozen=True, slots=True)
class DeviceHere:
    """A device: its name in the store, how it is known, and what `luma profile --device` calls it if it is here."""

    name: str
    note: str
    local: str = ""


def local_name(device: str, devices: Sequence[DeviceHere]) -> str:
    """What this machine calls the device; empty when the device is elsewhere."""
    return next((each.local for each in devices if each.name == device), "")


def find_devices() -> tuple[DeviceHere, ...]:
    """The GPUs and the CPU here, then devices of the store and of timm's shipped table; each name once.

    Imports no torch and uses no network.
    """
    from luma_cli.speed.reference import load_table

    shipped = [DeviceHere(each.device_name, "timm's speeds") for each in load_table().settings]
    first: dict[str, DeviceHere] = {}
    for each in (*gpus_here(), cpu_here(), *measured_before(), *shipped):
        first.setdefault(each.name, each)
    return tuple(first.values())


def gpus_here(variables: Mapping[str, str] = os.environ) -> list[DeviceHere]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible; none without a driver."""
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
    """Devices in the store; none when it cannot be read, which the answer itself reports."""
    from luma_cli.store.database import reading
    from luma_cli.store.profiles import device_names

    try:
        with reading() as connection:
            return [DeviceHere(name, "measured before") for name in device_names(connection)]
    except StoreError:
        return []


@dataclass(frozen=True, slots=True)
class Answers:
    """All replies. Empty: no device, any licence. axis: of `luma front --x`, what the first budget limits."""

    dataset: str
    device: str
    budgets: tuple[str, ...]
    licences: tuple[str, ...] = ()
    axis: str = "gflops"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The replies so far, each with its topic: dataset, device, then (limit, amount) pairs, then licence."""

    devices: tuple[DeviceHere, ...]
    replies: tuple[tuple[str, str], ...] = ()

    @property
    def topic(self) -> str | None:
        """What is asked next; None at the end."""
        if not self.replies:
            return "dataset"
        last, value = self.replies[-1]
        if last in ("device", "amount"):
            return "limit" if self._open_limits() else "licence"
        if last == "limit":
            return "licence" if value == NOTHING else "amount"
        return "device" if last == "dataset" else None

    def replied(self, reply: str) -> Dialogue:
        """With the reply to the next question; an amount is kept as `--budget` takes it. Raises BadBudget."""
        topic = self.topic
        if topic is None:
            raise ValueError("every question was answered")
        value = LIMITS[self._last("limit")].budget(reply) if topic == "amount" else reply
        return replace(self, replies=(*self.replies, (topic, value)))

    def back(self) -> Dialogue:
        """One question back; the first question stays."""
        return replace(self, replies=self.replies[:-1])

    def before_limits(self) -> Dialogue:
        """Back to the first question about limits, or one question back where nothing was limited."""
        topics = [topic for topic, _ in self.replies]
        return replace(self, replies=self.replies[: topics.index("limit") if "amount" in topics else -1])

    def question(self) -> GuidedQuestion | None:
        """The next question; None at the end."""
        match self.topic:
            case "dataset":
                from luma_cli.advise.candidates import NUM_CLASSES

                choices = [(name, f"{name} ({classes} classes)") for name, classes in NUM_CLASSES.items()]
                return GuidedQuestion("Which dataset is most like yours?", tuple(choices), has_back=False)
            case "device":
                none = [(NO_DEVICE, "none: GFLOPs and parameters only")]
                named = [(each.name, f"{each.name} ({each.note})") for each in self.devices]
                # Enter takes the first entry: a GPU that is here, else no device, as the CPU is rarely the target.
                has_gpu = any(each.local.startswith("cuda") for each in self.devices)
                return GuidedQuestion("On which device?", tuple(named + none if has_gpu else none + named))
            case "limit":
                limits = [(key, LIMITS[key].label) for key in self._open_limits()]
                if self.replies[-1][0] == "device":
                    return GuidedQuestion("What limits you most?", (*limits, (NOTHING, "nothing")))
                return GuidedQuestion("What else limits you?", ((NOTHING, "nothing else"), *limits))
            case "amount":
                limit = LIMITS[self._last("limit")]
                return GuidedQuestion(f"How much, for example {limit.example}?", problem=limit.problem)
            case "licence":
                return GuidedQuestion("Which licence?", tuple(LABELS.items()))
        return None

    def answers(self) -> Answers:
        """All replies, once every question was answered."""
        if self.topic is not None:
            raise ValueError(f"{self.topic} was not answered")
        device = self._last("device")
        limits = [LIMITS[value].axis for topic, value in self.replies if topic == "limit" and value != NOTHING]
        return Answers(
            dataset=self._last("dataset"),
            device="" if device == NO_DEVICE else device,
            budgets=tuple(value for topic, value in self.replies if topic == "amount"),
            licences=DEMANDS[self._last("licence")],
            axis=[*limits, "gflops"][0],
        )

    def _last(self, topic: str) -> str:
        return next(value for about, value in reversed(self.replies) if about == topic)

    def _open_limits(self) -> list[str]:
        """Limits that are not set yet and that mean something on the device."""
        taken = [value for topic, value in self.replies if topic == "limit"]
        has_device = self._last("device") != NO_DEVICE
        return [key for key, each in LIMITS.items() if key not in taken and (has_device or not each.on_device)]
