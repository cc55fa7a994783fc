"""A collection + any model -> questions with answers and evidence, checked; resumable, within a budget.

Every passage's outcome is appended to a file as soon as it is known, so that a run that was killed goes on
where it stopped and pays for nothing twice. It does not know how questions are written (asking).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from graft.dataset.asking import (
    ANSWER_TOKENS,
    VERSION,
    Asked,
    Outcome,
    answer_prompt,
    ask_about,
    ask_prompt,
)
from graft.dataset.near import jaccard, normalised
from graft.dataset.passages import Place, places
from graft.dataset.questions import Estimate, Generated, Progress, Question, Source
from graft.dataset.writing import write_examples, write_lines
from graft.errors import ReadError, UsageError
from graft.retrieval import search

_WRITTEN_TOKENS = 90
"""Tokens of a question with answer and evidence: 83 on average over 11 of a 0.5B model on the handbook."""

_ASSUMED_KEPT = 0.5
"""Share of questions that pass the filters with a capable model; the estimate's only guess."""

_SAMPLED = 20
_TRIED = 40
_LEAST_KEPT = 0.03
"""Of the first 40 passages; a model below it would go through the whole collection for nothing."""

_SAME_QUESTION = 0.8


def estimate(source: Source, n: int, *, seed: int = 0, tokens_per_second: float | None = None) -> Estimate:
    """What n questions will take; counts real prompts with the model's tokenizer and asks it nothing.

    Args:
        tokens_per_second: Prompt and reply together, measured; None leaves the time unknown.
    Raises:
        UsageError: n is not positive, or the collection has nothing to ask about.
    """
    found = _places(source, n, seed)
    sample = [_text(source, place) for place in found[:_SAMPLED]]
    count = source.model.count_tokens
    asking = sum(count(ask_prompt(text, place.title)) for text, place in zip(sample, found, strict=False)) / len(
        sample
    )
    answering = sum(
        count(answer_prompt("x " * 20, text, place.title)) for text, place in zip(sample, found, strict=False)
    ) / len(sample)
    tried = min(len(found), round(n / _ASSUMED_KEPT))
    again = min(tried, n)
    tokens_in, tokens_out = round(tried * asking + again * answering), tried * _WRITTEN_TOKENS + again * ANSWER_TOKENS
    return Estimate(
        passages=len(found),
        tried=tried,
        calls=tried + again,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_usd=None if source.price is None else source.price.of(tokens_in, tokens_out),
        seconds=None if tokens_per_second is None else (tokens_in + tokens_out) / tokens_per_second,
    )


