"""XLSX, XLS and ODS -> Document: each sheet a heading, its first row the header, rows "a | b | c".

Values are the stored ones, written as people write them; a cell's number format (percent, currency) is
not known here. Hidden sheets are left out and named in the metadata.
"""

from __future__ import annotations

import datetime as dt
import io

from python_calamine import (
    CalamineError,
    CalamineSheet,
    PasswordError,
    SheetVisibleEnum,
    WorksheetNotFound,
    load_workbook,
)

from graft.documents import BlockKind, Document
from graft.errors import LimitExceeded, ReadError
from graft.readers.archives import open_archive
from graft.readers.building import TextBuilder
from graft.readers.tables import add_grid
from graft.settings import ReadingSettings

_MAX_CELLS = 50_000_000  # of one sheet's rectangle; two cells in far corners span 17,000,000,000
Cell = int | float | str | bool | dt.time | dt.date | dt.datetime | dt.timedelta


def read(data: bytes, *, name: str, limits: ReadingSettings) -> Document:
    """Read a workbook.

    Raises:
        ReadError: Damaged, encrypted, or without a filled cell on a visible sheet.
        LimitExceeded: Too large once unpacked, or a sheet that spans too many cells.
    """
    if data[:2] == b"PK":
        open_archive(data, name=name, limits=limits).close()
    try:
        return _read(data, name, limits)
    except PasswordError as error:
        raise ReadError(f"{name} is encrypted", fix="open it, remove the password, and save it again") from error
    except (CalamineError, OSError) as error:
        raise _damaged(name, error) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of the Rust library; not an Exception
            raise _damaged(name, error) from error
        raise


def _damaged(name: str, error: BaseException) -> ReadError:
    return ReadError(
        f"{name} is a damaged workbook: {error}", fix="open it in a spreadsheet program and save it again"
    )


def _read(data: bytes, name: str, limits: ReadingSettings) -> Document:
    workbook = load_workbook(io.BytesIO(data))
    builder = TextBuilder(name=name, limits=limits)
    visible = [s.name for s in workbook.sheets_metadata if s.visible is SheetVisibleEnum.Visible]
    hidden = [s for s in workbook.sheet_names if s not in visible]
    for sheet_name in visible:
        try:
            sheet = workbook.get_sheet_by_name(sheet_name)
        except WorksheetNotFound:  # a chart sheet has no cells
            continue
        _add_sheet(builder, sheet, name)
    metadata = {"sheets": ", ".join(visible), "hidden_sheets": ", ".join(hidden)}
    return builder.document("xlsx", metadata=metadata)


def _add_sheet(builder: TextBuilder, sheet: CalamineSheet, name: str) -> None:
    if sheet.height * sheet.width > _MAX_CELLS:
        raise LimitExceeded(
            f"sheet {sheet.name!r} of {name} spans {sheet.height:,} x {sheet.width:,} cells, "
            f"the limit is {_MAX_CELLS:,}",
            fix="delete the far-off cells, or export the table as CSV",
        )
    rows = [[as_written(cell) for cell in row] for row in sheet.to_python()]
    if not any(cell for row in rows for cell in row):
        return
    _fill_merged_down(rows, sheet)
    builder.add(sheet.name, BlockKind.HEADING, level=1)
    add_grid(builder, rows)


def _fill_merged_down(rows: list[list[str]], sheet: CalamineSheet) -> None:
    """A label merged over several rows of one column belongs to each of them."""
    top, left = sheet.start or (0, 0)
    for (first_row, first_column), (last_row, last_column) in sheet.merged_cell_ranges or ():
        column = first_column - left
        if last_column != first_column or not 0 <= first_row - top < len(rows) or column < 0:
            continue
        for row in rows[first_row - top + 1 : last_row - top + 1]:
            if column < len(row):
                row[column] = row[column] or rows[first_row - top][column]


def as_written(value: Cell) -> str:
    """A cell's value as people write it.

    >>> [as_written(v) for v in (4950.0, 0.1 + 0.2, True, dt.datetime(2024, 5, 1), "x")]
    ['4950', '0.3', 'TRUE', '2024-05-01', 'x']
    """
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        return format(value, ".15g")  # what the program itself shows; repr would show the binary rest
    if isinstance(value, dt.datetime):
        midnight = value.time() == dt.time()
        return value.date().isoformat() if midnight else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value)
