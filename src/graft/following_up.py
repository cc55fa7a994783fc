"""A conversation and its next question -> a question that stands alone; a message -> what of it is sought.

It does not know documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graft.citing.words import content_stems
from graft.models import GenerateOptions, Message, Model, Reply, complete
from graft.prompting import search_prompt, standalone_prompt
from graft.tracing import span

_REWRITE = GenerateOptions(max_tokens=64)
_STANDS_ALONE = 4
"""Words of meaning at which a question needs no other before it. On the samples, all evidence in the first five
hits: 25 of 26 follow-ups whether it is 4 or never; 80 of 100 questions that change the subject, not 61."""


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question that needs no conversation; `reply` is what the model was paid for, None where none was asked."""

    question: str
    reply: Reply | None = None


def make_standalone(question: str, history: Sequence[Message], model: Model, *, budget: int) -> Standalone:
    """A follow-up as a question that stands alone.

    The model's rewriting is taken only if it keeps the question's own words and adds none that the
    conversation lacks; otherwise the earlier question is put before a short one, which retrieval can use, and
    one with words enough of its own is left as it is: it may well begin another subject.

    Args:
        history: Earlier turns, oldest first.
        budget: Most tokens of the prompt; a conversation beyond it is not read by the model.
    Raises:
        ModelError: The model cannot answer.
    """
    asked = [turn.content for turn in history if turn.role == "user"]
    if not asked:
        return Standalone(question)
    prompt = standalone_prompt(question, history, count_tokens=model.count_tokens, budget=budget)
    if prompt is None:
        return Standalone(question)
    with span("rewrite", {"graft.turns": len(history)}):
        reply = complete(model, prompt, _REWRITE)
    rewritten = reply.text.strip().strip('"').split("\n")[0].strip()
    said = frozenset(content_stems(" ".join(turn.content for turn in history) + " " + question))
    now, new = frozenset(content_stems(question)), frozenset(content_stems(rewritten))
    if rewritten.endswith("?") and now <= new <= said and new != now:
        return Standalone(rewritten, reply)
    if sum(1 if len(word) > 1 else 0.5 for word in now) >= _STANDS_ALONE:  # a Chinese word has two characters
        return Standalone(question, reply)
    both = f"{asked[-1]} {question}"
    leaves_room = model.count_tokens((Message("user", both),)) <= budget // 2  # for the sources
    return Standalone(both if leaves_room else question, reply)


def make_search_query(query: str, model: Model, *, budget: int) -> Standalone:
    """A message as a shorter search query.

    The model's is taken only if it adds no word, keeps every number, and leaves a word of meaning out; otherwise the
    message is searched as it is.

    Args:
        budget: Most tokens of the prompt; a longer message is searched as it is.
    Raises:
        ModelError: The model cannot answer.
    """
    prompt = search_prompt(query)
    if model.count_tokens(prompt) > budget:
        return Standalone(query)
    reply = complete(model, prompt, _REWRITE)
    rewritten = reply.text.strip().strip('"').split("\n")[0].strip()
    before, after = frozenset(content_stems(query)), frozenset(content_stems(rewritten))
    numbers = {word for word in before if any(letter.isdigit() for letter in word)}
    is_shorter = bool(after) and after < before and numbers <= after
    return Standalone(rewritten if is_shorter else query, reply)
