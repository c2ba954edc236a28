"""What is asked of the counting process and what it answers, as JSON lines. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from luma_cli import errors
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.spec import BackboneSpec


@dataclass(frozen=True, slots=True)
class CountRequest:
    """One backbone at one resolution, in pixels."""

    spec: BackboneSpec
    resolution: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a backbone could not be counted: the name of an error in `errors.py` and its message."""

    kind: str
    message: str

    def error(self) -> errors.LumaError:
        """The error itself; a kind that is not ours becomes a MeasureError."""
        found = getattr(errors, self.kind, None)
        if isinstance(found, type) and issubclass(found, errors.LumaError):
            return found(self.message)
        return errors.MeasureError(f"{self.kind}: {self.message}")


Answer = BackboneFacts | Refusal


def requests_to_json(requests: Sequence[CountRequest], imports: Sequence[str]) -> str:
    """The one line that the counting process reads."""
    return json.dumps({"imports": list(imports), "requests": [asdict(request) for request in requests]})


def requests_from_json(text: str) -> tuple[list[CountRequest], list[str]]:
    """Requests and `--import` names from that line."""
    document = json.loads(text)
    requests = [CountRequest(BackboneSpec(**item["spec"]), item["resolution"]) for item in document["requests"]]
    return requests, document["imports"]


def answer_to_json(answer: Answer) -> str:
    """One line per request, in their order."""
    return json.dumps({"facts" if isinstance(answer, BackboneFacts) else "refusal": asdict(answer)})


def answer_from_json(line: str) -> Answer:
    """The answer on that line. Raises ValueError or KeyError for anything else."""
    document: dict[str, Any] = json.loads(line)
    return BackboneFacts(**document["facts"]) if "facts" in document else Refusal(**document["refusal"])
