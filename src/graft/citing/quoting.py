"""question + hits -> the one range that answers it best, word for word, or nothing.

For when a model's own words fail their check: what the documents say needs no model. It does not know
models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graft.citing import Citation, PageOf, located
from graft.citing.verifying import Embed, Verdict, closest
from graft.citing.windows import Passage
from graft.retrieval import Hit

_WORD = re.compile(r"[^\W_]+")


def quote_answer(question: str, hits: Sequence[Hit], *, embed: Embed, page_of: PageOf) -> Citation | None:
    """The range of the hits that fits the question best, as an answer supported by itself; its fit is `support`."""
    found = closest(question, [Passage(hit.text, hit.context) for hit in hits], embed=embed)
    if found is None or found.passage is None:
        return None
    hit = hits[found.passage]
    quote = hit.text[found.start : found.end]
    itself = Citation(
        claim=quote, claim_start=0, claim_end=len(quote), verdict=Verdict.SUPPORTED, support=found.support
    )
    return located(itself, hit, found, page_of)


def speaks_from(citation: Citation, best: Citation) -> bool:
    """Whether a supported claim is out of the sentence `best` of the same document: it meets it, or stands in it."""
    if citation.verdict is not Verdict.SUPPORTED or citation.start is None or citation.end is None:
        return False
    if (citation.document_id, citation.version) != (best.document_id, best.version):
        return False
    claim = _words(citation.claim)
    stands = bool(claim) and f" {claim} " in f" {_words(best.quote or '')} "
    return stands or (citation.start < (best.end or 0) and (best.start or 0) < citation.end)


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def fit(question: str, quotes: Sequence[str], *, embed: Embed) -> float:
    """How well the best of some quotes fits a question, from 0 to 1, measured as `quote_answer` does."""
    found = closest(question, [Passage(quote) for quote in quotes], embed=embed)
    return 0.0 if found is None else found.support


def spelled_out(citation: Citation) -> str:
    """A quote as a sentence: a table's row with each cell after its column's name, other text on one line.

    >>> spelled_out(Citation(claim="", claim_start=0, claim_end=0, verdict=Verdict.SUPPORTED, support=1.0,
    ...     quote="A2 | EU | 7450", header="Article | Region | Net price EUR"))
    'Article: A2; Region: EU; Net price EUR: 7450'
    """
    quote = citation.quote or ""
    names, cells = (_cells(row) for row in (citation.header, quote))
    if len(cells) > 1 and len(names) == len(cells):
        return "; ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True) if cell)
    return " ".join(quote.split())


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
