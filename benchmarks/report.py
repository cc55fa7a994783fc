"""results/parts/*.json -> results/latest.json and results/latest.md.

A figure that was not measured this time keeps its last value, with that value's date.
It does not know what the figures mean.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.figures import PARTS, RESULTS, markdown_table

COLUMNS = ("ours", "unit", "peer", "peer_name", "ratio", "low", "high", "better", "date")


def merge(previous: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures by name, in the order of their names; those of `parts` replace the previous ones.

    >>> list(merge({"b": {}, "a": {"ours": 1}}, [{"figures": {"a": {"ours": 2}}}]).items())
    [('a', {'ours': 2}), ('b', {})]
    """
    merged = dict(previous)
    for part in parts:
        merged |= part["figures"]
    return dict(sorted(merged.items()))


def page(figures: dict[str, Any], tables: dict[str, str]) -> str:
    """The ratios with their spread, then each benchmark's own table."""
    rows = [[f"`{name}`", *(figure.get(column) for column in COLUMNS)] for name, figure in figures.items()]
    intro = "`ratio` is ours / peer: the median over interleaved rounds; `low` and `high` are its least and greatest."
    intro += "\nFor nDCG they are the 95% interval over queries. Made by `make bench`."
    sections = [f"## {name}\n\n{table}" for name, table in tables.items()]
    return "\n\n".join(["# Benchmarks", intro, markdown_table(["figure", *COLUMNS], rows), *sections]) + "\n"


def tables_of(page: str) -> dict[str, str]:
    """The tables of a page by benchmark, to be kept where a benchmark was not run this time.

    >>> tables_of("# Benchmarks\\n\\nintro\\n\\n## a\\n\\n| 1 |\\n\\n## b\\n\\n| 2 |\\n")
    {'a': '| 1 |', 'b': '| 2 |'}
    """
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {name: table.strip() for name, table in (section.split("\n\n", 1) for section in sections)}


def main() -> None:
    latest = RESULTS / "latest.json"
    previous = json.loads(latest.read_text(encoding="utf-8")) if latest.exists() else {}
    parts = {path.stem: _read(path) for path in sorted(PARTS.glob("*.json"))}
    if not parts:
        raise SystemExit(f"no measurements in {PARTS} / fix: make bench")
    figures = merge(previous, list(parts.values()))
    latest.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    shown = RESULTS / "latest.md"
    tables = tables_of(shown.read_text(encoding="utf-8")) if shown.exists() else {}
    tables |= {name: part["table"] for name, part in parts.items() if part.get("table")}
    shown.write_text(page(figures, tables), encoding="utf-8")
    print(f"{len(figures)} figures in {latest}, tables in {RESULTS / 'latest.md'}")


def _read(path: Path) -> dict[str, Any]:
    """A part of figures.write_part, or figures alone, as bench_store.py prints them."""
    part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return part if "figures" in part else {"figures": part}


if __name__ == "__main__":
    main()
