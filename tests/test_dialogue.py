"""The order of the questions, back, and what the replies add up to: all without a terminal."""

from __future__ import annotations

import pytest

from luma_cli.cli.guided.dialogue import DEMANDS, Answers, DeviceHere, Dialogue, GuidedQuestion, Move
from luma_cli.errors import BadBudget

H200 = DeviceHere("NVIDIA H200", "GPU here", "cuda:0")
DEVICES = (H200, DeviceHere("Test CPU", "CPU here", "cpu"))


def after(*replies: str, devices: tuple[DeviceHere, ...] = DEVICES) -> Dialogue:
    dialogue = Dialogue(devices)
    for reply in replies:
        dialogue = dialogue.replied(reply)
    return dialogue


def asked(dialogue: Dialogue) -> GuidedQuestion:
    question = dialogue.question()
    assert question is not None
    return question


def values(dialogue: Dialogue) -> list[str]:
    return [value for value, _ in asked(dialogue).choices]


def test_replies_become_answers() -> None:
    said = after("cityscapes", "NVIDIA H200", "time", "20", "memory", "8 GB", "nothing", "commercial")
    assert said.question() is None
    assert said.answers() == Answers("cityscapes", "NVIDIA H200", ("20ms", "8GB"), DEMANDS["commercial"], "latency")


def test_nothing_binds() -> None:
    said = after("ade20k", "none", "nothing", "any")
    assert said.answers() == Answers("ade20k", "", ())


def test_without_a_device_only_what_is_counted_can_bind() -> None:
    assert values(after("ade20k", "none")) == ["compute", "training", "params", "nothing"]
    assert {"time", "memory", "energy"} < set(values(after("ade20k", "Test CPU")))


def test_a_limit_is_asked_for_once_and_the_licence_when_none_is_left() -> None:
    assert values(after("ade20k", "none", "compute", "200")) == ["nothing", "training", "params"]
    assert after("ade20k", "none", "compute", "200", "params", "50", "training", "8GiB").topic == "licence"


def test_memory_for_training_is_not_that_of_inference() -> None:
    assert after("ade20k", "none", "training", "8 GB", "nothing", "any").answers().budgets == ("8GB-train",)


def test_a_detected_gpu_comes_first_and_no_device_first_without_one() -> None:
    assert values(after("ade20k")) == ["NVIDIA H200", "Test CPU", "none"]
    assert values(after("ade20k", devices=DEVICES[1:])) == ["none", "Test CPU"]


def test_back_undoes_one_reply_at_a_time() -> None:
    replies = ("ade20k", "none", "compute", "200", "nothing", "any")
    dialogue = after(*replies)
    for count in range(len(replies) - 1, -1, -1):
        dialogue = dialogue.back()
        assert dialogue == after(*replies[:count])
    assert dialogue.back() == dialogue
    assert asked(dialogue).moves() == (Move.quit,)


def test_limits_that_leave_nothing_are_asked_for_again() -> None:
    assert after("ade20k", "none", "compute", "1", "params", "1", "any").before_limits() == after("ade20k", "none")
    assert after("ade20k", "none", "nothing", "commercial").before_limits().topic == "licence"


def test_a_wrong_amount_changes_nothing() -> None:
    dialogue = after("ade20k", "none", "compute")
    assert asked(dialogue).problem("20ms") == "'20ms' is not a limit on GFLOPs; try 200gflops"
    with pytest.raises(BadBudget):
        dialogue.replied("20ms")


def test_typed_back_and_quit_are_moves() -> None:
    question = asked(after("ade20k", "none", "compute"))
    assert question.move(" Back ") is Move.back
    assert question.move("quit") is Move.quit
    assert question.move("200") is None
    assert asked(Dialogue(DEVICES)).move("back") is None


def test_answers_before_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match="licence"):
        after("ade20k", "none", "nothing").answers()
    with pytest.raises(ValueError, match="answered"):
        after("ade20k", "none", "nothing", "any").replied("more")


def test_a_chosen_line_fits_80_columns_with_the_longest_device_name() -> None:
    longest = DeviceHere("NVIDIA RTX PRO 6000 Blackwell Server Edition", "GPU here", "cuda:0")
    dialogue = Dialogue((longest,))
    for reply in ("cityscapes", longest.name, "time", "20ms", "nothing", "any"):
        question = asked(dialogue)
        assert all(len(f"? {question.text} {label}") <= 79 for _, label in question.choices)
        dialogue = dialogue.replied(reply)
