"""Chunks are exact ranges, whatever the document."""

import re
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graft.chunking import Chunk, chunk
from graft.documents import Block, BlockKind, Document, Page
from graft.settings import ChunkingSettings

SMALL = ChunkingSettings(max_tokens=12, overlap_tokens=3)


def word_offsets(text: str) -> np.ndarray:
    return np.array([m.span() for m in re.finditer(r"\w+|[^\w\s]", text)], np.int32).reshape(-1, 2)


def document_of(parts: list[tuple[BlockKind, str, int]]) -> Document:
    text, blocks = "", []
    for kind, words, level in parts:
        start = len(text)
        blocks.append(Block(start, start + len(words), kind, level))
        text += words + "\n\n"
    return Document(text=text, format="text", blocks=tuple(blocks))


def cut(document: Document, settings: ChunkingSettings = SMALL, title: str = "T") -> list[Chunk]:
    return chunk(document, tokens=word_offsets(document.text), title=title, settings=settings)


block_texts = st.text(alphabet=st.sampled_from("ab é漢 .!\n"), min_size=1, max_size=120).filter(
    lambda s: s.strip() == s and s.strip() != ""
)
kinds = st.sampled_from(list(BlockKind))


@given(st.lists(st.tuples(kinds, block_texts, st.integers(0, 4)), max_size=12))
def test_every_chunk_is_a_range_and_together_they_hold_every_block(parts: list[tuple[BlockKind, str, int]]) -> None:
    document = document_of(parts)
    chunks = cut(document)
    covered = np.zeros(len(document.text), bool)
    for c in chunks:
        assert c.text == document.text[c.start : c.end] and c.text.strip()
        assert len(word_offsets(c.text)) <= SMALL.max_tokens
        covered[c.start : c.end] = True
    missed = [document.text[i] for i in np.flatnonzero(~covered)]
    assert not "".join(missed).strip()
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)


def test_chunks_overlap_only_inside_a_block_that_must_be_cut() -> None:
    long = " ".join(f"word{i}" for i in range(40))
    document = document_of([(BlockKind.PARAGRAPH, "short one here", 0), (BlockKind.PARAGRAPH, long, 0)] * 2)
    chunks = cut(document)
    overlaps = [(a, b) for a, b in pairwise(chunks) if b.start < a.end]
    assert overlaps
    for a, b in overlaps:
        block = next(x for x in document.blocks if x.start <= a.start < x.end)
        assert block.end - block.start == len(long) and b.start < block.end


def test_a_heading_starts_a_chunk_and_names_the_ones_below_it() -> None:
    document = document_of(
        [
            (BlockKind.HEADING, "# Travel", 1),
            (BlockKind.PARAGRAPH, "one two three four five six seven eight", 0),
            (BlockKind.HEADING, "## Hotels", 2),
            (BlockKind.PARAGRAPH, "a b c d e f g h i", 0),
            (BlockKind.PARAGRAPH, "j k l m n o p q r", 0),
            (BlockKind.HEADING, "# Leave", 1),
            (BlockKind.PARAGRAPH, "a b c d e f g h", 0),
        ]
    )
    found = {c.text.split("\n")[0]: c.context for c in cut(document)}
    assert found["# Travel"] == "T"
    assert found["## Hotels"] == "T > Travel"
    assert found["j k l m n o p q r"] == "T > Travel > Hotels"
    assert found["# Leave"] == "T"


def test_rows_of_a_long_table_stay_whole_and_carry_their_header() -> None:
    rows = [(BlockKind.TABLE_ROW, f"Atlas {i} | EU | {i}00", 0) for i in range(9)]
    document = document_of([(BlockKind.TABLE_HEADER, "Model | Region | Price", 0), *rows])
    chunks = cut(document)
    assert len(chunks) > 2
    assert chunks[0].context == "T"
    assert all(c.context == "T\nModel | Region | Price" for c in chunks[1:])
    lines = [line for c in chunks for line in c.text.split("\n") if line]
    assert lines == ["Model | Region | Price", *(text for _, text, _ in rows)]


def test_a_cut_falls_at_the_end_of_a_sentence() -> None:
    text = "One two three four five six seven. Eight nine ten eleven twelve thirteen fourteen fifteen sixteen."
    first = cut(document_of([(BlockKind.PARAGRAPH, text, 0)]))[0]
    assert first.text == "One two three four five six seven."


def test_a_chunk_knows_the_page_on_which_it_starts() -> None:
    text = "a b c d e f g h i j\fk l m n o p q r s t"
    document = Document(
        text=text,
        format="pdf",
        blocks=(Block(0, 19, BlockKind.PARAGRAPH), Block(20, 39, BlockKind.PARAGRAPH)),
        pages=(Page(1, 0, 20, 612, 792), Page(2, 20, 39, 612, 792)),
    )
    assert [c.page for c in cut(document)] == [1, 2]
