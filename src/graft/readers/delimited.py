"""CSV and TSV -> Document: a header row and rows "a | b | c".

The delimiter is the one that splits the first lines most evenly; the standard library's sniffer is not
used because it guesses letters and spaces.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter

from graft.documents import Document
from graft.readers import text as plain
from graft.readers.building import TextBuilder, clean, unify_newlines
from graft.readers.tables import add_grid
from graft.settings import ReadingSettings

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 100
_NO_LIMIT = 2**31 - 1  # the module's own of 131,072 would refuse honest cells; ours is on the whole text
_SEPARATOR_LINE = re.compile(r"sep=(.)\n")  # Excel's own way to say it


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read delimited text.

    Raises:
        ReadError: Binary data, or no text.
    """
    text = unify_newlines(clean(plain.decode(data, name=name)))
    stated = _SEPARATOR_LINE.match(text)
    delimiter = stated[1] if stated else _delimiter(text)
    before = csv.field_size_limit(_NO_LIMIT)  # of the whole process
    try:
        rows = list(csv.reader(io.StringIO(text[stated.end() if stated else 0 :], newline=""), delimiter=delimiter))
    finally:
        csv.field_size_limit(before)
    builder = TextBuilder(name=name, limits=limits)
    add_grid(builder, rows)
    return builder.document("tsv" if delimiter == "\t" else "csv")


def _delimiter(text: str) -> str:
    """The character that splits most of the first lines into the same number of cells, more than one."""
    sample = "".join(text.splitlines(keepends=True)[:_SAMPLE_LINES])

    def evenness(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        common = Counter(width for width in widths if width > 1).most_common(1)
        return (common[0][1] / len(widths), common[0][0]) if common else (0.0, 0)

    return max(_DELIMITERS, key=evenness)
