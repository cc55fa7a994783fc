"""Texts -> the languages they are in.

It does not know what to do about a mixture: that is for people to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from graft.dataset.examples import Example
from graft.dataset.findings import Finding, Severity
from graft.errors import UsageError

MOST_LOOKED_AT = 5_000
"""Texts of a file, evenly spread: the shares of languages are known to within 1.4% from these."""

_LEAST_LETTERS = 40
_MOST_CHARACTERS = 400
_LEAST_CERTAINTY = 0.95
_FEW = 0.05


@dataclass(slots=True)
class LanguageCounts:
    """Counts languages of what people wrote, and remembers a few places of each."""

    counts: Counter[str] = field(default_factory=Counter)
    _places: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, example: Example, line: int) -> None:
        """Look at the question; an answer may be a label, code or JSON."""
        language = language_of(example.prompt[-1].content)
        if language is not None:
            self.counts[language] += 1
            places = self._places.setdefault(language, [])
            if len(places) < 20:
                places.append((line, example.id))

    def findings(self) -> Iterator[Finding]:
        """Examples in a language that few others are in."""
        total = sum(self.counts.values())
        for language, count in self.counts.items():
            if count < _FEW * total:
                for line, id in self._places[language]:
                    yield Finding(
                        code="language",
                        severity=Severity.NOTE,
                        message=f"in {language!r}, as {count} of {total} texts are",
                        fix="right if it is meant; else remove it, or add more: few examples teach no language",
                        line=line,
                        id=id,
                    )


def language_of(text: str) -> str | None:
    """ISO 639-1 code; None where the text is too short, or the language not certain.

    Raises:
        UsageError: py3langid is not installed.

    >>> language_of("Wo bleibt die Karte, die ich vor drei Wochen bestellt habe?")
    'de'
    >>> language_of("ok") is None
    True
    """
    if sum(map(str.isalpha, text[:_MOST_CHARACTERS])) < _LEAST_LETTERS and text.isascii():
        return None
    if sum(map(str.isalpha, text[:_MOST_CHARACTERS])) < _LEAST_LETTERS // 4:
        return None
    language, certainty = _identifier().classify(text[:_MOST_CHARACTERS])
    return str(language) if certainty >= _LEAST_CERTAINTY else None


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UsageError("telling languages apart needs py3langid", fix="pip install 'graft-llm[tune]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
