"""GRAFT_DATA/qa -> documents and questions with evidence, of the sets whose licences allow training.

Used: covidqa and clapnq (Apache-2.0), two corpora of chunking_eval (MIT), and 451 questions written for Graft
about passages of the latter two (reader_questions.jsonl, Apache-2.0). Left out, and why:
- policyqa: its spans mark annotated fragments ("we may use", "do not"), which answer no question;
- chunking_eval's finance, pubmed and chatlogs: tables in lower case, lists of references, essays;
- pubmedqa, contractnli: their answers are yes, no or maybe, which a verifier cannot hold against a passage;
- anthropic_docs_rag: its answers are paragraphs in other words than the source's;
- the sample handbook: its 146 questions examine Graft in the tests, so nothing is learnt from them;
- xquad, financebench: what is reported is never learnt from. Of ClapNQ, `held_out` is reported, the rest learnt.

It does not know retrieval, prompts or training.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.dataset import Example
from graft.models import Message

_SHORT_WORDS = 12
_SENTENCE_WORDS = 30
_AROUND = 40
"""Characters either side of a span that make its place unmistakable."""
_PAPERS = 12
"""Of 98, those with most questions for their length: others cost more to compute than they teach."""
_BANNER = "template message"
"""Of an encyclopaedia's notice to its editors, the same over articles on both sides; no passage to learn from."""
_CORPORA = ("state_of_the_union", "wikitexts")
_SPACED = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" 's", "'s"), (" n't", "n't"), ("( ", "("), (" )", ")"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSet:
    """A folder of documents, and what is asked of it alone.

    Attributes:
        documents: File name -> text.
    """

    name: str
    licence: str
    documents: Mapping[str, str]
    questions: Sequence[Example]


def reader_sets(qa: Path) -> Iterator[ReaderSet]:
    """All sets; qa is the folder of question sets in GRAFT_DATA."""
    yield _covidqa(qa / "covidqa" / "200423_covidQA.json")
    yield from _chunking_eval(qa / "chunking_eval")
    yield _clapnq(qa)


def clapnq_rows(qa: Path) -> list[dict[str, Any]]:
    """ClapNQ's questions whose passage does not answer them."""
    lines = (qa / "clapnq" / "clapnq_dev_unanswerable.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def held_out(row: Mapping[str, Any]) -> bool:
    """Whether a ClapNQ row is for the report alone: half of the articles, by the hash of their title."""
    title = row["passages"][0]["title"]
    return hashlib.sha256(title.encode()).digest()[0] % 2 == 0


def clapnq_file(row: Mapping[str, Any]) -> str:
    return f"{row['id'].lstrip('-')}.txt"


def clapnq_text(row: Mapping[str, Any]) -> str:
    return "\n\n".join(f"{_joined(p['title'])}\n\n{_joined(p['text'])}" for p in row["passages"]) + "\n"


def _clapnq(qa: Path) -> ReaderSet:
    """Passages of encyclopaedia articles, each with a question that it does not answer and some that it does.

    Without the latter (written for Graft, `reader_questions.jsonl`) a model learns to decline whatever comes from
    an encyclopaedia: of 45 questions about XQuAD's paragraphs a first one declined 33.
    """
    rows = [row for row in clapnq_rows(qa) if not held_out(row) and _BANNER not in clapnq_text(row)]
    documents = {clapnq_file(row): clapnq_text(row) for row in rows}
    questions = [_example("clapnq", row["id"], row["input"], "", clapnq_file(row), "") for row in rows]
    questions += _written(documents)
    return ReaderSet(name="clapnq", licence="Apache-2.0", documents=documents, questions=questions)


def _written(documents: Mapping[str, str]) -> list[Example]:
    """The questions written for Graft about these documents."""
    lines = (Path(__file__).parent / "reader_questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        (row, *(row["evidence"][0][key] for key in ("document", "start", "end"))) for row in map(json.loads, lines)
    ]
    return [
        _example("written", row["id"], row["question"], row["answers"][0], name, documents[name][start:end])
        for row, name, start, end in rows
        if name in documents
    ]


def _covidqa(path: Path) -> ReaderSet:
    """Papers, and the questions whose answer is a short span at its stated place; 234 offsets are wrong."""
    documents, questions = {}, []
    for paper in json.loads(path.read_text(encoding="utf-8"))["data"]:
        paragraph = paper["paragraphs"][0]
        text, name = paragraph["context"], f"covid-{paragraph['document_id']}.txt"
        documents[name] = text
        for qa in paragraph["qas"]:
            given = qa["answers"][0]
            start, end = _trimmed(text, given["answer_start"], given["answer_start"] + len(given["text"]))
            if text[start:end] == given["text"].strip(" \n\t.,;:") and _whole_words(text, start, end):
                quote = _around(text, start, end)
                questions.append(_example("covidqa", str(qa["id"]), qa["question"], text[start:end], name, quote))
    short = _distinct([q for q in questions if len(q.answer.split()) <= _SHORT_WORDS])
    asked = Counter(question.source for question in short)
    papers = sorted((name for name in asked if name), key=lambda name: -asked[name] / len(documents[name]))
    kept = {name: documents[name] for name in papers[:_PAPERS]}
    return ReaderSet(
        name="covidqa",
        licence="Apache-2.0",
        documents=kept,
        questions=[question for question in short if question.source in kept],
    )


def _chunking_eval(folder: Path) -> Iterator[ReaderSet]:
    """Corpora of prose, and the questions that one sentence answers."""
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for corpus in _CORPORA:
        path = folder / "corpora" / f"{corpus}.md"
        name, text = f"{corpus}.txt", _joined(path.read_text(encoding="utf-8"))
        questions = []
        for number, row in enumerate(rows):
            references = json.loads(row["references"])
            answer = _joined(references[0]["content"]).strip()
            usable = len(references) == 1 and len(answer.split()) <= _SENTENCE_WORDS and "<unk>" not in answer
            if row["corpus_id"] == corpus and usable and answer in text:
                questions.append(_example("chunking_eval", str(number), row["question"], answer, name, answer))
        yield ReaderSet(
            name=f"chunking-eval-{corpus.replace('_', '-')}",
            licence="MIT",
            documents={name: text},
            questions=_distinct(questions) + _written({name: text}),
        )


def _example(name: str, id: str, question: str, answer: str, document: str, quote: str) -> Example:
    """An example in the shape of a question file's line; no answer: the documents hold none."""
    told = (
        {"kind": "short", "evidence": [{"document": document, "quote": quote}]}
        if answer
        else {"kind": "unanswerable", "evidence": [], "set": name}
    )
    return Example(
        id=f"{name}-{id}",
        messages=(Message("user", " ".join(question.split())), Message("assistant", answer or "-")),
        source=document,
        origin=f"{name}:{document}",
        extra={**told, "set": name},
    )


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Without questions that are asked again with another answer: only one of them would be learnt as right."""
    seen = Counter(example.prompt[-1].content.lower() for example in examples)
    return [example for example in examples if seen[example.prompt[-1].content.lower()] == 1]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without white space and loose punctuation at its ends."""
    while start < end and text[start] in " \n\t.,;:":
        start += 1
    while start < end and text[end - 1] in " \n\t.,;:":
        end -= 1
    return start, end


def _whole_words(text: str, start: int, end: int) -> bool:
    """Whether a range begins and ends where words do; some annotators slipped."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return start < end and not before.isalnum() and not after.isalnum()


def _around(text: str, start: int, end: int) -> str:
    """The range with some words either side, on one line of its document where it can be."""
    low, high = max(0, start - _AROUND), min(len(text), end + _AROUND)
    left, right = text[low:start].split("\n")[-1], text[end:high].split("\n")[0]
    left = left.partition(" ")[2] if low and len(left) == start - low else left
    right = right.rpartition(" ")[0] if high < len(text) and len(right) == high - end else right
    return f"{left}{text[start:end]}{right}".strip()


def _joined(text: str) -> str:
    """Tokenised text with its spaces where people put them."""
    for apart, joined in _SPACED:
        text = text.replace(apart, joined)
    return re.sub(r" ([,.;:!?%])(?=[\s\"')]|$)", r"\1", text)
