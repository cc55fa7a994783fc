"""What the dataset verbs found or made -> the terminal.

It knows no verbs.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graft.cli.output import console, counted, note, say, show_table

if TYPE_CHECKING:
    from graft.dataset.checking import CheckReport
    from graft.dataset.dedupe import Deduped
    from graft.dataset.findings import Finding
    from graft.dataset.questions import Estimate, Generated
    from graft.dataset.splitting import SplitFiles

_SHOWN = 3
_SHOWN_LABELS = 8
_MARKS = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "dim")}
_ORDER = {severity: rank for rank, severity in enumerate(_MARKS)}


@contextmanager
def count_progress(label: str, *, quiet: bool) -> Iterator[Any]:
    """A bar of counted things on stderr, as a callback (done, total); nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_check(report: CheckReport) -> None:
    """The summary, then findings by kind: how many, the first few lines, and the fix."""
    rate = f", {report.examples / report.seconds:,.0f} a second" if report.seconds else ""
    say(f"{report.file}: {report.examples:,} examples in {report.seconds:.1f} s{rate}", "bold")
    if report.tokens is not None:
        told = report.tokens
        how = "estimated; --model NAME counts them" if told.estimated else "counted"
        say(f"  tokens: half up to {told.p50}, 95% up to {told.p95}, most {told.max} of {told.context} ({how})")
    if report.labels:
        say(f"  labels: {len(report.labels)}: {_shares(report.labels)}")
    if report.languages:
        say(f"  languages: {_shares(report.languages)}")
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        groups[finding.code].append(finding)
    for code, found in sorted(groups.items(), key=lambda item: (_ORDER[item[1][0].severity], item[0])):
        _show_group(code, found, report.counts[code])
    counts = ", ".join(f"{count:,} {name}s" for name, count in report.severities.items())
    say(f"\n{counts}", "green" if report.ok else "red")


def _show_group(code: str, found: list[Finding], count: int) -> None:
    mark, colour = _MARKS[found[0].severity]
    say(f"\n{mark} {code} ({count:,})", colour)
    for finding in found[:_SHOWN]:
        where = "" if finding.line is None else f"line {finding.line}: "
        say(f"    {where}{_shortened(finding.message)}")
    if count > _SHOWN:
        say(f"    ... and {count - _SHOWN:,} more; --json lists them", "dim")
    for fix in dict.fromkeys(finding.fix for finding in found[:_SHOWN]):
        say(f"    fix: {fix}", "green")


def _shares(counts: Mapping[str, int]) -> str:
    ordered = Counter(counts).most_common()
    shown = ", ".join(f"{_shortened(name, 40)} {count}" for name, count in ordered[:_SHOWN_LABELS])
    return shown if len(ordered) <= _SHOWN_LABELS else f"{shown}, ... {ordered[-1][0]} {ordered[-1][1]}"


def _shortened(text: str, most: int = 240) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


def show_dedupe(result: Deduped, target: str) -> None:
    """How many were left out, and the first of them with what they repeat."""
    kinds = Counter(dropped.kind for dropped in result.dropped)
    say(f"kept {len(result.kept):,}, left out {kinds['exact']:,} duplicates and {kinds['near']:,} near-duplicates")
    for dropped in result.dropped[:_SHOWN]:
        say(f"    {dropped.origin} says what {dropped.kept_origin} says ({dropped.similarity:.0%} alike)", "dim")
    say(f"wrote {target}")


def note_unread(unread: int, file: str) -> None:
    """Lines that are in no file that was written, on stderr."""
    if unread:
        note(
            f"left out {counted(unread, 'line')} that are no examples; graft dataset check {file} says why", "yellow"
        )


def show_split(result: SplitFiles) -> None:
    """The parts and their files."""
    total = sum(map(len, result.split.ids.values()))
    rows = [
        (part, f"{len(ids):,}", f"{len(ids) / total:.1%}", result.files[part])
        for part, ids in result.split.ids.items()
    ]
    show_table(["part", "examples", "share", "file"], rows)
    say(f"{'taken up from' if result.reused else 'frozen in'} {result.frozen}", "dim")


def show_estimate(expected: Estimate) -> None:
    """What is about to be spent, on stderr."""
    cost = "cost unknown (--price tells it)" if expected.cost_usd is None else f"about ${expected.cost_usd:.2f}"
    time = "" if expected.seconds is None else f", about {expected.seconds / 60:.0f} min"
    note(
        f"{expected.passages} passages; about {expected.tried} needed, {expected.calls} calls, "
        f"{expected.input_tokens:,} + {expected.output_tokens:,} tokens: {cost}{time}"
    )


def show_generated(made: Generated, target: str) -> None:
    """How many were kept, and why others were not."""
    from graft.dataset.asking import REASONS
    from graft.dataset.generating import question_file

    found = sum(question.retrieved is not None for question in made.questions)
    say(f"{len(made.questions)} questions from {made.tried} passages: {made.stopped}", "bold")
    say(f"  retrieval finds the evidence of {found}")
    for reason, count in Counter(made.dropped).most_common():
        say(f"  {count} dropped: {REASONS[reason]}", "yellow")
    cost = "cost unknown" if made.cost_usd is None else f"${made.cost_usd:.4f}"
    resumed = f", {made.resumed} passages from an earlier run" if made.resumed else ""
    say(f"  {made.input_tokens:,} + {made.output_tokens:,} tokens, {made.seconds:.0f} s, {cost}{resumed}", "dim")
    say(f"wrote {target} and {question_file(target)}")
