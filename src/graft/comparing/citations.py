"""What a reply cites, and what was before it, + a question's evidence -> whether they meet, and the figures of it.

It does not know documents: a quote meets evidence by the words that both hold.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graft.comparing.values import ArmReply, Recall, ShownCitation
from graft.dataset import Example
from graft.dataset.retrieval_aware_evidence import evidence_of
from graft.evaluation.metrics import contained
from graft.evaluation.questions import Question
from graft.retrieval import Hit

_WORD = re.compile(r"[^\W_]+")
_MEETS = 0.8
"""Share of the shorter text's words that the longer holds; a sentence and a row of the same table share few."""

Evidence = Sequence[tuple[str, str]]
"""(document, quote)"""


def places_of(question: Question) -> tuple[tuple[str, str], ...]:
    """(document, quote) of the evidence that the question file names."""
    found = evidence_of(Example(id=question.id, messages=question.messages, extra=question.extra))
    return tuple((one.document, one.quote) for one in found)


def expected_of(question: Question) -> str:
    """A checksum of what passages are searched for."""
    told = [places_of(question), question.kind == "short" and question.answers]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def recall_of(question: Question, passages: Sequence[Hit]) -> Recall | None:
    """The share of a question's evidence among the passages; without evidence whether a short answer stands in one.

    None where the question tells neither.
    """
    if evidence := places_of(question):
        met = [any(_same(hit.document, hit.text, *place) for hit in passages) for place in evidence]
        return Recall(expected=expected_of(question), share=sum(met) / len(met))
    answers = [answer for answer in question.answers if answer.strip()]
    if question.kind != "short" or not answers:
        return None
    there = any(contained(f"{hit.context}\n{hit.text}", answers) for hit in passages)
    return Recall(expected=expected_of(question), share=float(there))


def with_evidence(reply: ArmReply, evidence: Evidence) -> ArmReply:
    """The reply, each citation knowing whether it meets the evidence."""
    if not evidence or not reply.citations:
        return reply
    told = (replace(one, evidence=any(_meets(one, *place) for place in evidence)) for one in reply.citations)
    return replace(reply, citations=tuple(told))


def cited(reply: ArmReply, evidence: Evidence) -> dict[str, float]:
    """Figures of an answer from documents; none for a reply that had no documents.

    citation_precision: of the ranges cited, the share that meets the evidence; citation_recall: of the evidence, the
    share that a citation meets; supported: of the statements, the share that the verifier found borne out; conflicts:
    1 where a statement says the opposite of a source.

    >>> reply = ArmReply(reply="8 days", mode="generated", retrieve_ms=1.0, citations=(ShownCitation(
    ...     claim="8 days", verdict="supported", document="a.md", start=0, end=6, page=None, quote="8 days",
    ...     opposed=False, evidence=True),))
    >>> cited(reply, [("a.md", "up to 8 days")])
    {'citation_recall': 1.0, 'supported': 1.0, 'conflicts': 0.0, 'citation_precision': 1.0}
    """
    if reply.retrieve_ms is None:
        return {}
    found = {}
    if evidence:
        met = [any(_meets(one, *place) for one in reply.citations) for place in evidence]
        found["citation_recall"] = sum(met) / len(met)
    if reply.citations:
        found["supported"] = sum(one.verdict == "supported" for one in reply.citations) / len(reply.citations)
        found["conflicts"] = float(any(one.opposed for one in reply.citations))
    located = [one for one in reply.citations if one.quote]
    if evidence and located:
        found["citation_precision"] = sum(bool(one.evidence) for one in located) / len(located)
    return found


def _meets(citation: ShownCitation, document: str, quote: str) -> bool:
    return citation.document is not None and _same(citation.document, citation.quote or "", document, quote)


def _same(one_document: str, one_text: str, document: str, quote: str) -> bool:
    if one_document != document:
        return False
    one, other = (Counter(_WORD.findall(text.lower())) for text in (one_text, quote))
    shorter = min(one.total(), other.total())
    return shorter > 0 and (one & other).total() >= _MEETS * shorter