def generate(
    source: Source,
    n: int,
    *,
    cache: Path | str,
    seed: int = 0,
    budget_usd: float | None = None,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Generated:
    """Make n questions, or as many as the collection, the budget and the model give.

    Args:
        cache: JSONL file of outcomes; an earlier run's with the same model is taken up.
        budget_usd: Stop before a passage once so much is spent.
    Raises:
        UsageError: n is not positive, there is nothing to ask about, or a budget is set and the price unknown.
        ModelError: The model cannot answer; what was done is in the cache.
        ReadError: The cache cannot be written.
    """
    run = _Run(source, n, _Cache(Path(cache)), budget_usd)
    for place in _places(source, n, seed):
        run.stopped = run.why_stop()
        if run.stopped:
            break
        run.try_place(place)
        progress(run.progress())
    return run.result()


def generate_files(
    source: Source,
    n: int,
    path: Path | str,
    *,
    seed: int = 0,
    budget_usd: float | None = None,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Generated:
    """Make n questions and write them as examples to `path`, and as questions to `question_file(path)`.

    Outcomes are kept in `path` + ".progress", so that the same command after a crash goes on.

    Raises:
        UsageError, ModelError, ReadError: As `generate`; then neither file is written.
    """
    target = Path(path)
    cache = target.with_name(f"{target.name}.progress")
    made = generate(source, n, cache=cache, seed=seed, budget_usd=budget_usd, progress=progress)
    write_examples(target, (question.example() for question in made.questions))
    write_lines(question_file(target), (question.line() for question in made.questions))
    return made


def question_file(path: Path | str) -> Path:
    """Where the same questions stand in the shape that evaluating and comparing read.

    >>> question_file("made.jsonl").name
    'made.questions.jsonl'
    """
    return Path(path).with_suffix(".questions.jsonl")


@dataclass(slots=True)
class _Run:
    """One run's questions, counts and spending."""

    source: Source
    wanted: int
    cache: _Cache
    budget_usd: float | None
    questions: list[Question] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    tried: int = 0
    stopped: str = ""
    _fresh: list[Outcome] = field(default_factory=list)

    def why_stop(self) -> str:
        if len(self.questions) >= self.wanted:
            return "enough"
        if self.tried >= _TRIED and len(self.questions) < _LEAST_KEPT * self.tried:
            return "the model writes nothing that can be kept"
        if self.budget_usd is not None and self._fresh:
            spent = self.spent()
            if spent is None:
                raise UsageError(
                    f"the price of {self.source.model.name} is unknown, so a budget cannot be kept",
                    fix="--price IN,OUT states it, or leave out --budget; -n bounds the number of questions",
                )
            return "budget spent" if spent >= self.budget_usd else ""
        return ""

    def try_place(self, place: Place) -> None:
        """Ask about a passage, or take what an earlier run was told."""
        self.tried += 1
        text = _text(self.source, place)
        key = _key(self.source.model.name, place, text)
        outcome = self.cache.known.get(key)
        if outcome is None:
            outcome = ask_about(text, place.title, model=self.source.model, embed=self.source.embedder.embed)
            self._fresh.append(outcome)
            self.cache.put(key, outcome)
        if outcome.asked is None:
            self.dropped[outcome.dropped] += 1
        elif any(_same(outcome.asked.question, other.question) for other in self.questions):
            self.dropped["duplicate"] += 1
        else:
            self.questions.append(_question(self.source, place, text, outcome.asked))

    def spent(self) -> float | None:
        costs = [self._cost(outcome) for outcome in self._fresh]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def _cost(self, outcome: Outcome) -> float | None:
        price = self.source.price
        if outcome.cost_usd is None and price is not None:
            return price.of(outcome.input_tokens, outcome.output_tokens)
        return outcome.cost_usd

    def progress(self) -> Progress:
        seconds = sum(outcome.seconds for outcome in self._fresh)
        left = None
        if self.questions and self._fresh:
            a_question = seconds / len(self._fresh) * self.tried / len(self.questions)
            left = a_question * (self.wanted - len(self.questions))
        return Progress(len(self.questions), self.wanted, self.tried, self.spent(), left)

    def result(self) -> Generated:
        return Generated(
            questions=tuple(self.questions),
            dropped=dict(self.dropped),
            tried=self.tried,
            resumed=self.tried - len(self._fresh),
            stopped=self.stopped or self.why_stop() or "passages used up",
            input_tokens=sum(outcome.input_tokens for outcome in self._fresh),
            output_tokens=sum(outcome.output_tokens for outcome in self._fresh),
            seconds=round(sum(outcome.seconds for outcome in self._fresh), 3),
            cost_usd=self.spent(),
        )


class _Cache:
    """Outcomes by key in a JSONL file; a line that a crash left half written is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Outcome] = dict(self._read()) if path.exists() else {}

    def put(self, key: str, outcome: Outcome) -> None:
        """Append; the line begins with a line break, so that it never joins a half-written one."""
        self.known[key] = outcome
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": key, **asdict(outcome)}) + "\n")
        except OSError as error:
            raise ReadError(
                f"cannot write {self._path}: {error.strerror}", fix="name a FILE you may write"
            ) from error

    def _read(self) -> Iterator[tuple[str, Outcome]]:
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    told = json.loads(line)
                    key, asked = str(told.pop("key")), told.pop("asked")
                    yield key, Outcome(asked=None if asked is None else Asked(**asked), **told)
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue


def _places(source: Source, n: int, seed: int) -> Sequence[Place]:
    if n < 1:
        raise UsageError(f"n = {n}; at least one question must be wanted", fix="-n 100")
    found = places(source.store, principals=source.principals, collection=source.collection, seed=seed)
    if not found:
        raise UsageError("there is no text to ask about", fix="graft add FOLDER")
    return found


def _text(source: Source, place: Place) -> str:
    return source.store.text_range(
        place.document_id, place.version, place.start, place.end, principals=source.principals
    )


def _key(model: str, place: Place, text: str) -> str:
    told = json.dumps([VERSION, model, place.title, text])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _same(one: str, other: str) -> bool:
    return normalised(one) == normalised(other) or jaccard(one, other) >= _SAME_QUESTION


def _question(source: Source, place: Place, text: str, asked: Asked) -> Question:
    start, end = place.start + asked.start, place.start + asked.end
    told = json.dumps([place.document, asked.question])
    return Question(
        id=f"gen-{hashlib.sha256(told.encode()).hexdigest()[:12]}",
        question=asked.question,
        answer=asked.answer,
        place=place,
        start=start,
        end=end,
        quote=text[asked.start : asked.end],
        retrieved=_rank(source, asked.question, place, start, end),
        model=source.model.name,
    )


def _rank(source: Source, question: str, place: Place, start: int, end: int) -> int | None:
    found = search(
        question,
        store=source.store,
        embedder=source.embedder,
        principals=source.principals,
        settings=source.retrieval,
        collections=None if source.collection is None else (source.collection,),
    )
    for rank, hit in enumerate(found.hits, start=1):
        same = (hit.document_id, hit.version) == (place.document_id, place.version)
        if same and hit.start < end and start < hit.end:
            return rank
    return None
