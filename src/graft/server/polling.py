"""A response in the background: kept at once, made when its turn comes, polled and cancelled by its status.

Its status changes in one transaction each, so that a cancelled one never ends otherwise. What a server that was
stopped had not finished is failed by the next. It does not know how an answer is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool

from graft.errors import ContextOverflow, GraftError, NotFound, QuotaExceeded, UsageError
from graft.server.answers import Turn, chat_model
from graft.server.authorising import Serving
from graft.server.failing import failure_of
from graft.server.lanes import ClientLeft, Running, Tell, Work
from graft.server.log import log_unexpected
from graft.server.responding import RESPONSE, Made, kept
from graft.workspace import Workspace

UNDER_WAY = "response.under_way"
_OPEN = ("queued", "in_progress")


async def put_in_line(made: Made, work: Work[Turn]) -> dict[str, Any]:
    """Put a response in line; returns it as it is now, queued.

    Raises:
        NoSuchModel: It could never be made.
        Busy: The line is full; nothing is kept.
    """
    seat, queued = made.seat, made.began("queued")
    await run_in_threadpool(_queue, made, queued)
    try:
        running = seat.answers.start(lambda tell: _call(made, work, tell))
    except GraftError:
        await run_in_threadpool(seat.workspace.objects.remove, RESPONSE, made.id, principals=seat.workspace.owns)
        raise
    seat.background[made.id] = running
    running.future.add_done_callback(lambda _: seat.background.pop(made.id, None))
    return queued


def cancelled(seat: Serving, id: str) -> dict[str, Any]:
    """Give a response up, if it has not ended; returns it as it is then.

    Raises:
        NotFound: It is not there, or not theirs.
        UsageError: It was not made in the background.
    """
    workspace = seat.workspace
    if not kept(workspace, id).body["response"]["background"]:
        raise UsageError(
            "Cannot cancel a synchronous response.", fix="background=True makes one that can be cancelled"
        )
    edited = workspace.objects.edit(RESPONSE, id, lambda body: _moved(body, "cancelled"), principals=workspace.owns)
    give_up(seat, id)
    _forget(workspace, id)
    response: dict[str, Any] = edited.body["response"]
    return response


def give_up(seat: Serving, id: str) -> None:
    """Stop making a response, if it is being made here."""
    running: Running[Any] | None = seat.background.get(id)
    if running is not None:
        running.leave()


def fail_left_over(workspace: Workspace) -> int:
    """Fail what a server that was stopped had not finished, everybody's; returns how many.

    To be called before anything is asked: it cannot tell what is under way now.
    """
    failed, why = 0, {"code": "server_error", "message": "the server was stopped before this response was finished"}
    for mark in workspace.objects.all(UNDER_WAY):
        theirs = workspace.acting_as(mark.principals)
        with suppress(NotFound):
            theirs.objects.edit(
                RESPONSE, str(mark.parent), lambda body: _moved(body, "failed", error=why), principals=theirs.owns
            )
            failed += 1
        _forget(theirs, str(mark.parent))
    return failed


def _queue(made: Made, queued: Mapping[str, Any]) -> None:
    workspace = made.seat.workspace
    chat_model(workspace, made.body.model)
    # The mark first: a response without one would be queued for ever, were the server killed between the two.
    workspace.objects.put(UNDER_WAY, {}, id=_mark(made.id), owners=workspace.owns, parent=made.id)
    made.keep(queued)


def _call(made: Made, work: Work[Turn], tell: Tell) -> Turn:
    try:
        _begin(made)
        turn = work(tell)
        _end(made, turn)
    except ClientLeft:  # cancelled, or the server is being stopped, which the next one will tell
        raise
    except Exception as error:  # the edge: nobody waits, so the failure becomes the status
        if not isinstance(error, GraftError):
            log_unexpected(error)
        _fail(made, error)
        raise
    return turn


def _begin(made: Made) -> None:
    objects, owns = made.seat.workspace.objects, made.seat.workspace.owns
    begun = objects.edit(RESPONSE, made.id, lambda body: _moved(body, "in_progress"), principals=owns)
    if begun.body["response"]["status"] != "in_progress":
        raise ClientLeft


def _end(made: Made, turn: Turn) -> None:
    workspace = made.seat.workspace
    if kept(workspace, made.id).body["response"]["status"] not in _OPEN:
        raise ClientLeft
    whole = made.whole(turn)
    made.converse(whole)
    ended = made.record(whole, turn.text)
    workspace.objects.edit(
        RESPONSE, made.id, lambda body: ended if _is_open(body) else body, principals=workspace.owns
    )
    _forget(workspace, made.id)


def _fail(made: Made, error: Exception) -> None:
    told, workspace = failure_of(error).error, made.seat.workspace
    code = "server_error"
    if isinstance(error, QuotaExceeded):
        code = "rate_limit_exceeded"
    elif isinstance(error, ContextOverflow | UsageError):
        code = "invalid_prompt"
    why = {"code": code, "message": told.message}
    with suppress(NotFound):  # it was removed meanwhile
        workspace.objects.edit(
            RESPONSE, made.id, lambda body: _moved(body, "failed", error=why), principals=workspace.owns
        )
    _forget(workspace, made.id)


def _moved(body: Mapping[str, Any], status: str, **values: Any) -> Mapping[str, Any]:
    """The body with another status; as it is, if the response has ended."""
    return {**body, "response": {**body["response"], "status": status, **values}} if _is_open(body) else body


def _is_open(body: Mapping[str, Any]) -> bool:
    return body["response"]["status"] in _OPEN


def _forget(workspace: Workspace, id: str) -> None:
    with suppress(NotFound):
        workspace.objects.remove(UNDER_WAY, _mark(id), principals=workspace.owns)


def _mark(id: str) -> str:
    return f"{id}/under_way"
