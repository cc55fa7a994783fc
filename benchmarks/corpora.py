"""GRAFT_DATA -> a folder of documents that every system reads, and questions whose answers are in it.

Real texts in three plain formats (text, Markdown, HTML), so that no system gains or loses by a parser it
lacks. It does not know the systems.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

_PIECE_CHARACTERS = 20_000
"""A corpus that comes as one large file is cut at paragraphs into documents of about this length."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the answer as it stands in one of the documents."""

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A file to be: its name, its content, and questions that it answers."""

    name: str
    content: str
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of documents: how many, how many KB (1,024 bytes) of files, and questions on them."""

    folder: Path
    documents: int
    kb: float
    questions: tuple[Question, ...]


def data_folder() -> Path:
    """GRAFT_DATA, else ../shared/data beside the checkout.

    Raises:
        SystemExit: It is not there; a benchmark without its data has nothing to say.
    """
    folder = Path(os.environ.get("GRAFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "retrieval").is_dir():
        raise SystemExit(f"{folder} holds no benchmark data / fix: GRAFT_DATA=FOLDER make bench")
    return folder


def build_corpus(folder: Path, *, kb: int, data: Path, pdfs: int = 0) -> Corpus:
    """Write documents, some from each source in turn, until they hold `kb` KB or the sources end.

    Args:
        pdfs: Add so many FinanceBench reports, smallest first; their bytes do not count towards `kb`.
    Raises:
        SystemExit: So few documents that none comes with a question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An iterator that is listed five times gives five of its (short) documents in each turn.
    abstracts = [_abstracts(data, name) for name in ("scifact", "nfcorpus", "cranfield")]
    sources = [_xquad(data), *(iterator for iterator in abstracts for _ in range(5))]
    sources += [_chunking_eval(data), _covidqa(data), _policyqa(data)]
    written, size, questions = 0, 0, list[Question]()
    for document in (d for turn in zip_longest(*sources) for d in turn if d is not None):
        content = document.content.encode()
        if size + len(content) > kb * 1024:
            break
        (folder / document.name).write_bytes(content)
        written, size = written + 1, size + len(content)
        questions += document.questions
    if not questions:
        raise SystemExit(f"{kb} KB of documents hold no question / fix: --kb 50 or more")
    reports = (data / "qa" / "financebench" / "pdfs").glob("*.pdf")
    for path in sorted(reports, key=lambda path: path.stat().st_size)[:pdfs]:
        (folder / path.name).write_bytes(path.read_bytes())
        written, size = written + 1, size + path.stat().st_size
    return Corpus(folder, written, size / 1024, tuple(questions))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _abstracts(data: Path, name: str) -> Iterator[SourceDocument]:
    for row in read_jsonl(data / "retrieval" / name / "corpus.jsonl"):
        yield SourceDocument(f"{name}-{row['_id']}.txt", f"{row['title']}\n\n{row['text']}\n")


def _chunking_eval(data: Path) -> Iterator[SourceDocument]:
    for path in sorted((data / "qa" / "chunking_eval" / "corpora").glob("*.md")):
        piece, number = "", 0
        for paragraph in re.split(r"(?<=\n)", path.read_text(encoding="utf-8")):
            piece += paragraph
            if len(piece) >= _PIECE_CHARACTERS:
                yield SourceDocument(f"{path.stem}-{number}.md", piece)
                piece, number = "", number + 1
        if piece.strip():
            yield SourceDocument(f"{path.stem}-{number}.md", piece)


def _xquad(data: Path) -> Iterator[SourceDocument]:
    for article in json.loads((data / "qa" / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        paragraphs = article["paragraphs"]
        text = "\n\n".join(p["context"] for p in paragraphs)
        title = article["title"].replace("_", " ")
        yield SourceDocument(_safe(article["title"]) + ".md", f"# {title}\n\n{text}\n", _questions(paragraphs))


def _covidqa(data: Path) -> Iterator[SourceDocument]:
    for paper in json.loads((data / "qa" / "covidqa" / "200423_covidQA.json").read_text(encoding="utf-8"))["data"]:
        paragraph = paper["paragraphs"][0]
        yield SourceDocument(f"covid-{paragraph['document_id']}.md", paragraph["context"], _questions([paragraph]))


def _policyqa(data: Path) -> Iterator[SourceDocument]:
    for site in json.loads((data / "qa" / "policyqa" / "dev.json").read_text(encoding="utf-8"))["data"]:
        title = html.escape(site["title"])
        body = "\n".join(f"<p>{html.escape(p['context'])}</p>" for p in site["paragraphs"])
        head = f"<!doctype html>\n<html><head><title>{title}</title></head>"
        page = f"{head}\n<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
        yield SourceDocument(_safe(site["title"]) + ".html", page, _questions(site["paragraphs"]))


def _questions(paragraphs: list[dict[str, Any]]) -> tuple[Question, ...]:
    """Those whose answer is short and stands in its paragraph; some offsets are wrong at the source."""
    return tuple(
        Question(qa["question"], qa["answers"][0]["text"])
        for paragraph in paragraphs
        for qa in paragraph["qas"]
        if qa["answers"]
        and 3 <= len(qa["answers"][0]["text"]) <= 120
        and qa["answers"][0]["text"] in paragraph["context"]
    )


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
