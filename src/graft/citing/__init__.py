"""answer + hits -> citations: each claim with the exact range that supports it, or the finding that none does.

It does not know how the answer was made; verification never trusts the answer's own markers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graft.citing.claims import Claim, split_claims, without_markers
from graft.citing.verifying import Checked, Embed, Verdict, verify
from graft.citing.windows import Passage
from graft.retrieval import Hit

__all__ = ["Citation", "Claim", "Embed", "Verdict", "cite", "split_claims", "verify", "without_markers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A claim of the answer and what was found about it.

    Attributes:
        claim: The statement, without markers; `claim_start` and `claim_end` are its range in the answer.
        document, document_id, version, start, end, page, quote: The range that bears it best, where one
            speaks of it; `quote` is exactly that range of that version's text. Else None.
        verdict: supported, partly or unsupported by that range.
        support: How well the range fits, from 0 to 1.
        missing: Numbers, dates and names of the claim that the range lacks.
        opposed: Whether the range says the opposite.
        heading: The nearest heading over the range, a sheet's name for one; "" where none is.
        header: Of a table's row, the row that names its columns.
    """

    claim: str
    claim_start: int
    claim_end: int
    verdict: Verdict
    support: float
    document: str | None = None
    document_id: str | None = None
    version: int | None = None
    start: int | None = None
    end: int | None = None
    page: int | None = None
    quote: str | None = None
    missing: tuple[str, ...] = ()
    opposed: bool = False
    heading: str = ""
    header: str = ""


PageOf = Callable[[Hit, int], int | None]


def cite(answer: str, hits: Sequence[Hit], *, question: str, embed: Embed, page_of: PageOf) -> tuple[Citation, ...]:
    """Check every claim of an answer against all hits.

    Args:
        question: What is answered; short claims are read together with it.
        embed: Texts -> (n, dim) rows of unit length.
        page_of: A hit and an offset in its document -> the number of the page there.
    Returns: One citation a claim, in the answer's order.
    """
    claims = split_claims(answer)
    passages = [Passage(hit.text, hit.context) for hit in hits]
    checked = verify([claim.text for claim in claims], passages, embed=embed, question=question)
    return tuple(_citation(claim, finding, hits, page_of) for claim, finding in zip(claims, checked, strict=True))


def _citation(claim: Claim, finding: Checked, hits: Sequence[Hit], page_of: PageOf) -> Citation:
    bare = Citation(
        claim=claim.text,
        claim_start=claim.start,
        claim_end=claim.end,
        verdict=finding.verdict,
        support=finding.support,
        missing=finding.missing,
        opposed=finding.opposed,
    )
    return bare if finding.passage is None else located(bare, hits[finding.passage], finding, page_of)


def located(citation: Citation, hit: Hit, finding: Checked, page_of: PageOf) -> Citation:
    """The citation with the range that was found, as a range of the hit's document."""
    return replace(
        citation,
        document=hit.document,
        document_id=hit.document_id,
        version=hit.version,
        start=hit.start + finding.start,
        end=hit.start + finding.end,
        page=page_of(hit, hit.start + finding.start),
        quote=hit.text[finding.start : finding.end],
        heading=finding.heading,
        header=finding.header,
    )
