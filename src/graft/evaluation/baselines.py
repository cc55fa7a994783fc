"""Labelled examples -> answers without any model: what a tuned model has to beat.

It does not know models or metrics.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import tantivy

from graft.dataset import Example
from graft.errors import UsageError

NEIGHBOURS = 4
_MAX_TERMS = 256
_WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_WITHOUT_SPACES}]|[\p{{L}}\p{{M}}\p{{N}}--[{_WITHOUT_SPACES}]]+"


class NearestVote:
    """A vote of the labelled examples whose words fit best (BM25): the baseline of label tasks.

    Raises:
        UsageError: There are no examples.
    """

    def __init__(self, train: Sequence[Example]) -> None:
        if not train:
            raise UsageError("no labelled examples to vote", fix="--train TRAIN.jsonl")
        self._answers = [example.answer for example in train]
        self._analyzer = (
            tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_WORD))
            .filter(tantivy.Filter.lowercase())
            .filter(tantivy.Filter.ascii_fold())
            .filter(tantivy.Filter.stemmer("english"))
            .build()
        )
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("row", fast=True)
        builder.add_text_field("body", tokenizer_name="words", index_option="freq")
        self._schema = builder.build()
        index = tantivy.Index(self._schema)
        index.register_tokenizer("words", self._analyzer)
        writer = index.writer(15_000_000, 1)  # one thread, one segment: the same scores every time
        for row, example in enumerate(train):
            writer.add_document(tantivy.Document(row=row, body=_asked(example)))
        writer.commit()
        index.reload()
        self._searcher = index.searcher()

    def vote(self, question: str, *, k: int = NEIGHBOURS) -> str:
        """The label of most of the `k` nearest; a tie goes to the greater sum of scores.

        Where no word fits, the most frequent label.
        """
        nearest = self.nearest(question, k=k)
        if not nearest:
            return most_common(self._answers)
        votes: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        for row, score in nearest:
            count, total = votes[self._answers[row]]
            votes[self._answers[row]] = (count + 1, total + score)
        return max(votes, key=votes.__getitem__)

    def nearest(self, question: str, *, k: int = NEIGHBOURS) -> list[tuple[int, float]]:
        """Place and score of the `k` examples whose words fit best, best first; fewer where no more fit."""
        terms = list(dict.fromkeys(self._analyzer.analyze(_readable(question))))[:_MAX_TERMS]
        words = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "body", term, index_option="freq"))
            for term in terms
        ]
        hits = self._searcher.search(tantivy.Query.boolean_query(words), k, count=False).hits if words else []
        if not hits:
            return []
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return [(int(row), float(score)) for row, (score, _) in zip(rows, hits, strict=True)]


def nearest_vote(train: Sequence[Example], questions: Sequence[str], *, k: int = NEIGHBOURS) -> list[str]:
    """`NearestVote.vote` for many questions."""
    voters = NearestVote(train)
    return [voters.vote(question, k=k) for question in questions]


_CANDIDATES, _HELD_AGAINST = 40, 400


def best_constant(answers: Sequence[str], fits: Callable[[str, Sequence[str]], float]) -> str:
    """The one reply that, given to every question, reaches the highest mean: what knowing nothing earns.

    Of the most frequent answers and the most frequent words in them; a tie goes to the more frequent.

    >>> best_constant(["red wine", "white wine", "beer"], lambda said, right: float(said in right[0]))
    'wine'
    """
    words = Counter(word for answer in answers for word in set(re.findall(r"\w+", answer)))
    frequent = [said for said, _ in (*Counter(answers).most_common(_CANDIDATES), *words.most_common(_CANDIDATES))]
    held = answers[:: max(1, len(answers) // _HELD_AGAINST)]
    return max(frequent, key=lambda said: sum(fits(said, [answer]) for answer in held), default="")


def most_common(answers: Sequence[str]) -> str:
    """The most frequent answer, the first such: what a constant reply can reach."""
    return Counter(answers).most_common(1)[0][0]


def _asked(example: Example) -> str:
    """The last thing the user said; system prompts are alike and would only blur."""
    said = [message.content for message in example.prompt if message.role == "user"]
    return _readable(said[-1] if said else "")


def _readable(text: str) -> str:
    return text.encode(errors="replace").decode()  # half a surrogate pair is no text
