"""Values -> terminal or JSON; the one place where text from outside reaches a terminal.

It knows no verbs.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from graft.answering import Answer
    from graft.citing import Citation
    from graft.retrieval import Hit
    from graft.sync import AddResult, Progress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_UNSEEN_WIDTH = 200
"""Columns of a table that goes into a file or a pipe."""
_SHOWN_QUOTE = 300
_SHOWN_FAILURES = 20
_VERDICT = {"supported": ("✓", "green"), "partly": ("~", "yellow"), "unsupported": ("✗", "red")}


def safe(text: str) -> str:
    """Text without what a terminal would obey: escape sequences, other controls, reversals of direction.

    >>> safe("a\\x1b[2Jb\\u202ec")
    'a[2Jbc'
    """
    return _CONTROL.sub("", text)


@cache
def console(*, stderr: bool = False) -> Console:
    """The terminal; messages and progress go to stderr, results to stdout."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _UNSEEN_WIDTH
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=width)


def say(text: str, style: str = "") -> None:
    """A result line on stdout; markup in it is text."""
    from rich.text import Text

    console().print(Text(safe(text), style=style))


def note(text: str, style: str = "dim") -> None:
    """A message on stderr."""
    from rich.text import Text

    console(stderr=True).print(Text(safe(text), style=style))


def emit_json(value: Mapping[str, Any]) -> None:
    """Exactly one JSON object on stdout."""
    click.echo(json.dumps(value, ensure_ascii=True, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def show_error(message: str, fix: str, *, as_json: bool) -> None:
    """A failure: as JSON on stdout where JSON was asked for, and always for people on stderr."""
    if as_json:
        emit_json({"error": message, "fix": fix})
    click.echo(click.style("error: ", fg="red", bold=True) + safe(message), err=True)
    click.echo(click.style("  fix: ", fg="green") + safe(fix), err=True)


@contextmanager
def add_progress(*, quiet: bool) -> Iterator[Any]:
    """A progress bar of files on stderr, as a callback; nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("reading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[chunks]} chunks"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[path]}", markup=False),
    )
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, chunks=0, path="")

        def tell(progress: Progress) -> None:
            shown = safe(progress.path)[-40:]
            bar.update(task, total=progress.total_files, completed=progress.files, chunks=progress.chunks, path=shown)

        yield tell


@contextmanager
def byte_progress(label: str, *, quiet: bool) -> Iterator[Any]:
    """A progress bar of bytes on stderr, as a callback (done, total)."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A sign of life on stderr while nothing can be counted, told what is being done."""
    if quiet or not sys.stderr.isatty():
        yield lambda what: None
        return
    with console(stderr=True).status(safe(what)) as shown:
        yield lambda now: shown.update(safe(now))


def show_add(result: AddResult) -> None:
    """What an add did, failures grouped by their fix."""
    counts = [
        f"{getattr(result, name)} {name}"
        for name in ("added", "updated", "unchanged", "removed")
        if getattr(result, name)
    ]
    if result.failed:
        counts.append(f"{len(result.failed)} failed")
    say(f"{', '.join(counts) or 'nothing to add'}; {counted(result.chunks, 'chunk')} in {result.seconds:.1f} s")
    if result.kept_out:
        files = "a file" if result.kept_out == 1 else f"{result.kept_out} files"
        say(f"left out {files} whose document was removed; `graft add FILE` brings one back", "dim")
    for failure in result.failed[:_SHOWN_FAILURES]:
        say(f"✗ {failure.path}", "red")
        say(f"    {failure.error}")
        say(f"    fix: {failure.fix}", "green")
    if len(result.failed) > _SHOWN_FAILURES:
        say(f"... and {len(result.failed) - _SHOWN_FAILURES} more failed; --json lists them all", "red")


def place(document: str, page: int | None, start: int | None, end: int | None) -> str:
    """Where a range stands, for people."""
    where = f"page {page}, " if page is not None else ""
    return f"{' '.join(document.split())}, {where}characters {start}-{end}"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "hit"), counted(2, "hit")
    ('1 hit', '2 hits')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show_hits(hits: Sequence[Hit], question: str, *, scores: bool = True) -> None:
    """Numbered passages, best first, each by the part that holds most of the question's words."""
    from graft.citing.excerpts import excerpt

    for number, hit in enumerate(hits, start=1):
        score = f" {hit.score:.2f} " if scores else ""
        say(f"[{number}]{score} {place(hit.document, hit.page, hit.start, hit.end)}", "bold")
        start, end = excerpt(question, hit.text, characters=_SHOWN_QUOTE)
        shown = " ".join(hit.text[start:end].split())
        say(f"    {'… ' if start else ''}{shown}{' …' if end < len(hit.text.rstrip()) else ''}")


def show_answer(answer: Answer) -> None:
    """The checked answer, its citations with verdicts, and what it took."""
    say(answer.text, "bold")
    if answer.reason:
        say(f"({'quoted from the documents: ' if answer.citations else ''}{answer.reason})", "dim")
    if answer.citations:
        say("")
    for number, citation in enumerate(answer.citations, start=1):
        _show_citation(number, citation)
    if answer.abstained and answer.hits:
        say("\nNearest passages:", "dim")
        show_hits(answer.hits[:3], answer.question, scores=False)
    say(f"\n{' · '.join(_took(answer))}", "dim")


def _took(answer: Answer) -> Iterator[str]:
    """Model, tokens, time and money; what was not spent is not said."""
    yield answer.model
    if answer.usage.output_tokens:
        yield f"{answer.usage.input_tokens} + {answer.usage.output_tokens} tokens"
    latency = answer.latency_ms
    steps = [("retrieved", latency.retrieve), ("checked", latency.verify)]
    yield ", ".join([f"{name} in {ms:.0f} ms" for name, ms in steps if ms] + [f"{latency.total / 1e3:.1f} s in all"])
    if answer.cost_usd:
        yield f"${answer.cost_usd:.6f}"


def _show_citation(number: int, citation: Citation) -> None:
    mark, colour = _VERDICT[citation.verdict]
    if citation.document is None:
        say(f"[{number}] {mark} {citation.verdict}: no source speaks of it", colour)
        return
    where = place(citation.document, citation.page, citation.start, citation.end)
    if citation.heading:
        where += f", under “{_shortened(citation.heading)}”"
    say(f"[{number}] {mark} {citation.verdict}  {where}", colour)
    if citation.missing:
        say(f"      not there: {', '.join(citation.missing)}", colour)
    if citation.opposed:
        say("      the source says the opposite", colour)
    if citation.header:
        say(f"      {_shortened(citation.header)}", "dim")
    say(f"      “{_shortened(citation.quote or '')}”")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_QUOTE else line[:_SHOWN_QUOTE].rsplit(" ", 1)[0] + " …"


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table; cells are text, never markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(str(cell))) for cell in row))
    console().print(table)
