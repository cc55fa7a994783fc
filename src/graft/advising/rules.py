"""needs -> how far each criterion moves retrieval and tuning, with its reason and where that comes from.

The table of rules is `docs/advising.md`, which a test keeps in step. It does not know measurements: they outrank it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graft.advising.arms import Approach
from graft.advising.costs import ArmCost
from graft.advising.needs import Needs

ENOUGH = 3
"""Points from which a way is recommended."""

OVADIA = "Ovadia et al., arXiv 2312.05934"
GEKHMAN = "Gekhman et al., arXiv 2405.05904"
LIU = "Liu et al., arXiv 2205.05638"
LIMA = "Zhou et al., arXiv 2305.11206"
CARLINI = "Carlini et al., arXiv 2012.07805"
GOOGLE = "Google Cloud, Ground responses using RAG"
MICROSOFT = "Microsoft Learn, Compare and combine optimization strategies"
AZURE = "Microsoft Learn, Customize a model with fine-tuning"
TOGETHER = "Together AI, Fine-tuning overview"
OURS = "our judgement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """How far one answer moves both ways.

    Attributes:
        answer: As it was given, for people.
        retrieval, tuning: Points; 0 leaves it where it is.
        source: Of the reason.
    """

    key: str
    answer: str
    retrieval: int = 0
    tuning: int = 0
    reason: str = "moves nothing"
    source: str = OURS

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """All moves and their sums."""

    moves: tuple[Move, ...]
    retrieval: int
    tuning: int

    @property
    def approach(self) -> Approach:
        if self.retrieval >= ENOUGH and self.tuning >= ENOUGH:
            return "both"
        if self.retrieval >= ENOUGH:
            return "retrieval"
        return "tuning" if self.tuning >= ENOUGH else "neither"


def weigh(needs: Needs, *, rag: ArmCost | None = None, tuned: ArmCost | None = None) -> Weighed:
    """Every criterion's moves, in the order of the questions.

    Args:
        rag, tuned: What they cost, for the budget; without them the budget moves nothing.
    """
    moves = [rule(needs) for rule in _RULES]
    moves.append(_budget(needs, rag, tuned))
    return Weighed(moves=tuple(moves), retrieval=sum(m.retrieval for m in moves), tuning=sum(m.tuning for m in moves))


def _move(key: str, answer: str, points: tuple[int, int], reason: str, source: str = OURS) -> Move:
    retrieval, tuning = points
    if not retrieval and not tuning:
        return Move(key=key, answer=answer)
    return Move(key=key, answer=answer, retrieval=retrieval, tuning=tuning, reason=reason, source=source)


def _knowledge(needs: Needs) -> Move:
    points = {
        "none": (0, 0),
        "never": (2, 1),
        "yearly": (3, 0),
        "monthly": (3, 0),
        "weekly": (4, -1),
        "daily": (5, -2),
    }
    reason = {
        "never": "facts are found more surely than learnt, but facts that stand still can be learnt once",
        "yearly": "facts that a model was not trained on are found more surely than learnt",
        "monthly": "facts that change are replaced in the documents, not in the weights",
        "weekly": "facts that change weekly are old in the weights before they are learnt",
        "daily": "facts that change daily are old in the weights before they are learnt",
    }.get(needs.knowledge, "")
    source = f"{OVADIA}; {GEKHMAN}" if needs.knowledge in ("never", "yearly") else MICROSOFT
    return _move("knowledge", needs.knowledge, points[needs.knowledge], reason, source)


def _sources(needs: Needs) -> Move:
    points = {"no": (0, 0), "useful": (1, 0), "required": (3, 0)}[needs.sources]
    return _move("sources", needs.sources, points, "only what was retrieved can be cited and checked", GOOGLE)


def _corpus(needs: Needs) -> Move:
    size = needs.corpus_tokens
    shown = f"{size:,} tokens"
    if not size:
        return _move("corpus_tokens", shown, (-3, 0), "there is nothing to retrieve from")
    if size <= 50_000:
        return _move("corpus_tokens", shown, (-1, 0), "so few documents fit into the prompt as they are")
    points = (2, 0) if size >= 100_000_000 else (1, 0) if size >= 10_000_000 else (0, 0)
    return _move("corpus_tokens", shown, points, "so much fits into no prompt, nor into an adapter's weights")


def _teach(needs: Needs) -> Move:
    points = {"format": 2, "style": 2, "terminology": 1, "skill": 3}
    sources = {"format": MICROSOFT, "style": LIMA, "terminology": TOGETHER, "skill": LIU}
    reason = f"{' and '.join(needs.teach)} {'is' if len(needs.teach) == 1 else 'are'} learnt from examples"
    return _move(
        "teach",
        ", ".join(needs.teach) or "nothing",
        (0, sum(points[one] for one in needs.teach)),
        reason,
        "; ".join(sources[one] for one in needs.teach),
    )


def _examples(needs: Needs) -> Move:
    count, tokens = needs.examples, needs.examples * needs.example_tokens
    shown = f"{count:,} of {needs.example_tokens:,} tokens"
    if count < 10:
        return _move("examples", shown, (0, -3), "there is next to nothing to learn from; write some first", TOGETHER)
    if count < 100:
        return _move("examples", shown, (0, -1), "tuning wants hundreds; so few fit into the prompt", TOGETHER)
    reason = "more examples than a prompt can show"
    return _move("examples", shown, (0, 2 if tokens > 100_000 else 0), reason, f"{AZURE}; {LIU}")


def _latency(needs: Needs) -> Move:
    points = {"seconds": (0, 0), "second": (0, 1), "instant": (-1, 2)}[needs.latency]
    reason = "a tuned model needs a shorter prompt, and may be a smaller one; searching takes time"
    return _move("latency", needs.latency, points, reason, AZURE)


def _volume(needs: Needs) -> Move:
    count = needs.questions_per_month
    points = (0, 2) if count >= 1_000_000 else (0, 1) if count >= 100_000 else (0, 0)
    return _move(
        "questions_per_month", f"{count:,}", points, "tokens saved in each prompt pay the training back", AZURE
    )


def _private(needs: Needs) -> Move:
    points = (2, -4) if needs.private == "yes" else (0, 0)
    reason = "a model may tell what it learnt to whoever asks; a search asks first who may read"
    return _move("private", needs.private, points, reason, CARLINI)


def _base_model(needs: Needs) -> Move:
    points = {"tunable": (0, 0), "switched": (1, -1), "unchanged": (1, -4)}[needs.base_model]
    reason = {
        "switched": "retrieval goes with any model; a tuned one is tuned anew for each",
        "unchanged": "retrieval leaves the model as it is; tuning does not",
    }.get(needs.base_model, "")
    return _move("base_model", needs.base_model, points, reason)


def _start(needs: Needs) -> Move:
    points = (2, -1) if needs.start == "days" else (0, 0)
    return _move(
        "start", needs.start, points, "documents are added in minutes; examples are written in weeks", MICROSOFT
    )


def _expertise(needs: Needs) -> Move:
    points = (0, -1) if needs.expertise == "none" else (0, 0)
    return _move(
        "expertise", needs.expertise, points, "a training that goes wrong has to be seen to go wrong", MICROSOFT
    )


def _budget(needs: Needs, rag: ArmCost | None, tuned: ArmCost | None) -> Move:
    over = [
        cost is not None and (usd := cost.initial_usd()) is not None and usd > needs.budget_usd
        for cost in (rag, tuned)
    ]
    what = " and ".join(name for name, yes in zip(("retrieval", "tuning"), over, strict=True) if yes)
    points = (-2 if over[0] else 0, -2 if over[1] else 0)
    return _move("budget_usd", f"${needs.budget_usd:,}", points, f"{what} would cost more to build")


_RULES: tuple[Callable[[Needs], Move], ...] = (
    _knowledge, _sources, _corpus, _teach, _examples, _latency, _volume, _private, _base_model, _start, _expertise,
)  # fmt: skip
