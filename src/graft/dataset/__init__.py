"""Files -> examples: read, check, remove duplicates, split, generate from documents.

    examples.py                       what an example is                               <- START READING HERE
    lines.py  formats.py  reading.py  bytes -> lines -> objects -> examples; writing.py: the way back
    checking.py                       a file -> findings; its parts below
    findings.py  turns.py  together.py  labels.py  personal.py  languages.py  near.py  leakage.py
    dedupe.py  splitting.py           fewer examples; frozen parts
    passages.py  asking.py  questions.py  generating.py
                                      documents -> questions with answers and evidence

It does not know how a model is trained.
"""

from graft.dataset.examples import Example
from graft.dataset.findings import Finding, Severity
from graft.dataset.formats import parse_mapping
from graft.dataset.reading import Reading, read_examples
from graft.dataset.writing import write_examples

__all__ = ["Example", "Finding", "Reading", "Severity", "parse_mapping", "read_examples", "write_examples"]
