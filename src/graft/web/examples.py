"""A file of examples on the Tune page: sent here, looked through line by line, mended where it stands.

Mending writes a new file and forgets the old one, so that what was checked is what is learnt. It does not know
trainings.
"""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from nicegui import ui

from graft.errors import GraftError, LimitExceeded, NotFound, UsageError
from graft.server.authorising import Serving, require
from graft.web.frame import telling
from graft.web.uploads import Sent, drop_zone
from graft.web.visiting import Visitor

if TYPE_CHECKING:
    from graft.dataset.checking import CheckReport
    from graft.dataset.findings import Finding

_MOST_SHOWN = 200
_MOST_MENDED_BYTES = 50_000_000
_SIGNS = {"error": "✗", "warning": "!", "note": "·"}


class Examples:
    """The first step: a file that can be learnt from.

    Args:
        changed: Told of the file's id and mapping, or None and None, whenever they are others.
    """

    def __init__(
        self, visitor: Visitor, changed: Callable[[str | None, Mapping[str, str] | None], Awaitable[None]]
    ) -> None:
        self._visitor, self._changed = visitor, changed
        self._file: str | None = None
        self._mapping: dict[str, str] | None = None

    def build(self) -> None:
        """Make the elements."""
        text = "Drop a file of examples here, or choose one: CSV, TSV, JSONL"
        drop_zone(text, self._upload, purpose="fine-tune", accept=".csv,.tsv,.jsonl,.json,.txt")
        self._told = ui.label().classes("hint").props("aria-live=polite")
        self._columns = ui.element("div").classes("choices")
        self._findings = ui.element("div").classes("findings")

    @telling
    async def _upload(self, sent: Sent) -> None:
        if sent.state in ("begun", "sending"):
            self._told.text = f"{sent.name}: {sent.share:.0%} here"
        elif sent.state == "sent":
            self._mapping = None
            await self._look_through(sent.file)
        else:
            self._told.text = f"{sent.name} was not taken: {sent.refusal or sent.state}"

    async def _look_through(self, file: str) -> None:
        """Check a file, and show what was found."""
        self._file = file
        self._told.text = "Looking through it …"
        self._columns.clear()
        self._findings.clear()
        try:
            report = await self._visitor.look(lambda seat: _checked(seat, file, self._mapping))
        except UsageError as error:
            self._told.text = f"{error.message}."
            await self._changed(None, None)
            await self._ask_columns(file)
            return
        except GraftError as error:
            self._told.text = f"{error.message} · {error.fix}"
            await self._changed(None, None)
            return
        self._show(report)
        await self._changed(file if report.examples else None, self._mapping)

    async def _ask_columns(self, file: str) -> None:
        names = await self._visitor.look(lambda seat: _columns(seat, file))
        if len(names) < 2:
            return
        with self._columns:
            prompt = ui.select(names, value=names[0], label="What is asked").props("dense outlined")
            answer = ui.select(names, value=names[1], label="What is to be answered").props("dense outlined")

            @telling
            async def take() -> None:
                self._mapping = {"prompt": str(prompt.value), "answer": str(answer.value)}
                await self._look_through(file)

            ui.button("Use these columns", on_click=take).props("no-caps unelevated")

    def _show(self, report: CheckReport) -> None:
        counts = {one: report.severities.get(one, 0) for one in _SIGNS}
        found = ", ".join(f"{n:,} {one}{'' if n == 1 else 's'}" for one, n in counts.items() if n)
        self._told.text = f"{report.examples:,} examples; {found or 'nothing found that would spoil them'}."
        with self._findings:
            order = list(_SIGNS)
            for finding in sorted(report.findings, key=lambda one: order.index(one.severity))[:_MOST_SHOWN]:
                self._finding(finding)
            if len(report.findings) > _MOST_SHOWN:
                ui.label(f"and {len(report.findings) - _MOST_SHOWN:,} more").classes("hint")

    def _finding(self, finding: Finding) -> None:
        with ui.element("div").classes(f"finding {finding.severity.value}"):
            ui.label(_SIGNS[finding.severity.value]).classes("sign").props("aria-hidden=true")
            with ui.element("div").classes("what"):
                where = "" if finding.line is None else f"line {finding.line}: "
                ui.label(f"{where}{finding.message}")
                ui.label(finding.fix).classes("hint")
            if finding.line is not None:
                line = finding.line
                ui.button("Mend", on_click=lambda: self._mend(line)).props("flat dense no-caps")

    @telling
    async def _mend(self, line: int) -> None:
        """Write a line otherwise, or leave it out."""
        file = self._file
        assert file is not None
        text = await self._visitor.look(lambda seat: _line(seat, file, line))
        with ui.dialog() as dialog, ui.card().classes("wide"):
            ui.label(f"Line {line}").classes("title")
            field = ui.textarea(value=text).props('outlined autogrow autofocus aria-label="The line"').classes("wide")
            with ui.row():
                ui.button("Keep this", on_click=lambda: dialog.submit(field.value)).props("no-caps unelevated")
                ui.button("Leave the line out", on_click=lambda: dialog.submit("")).props("no-caps flat")
                ui.button("Change nothing", on_click=lambda: dialog.submit(None)).props("no-caps flat")
        written = await dialog
        if written is not None and written != text:
            await self._look_through(await self._visitor.look(lambda seat: _mended(seat, file, line, written)))


