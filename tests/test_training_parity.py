"""When two models are said to answer alike, on scripted replies; with real models see test_export.py."""

from __future__ import annotations

from collections.abc import Sequence

from graft.models import Message
from graft.testing.scripted import ScriptedModel
from graft.training.parity import LEAST_PROMPTS, parity


def test_a_model_that_never_stops_does_not_agree() -> None:
    class Agreeable(ScriptedModel):
        def agreement(self, messages: Sequence[Message], answer: str) -> tuple[bool, ...]:
            return (True,) * len(answer.split())

    asked = [(Message("user", str(number)),) for number in range(12)]
    for said, other in (("yes", "yes yes yes"), ("", "no answer at all")):
        report = parity(ScriptedModel([said] * 12), Agreeable([other] * 12), asked)
        assert not report.passed and report.agreement == (0.5 if said else 0.0)
    silent = parity(ScriptedModel([""] * 12), ScriptedModel([""] * 12), asked)
    assert silent.passed and silent.until_divergence == 1.0


def test_a_few_prompts_are_filled_up_and_only_they_are_scored() -> None:
    asked = [(Message("user", str(number)),) for number in range(3)]
    said = ["yes"] * LEAST_PROMPTS
    scored: list[int] = []
    report = parity(ScriptedModel(said), ScriptedModel(said), asked, lambda number, _: scored.append(number) or 1.0)
    assert report.prompts == report.same == LEAST_PROMPTS and set(scored) == {0, 1, 2}
