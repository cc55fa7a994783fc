"""Questions + what the arms learnt -> the questions that may be asked, and in words which may not and why.

It does not know models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graft.dataset import Example
from graft.dataset.leakage import input_text
from graft.dataset.near import near_across, normalised, signatures, stacked
from graft.errors import UsageError
from graft.evaluation.questions import Question

FEW = 20
"""Below so many questions, a warning says what could be seen at all."""
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """Attributes:
    warnings: What was left out, by name, and what else limits the result.
    """

    questions: tuple[Question, ...]
    warnings: tuple[str, ...]


def screened(
    questions: Sequence[Question],
    learnt: Mapping[str, Sequence[Example]],
    *,
    near_duplicate: float,
    without_answer: Sequence[str] = (),
) -> Asked:
    """Leave out duplicates, questions without an answer, and those that an arm has learnt from.

    Args:
        learnt: By name of file or model, the examples that may have been learnt; few-shot examples too.
        near_duplicate: Share of common 5-grams from which on an input counts as the same.
        without_answer: Ids of those that were left out before, to be named with the others.
    Raises:
        UsageError: Nothing is left to ask; names the reasons.
    """
    warnings = []
    kept = []
    first: dict[str, str] = {}
    repeated, unanswered = [], list(without_answer)
    for question in questions:
        same_as = first.setdefault(normalised(_input(question)), question.id)
        if same_as != question.id:
            repeated.append(f"{question.id} (as {same_as})")
        elif not any(answer.strip() for answer in question.answers) and question.kind != "unanswerable":
            unanswered.append(question.id)
        else:
            kept.append(question)
    if repeated:
        warnings.append(f"{_left_out(repeated)}: asked before in the same words")
    if unanswered:
        warnings.append(
            f"{_left_out(unanswered)}: without an answer nothing can be compared; "
            'where the documents hold none, state "kind": "unanswerable"'
        )
    for name, examples in learnt.items():
        leaked = _leaked(kept, examples, near_duplicate)
        if leaked:
            kept = [question for question in kept if question.id not in leaked]
            shown = [
                question if other == question else f"{question} (as {other})" for question, other in leaked.items()
            ]
            warnings.append(f"{_left_out(shown)}: learnt from {name}, in the same words or nearly")
    if not kept:
        raise UsageError(
            f"no question is left to ask; {'; '.join(warnings) or 'the file holds none'}",
            fix="give questions with answers that no arm has learnt from",
        )
    return Asked(tuple(kept), tuple(warnings))


def _leaked(questions: Sequence[Question], examples: Sequence[Example], threshold: float) -> dict[str, str]:
    """Id of question -> id of the example that it is, or nearly is."""
    if not questions or not examples:
        return {}
    texts = [input_text(example) for example in examples]
    exact: dict[str, str] = {}
    for example, text in zip(examples, texts, strict=True):
        exact.setdefault(normalised(text), example.id)
    asked = [_input(question) for question in questions]
    found = {
        question.id: exact[plain]
        for question, text in zip(questions, asked, strict=True)
        if (plain := normalised(text)) in exact
    }
    near = near_across(stacked(signatures(asked)), stacked(signatures(texts)), threshold=threshold)
    for row, other in near:
        found.setdefault(questions[int(row)].id, examples[int(other)].id)
    return found


def _input(question: Question) -> str:
    """What `leakage.input_text` is of an example."""
    return "\n".join(turn.content for turn in question.messages if turn.role != "system")


def _left_out(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    count = "1 question is" if len(listed) == 1 else f"{len(listed):,} questions are"
    return f"{count} left out, {', '.join(listed[:_NAMED])}{more}"