def _checked(seat: Serving, file: str, mapping: Mapping[str, str] | None) -> CheckReport:
    require(seat, "editor")
    return seat.workspace.check_dataset(seat.workspace.file_path(file), mapping=mapping)


def _columns(seat: Serving, file: str) -> list[str]:
    """The columns that a file of a table names in its first line, or the keys of its first object."""
    import csv

    with seat.workspace.file_path(file).open(encoding="utf-8", errors="replace", newline="") as opened:
        first = opened.readline(100_000)
    try:
        value = json.loads(first)
        return list(value) if isinstance(value, dict) else []
    except ValueError:
        try:
            named = [next(csv.reader([first], delimiter=one), []) for one in ",;\t|"]
        except csv.Error:
            return []
        return [name.strip() for name in max(named, key=len) if name.strip()]


def _lines(seat: Serving, file: str) -> list[str]:
    path = seat.workspace.file_path(file)
    if path.stat().st_size > _MOST_MENDED_BYTES:
        raise LimitExceeded(
            f"{path.name} is over {_MOST_MENDED_BYTES // 1_000_000} MB, too large to be mended here",
            fix="mend it where it comes from, and send it again",
        )
    return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)


def _line(seat: Serving, file: str, line: int) -> str:
    lines = _lines(seat, file)
    if not 1 <= line <= len(lines):
        raise NotFound(f"the file has {len(lines)} lines, and none is {line}", fix="send it again")
    return lines[line - 1].rstrip("\r\n").encode("utf-8", "replace").decode()


def _mended(seat: Serving, file: str, line: int, text: str) -> str:
    """A new file with that line written otherwise, or without it; its id."""
    require(seat, "editor")
    workspace = seat.workspace
    lines = _lines(seat, file)
    lines[line - 1] = f"{text}\n" if text.strip() else ""
    content = io.BytesIO("".join(lines).encode("utf-8", "surrogateescape"))
    name = workspace.file_path(file).name
    made = workspace.put_file(name, content, purpose="fine-tune", most_bytes=seat.most_file_bytes)
    workspace.forget_file(file)
    return made.id


def report_row(values: Mapping[str, Any]) -> dict[str, str]:
    """Figures as they are shown: shares of 1 as percent, the rest with three digits.

    >>> report_row({"accuracy": 0.8333, "loss": 1.23456})
    {'accuracy': '83.3%', 'loss': '1.23'}
    """
    return {name: f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3g}" for name, value in values.items()}
