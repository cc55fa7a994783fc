"""Scored replies -> what stands out in them, in sentences: replies that are all the same, declines, missed passages.

A mean hides how it came about; whoever decides should not have to read the replies to see it. It does not know how
replies came about or how findings are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from graft.comparing.report_figures import counted, cut
from graft.comparing.values import Arm, Record
from graft.evaluation.normalising import normalised

_SAME, _MORE = 0.2, 2.0
"""One reply to so large a share of the questions, and to so many times more than its due, has hardly read them."""
_FEW = 5
_OFTEN = 0.25
"""A share of declines that is worth a sentence."""
_NAMED, _LONGEST = 5, 60


def findings_of(arms: Sequence[Arm], records: Sequence[Record]) -> tuple[str, ...]:
    """Sentences, those about the best arms first."""
    told: list[str] = []
    for arm in arms:
        if arm.error is None and not arm.control:
            told += [*_collapsed(arm, records), *_declines(arm, records)]
    return (*told, *_retrieval(arms, records))


def _collapsed(arm: Arm, records: Sequence[Record]) -> Iterator[str]:
    """The same reply again and again, where the expected answers differ."""
    replies = [r.replies[arm.name] for r in records if not r.replies[arm.name].declined]
    said = Counter(normalised(reply.reply) for reply in replies if reply.error is None)
    if not said:
        return
    most, times = said.most_common(1)[0]
    expected = Counter(normalised(answer) for record in records for answer in record.answers[:1])
    due = max(expected[most], max(expected.values(), default=0) * times / len(records))
    if times >= _FEW and times >= _SAME * len(records) and times > _MORE * due:
        yield (
            f"{arm.name} said {cut(most, _LONGEST)!r} to {times} of {counted(len(records), 'question')}, and "
            f"{counted(len(said), 'different reply', 'different replies')} in all: it hardly reads what it is asked"
        )


def _declines(arm: Arm, records: Sequence[Record]) -> Iterator[str]:
    """How often there was no answer though one was expected, and whether the passages held it."""
    wanted = [r.replies[arm.name] for r in records if r.kind != "unanswerable"]
    declined = [reply for reply in wanted if reply.declined and reply.error is None]
    if not wanted or len(declined) < _OFTEN * len(wanted):
        return
    known = [reply.recall.share for reply in declined if reply.recall is not None]
    held = sum(share > 0 for share in known)
    where = f", {held} of them with the evidence among its passages" if known else ""
    yield f"{arm.name} declined {len(declined)} of {counted(len(wanted), 'question')} that have an answer{where}"


def _retrieval(arms: Sequence[Arm], records: Sequence[Record]) -> Iterator[str]:
    """How often what was expected stood in the passages; of the arm with a model that saw the most."""
    seen = {
        arm.name: [
            (record, recall.share)
            for record in records
            if (recall := record.replies[arm.name].recall) is not None and record.replies[arm.name].error is None
        ]
        for arm in arms
        if not arm.control
    }
    name = max(seen, key=lambda one: len(seen[one]), default=None)
    if name is None or not seen[name]:
        return
    missed = [record for record, share in seen[name] if share == 0]
    found = len(seen[name]) - len(missed)
    yield (
        f"retrieval put the evidence, or the expected answer, before {name} on {found} of "
        f"{counted(len(seen[name]), 'question')} where that can be told"
    )
    if missed:
        names = ", ".join(record.id for record in missed[:_NAMED])
        more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
        yield (
            f"for {names}{more} it did not: the documents may not hold the answer, or in other words, or the "
            "question does not say what it is about"
        )
