"""/v1/files: upload, list, read, remove. The bytes of an upload go to disk piece by piece, once its key is known.

It does not know what files are used for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from graft.objects import MOST_A_PAGE, Order, Page, Stored
from graft.server.authorising import EditorSeat, Seat
from graft.server.failing import ParameterRefused
from graft.workspace.files import FILE, PURPOSES

router = APIRouter(prefix="/v1/files", tags=["files"])

_SOONEST_S, _LATEST_S = 3_600, 2_592_000
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": _SOONEST_S, "maximum": _LATEST_S},
                    },
                }
            }
        },
    }
}

Limit = Annotated[int, Query(ge=1, le=MOST_A_PAGE)]
Cursor = Annotated[str | None, Query(max_length=200)]


class FileObject(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Some of the files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


@router.post("", response_model=FileObject, openapi_extra=_FORM)
async def upload_file(request: Request, seat: EditorSeat) -> FileObject:
    """Keep a file; it is yours until you put it into a vector store that others may search."""
    async with request.form(max_files=1, max_fields=16) as form:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile) or not isinstance(purpose, str):
            raise ParameterRefused(
                "an upload is a form with a file and a purpose",
                param="file" if not isinstance(file, UploadFile) else "purpose",
                fix='client.files.create(file=open("notes.md", "rb"), purpose="assistants")',
                code="missing_required_parameter",
            )
        stored = await run_in_threadpool(
            seat.workspace.put_file,
            file.filename or "",
            file.file,
            purpose=purpose,
            expires_after=_expiry(form.get("expires_after[seconds]")),
            most_bytes=seat.most_file_bytes,
        )
    return _file(stored)


@router.get("", response_model=FileList)
def list_files(
    seat: Seat, limit: Limit = 20, order: Order = "desc", after: Cursor = None, purpose: str | None = None
) -> FileList:
    """The caller's files, newest first."""
    page = seat.workspace.objects.page(
        FILE,
        principals=seat.workspace.principals,
        limit=limit,
        order=order,
        after=after,
        keep=None if purpose is None else lambda body: bool(body["purpose"] == purpose),
    )
    return FileList(data=[_file(one) for one in page.data], **ends_of(page))


@router.get("/{file_id}", response_model=FileObject)
def retrieve_file(file_id: str, seat: Seat) -> FileObject:
    """One file's object."""
    return _file(seat.workspace.objects.get(FILE, file_id, principals=seat.workspace.principals))


@router.get("/{file_id}/content", response_class=Response)
def retrieve_content(file_id: str, seat: Seat) -> Response:
    """One file's bytes, as a download: a browser shows nothing of them."""
    path = seat.workspace.file_path(file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.delete("/{file_id}", response_model=Deleted)
def delete_file(file_id: str, seat: EditorSeat) -> Deleted:
    """Remove a file, also out of the vector stores that it is in."""
    return Deleted(id=seat.workspace.remove_file(file_id).id, object="file")


def ends_of(page: Page) -> dict[str, Any]:
    """The cursors of a page."""
    ids = [one.id.rpartition("/")[2] for one in page.data]
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": page.has_more}


def _file(stored: Stored) -> FileObject:
    body = stored.body
    return FileObject(
        id=stored.id,
        bytes=body["bytes"],
        created_at=stored.created_at,
        expires_at=body["expires_at"],
        filename=body["filename"],
        purpose=body["purpose"],
    )


def _expiry(given: Any) -> int | None:
    if given is None:
        return None
    if not isinstance(given, str) or not given.isdecimal() or not _SOONEST_S <= int(given[:12]) <= _LATEST_S:
        raise ParameterRefused(
            f"expires_after[seconds] is not from {_SOONEST_S:,} to {_LATEST_S:,}",
            param="expires_after",
            fix='expires_after={"anchor": "created_at", "seconds": 86400}',
        )
    return int(given)
