"""The process that counts backbones for callers without torch: requests on stdin, one JSON line each on stdout."""

from __future__ import annotations

import os
import sys

from luma_cli.errors import LumaError
from luma_cli.measure.count_request import Answer, CountRequest, Refusal, answer_to_json, requests_from_json
from luma_cli.measure.imports import find, load


def main() -> int:
    """Count whatever stdin asks for. What imported code prints goes to stderr, never among the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests, imports = requests_from_json(sys.stdin.readline())
    refused = _import_all(imports)
    for request in requests:
        answers.write(answer_to_json(refused or answer(request)) + "\n")
        answers.flush()
    return 0


def answer(request: CountRequest) -> Answer:
    """The facts of one backbone, or why there are none."""
    # torch and timm take seconds to import: only here, so that a wrong --import is refused at once
    from luma_cli.backbone.create import create_backbone
    from luma_cli.measure.facts import backbone_facts

    try:
        return backbone_facts(create_backbone(request.spec, request.resolution, device="meta"))
    except LumaError as error:
        return Refusal(type(error).__name__, str(error))
    except Exception as error:  # a backbone that fails in its own code must not hide the others
        text = str(error).strip().splitlines() or ["no message"]
        named = f"{request.spec.name} at {request.resolution}"
        return Refusal("MeasureError", f"{named} could not be counted: {type(error).__name__}: {text[0]}")


def _import_all(names: list[str]) -> Refusal | None:
    """Run every `--import`; the refusal that its failure is for every request, if one fails."""
    for name in names:
        try:
            load(find(name))
        except LumaError as error:
            return Refusal(type(error).__name__, str(error))
        except Exception as error:  # whatever the user's module raises is the user's to read
            return Refusal("UsageError", f"--import {name} failed: {type(error).__name__}: {error}")
    return None


if __name__ == "__main__":
    sys.exit(main())
