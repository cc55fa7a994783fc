"""A place to drop files: the browser sends them by the one route for uploads, and tells how far it is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nicegui import events, ui


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a browser tells of a file.

    Attributes:
        key: Of this upload, in the browser.
        state: "begun", "sending", "sent", "stopped" or "refused".
        share: Of it that is here.
        file: Its id, once it is sent; "" before.
        refusal: The server's words, where it was refused.
    """

    key: str
    name: str
    state: str
    share: float
    file: str = ""
    refusal: str = ""


def drop_zone(
    text: str, told: Callable[[Sent], Awaitable[None]], *, purpose: str, multiple: bool = False, accept: str = ""
) -> None:
    """A labelled field into which files are dropped or chosen.

    Args:
        purpose: As of /v1/files.
        accept: Endings, with commas; all where it is empty.
    """

    async def heard(event: events.GenericEventArguments) -> None:
        await told(_sent(event.args))

    with ui.element("label").classes("drop") as zone:
        ui.icon("upload_file").props("aria-hidden=true")
        ui.label(text)
        field = ui.element("input").props(f'type=file accept="{accept}"' + (" multiple" if multiple else ""))
    send = f"(event) => graftUpload(event.target.files || event.dataTransfer.files, emit, {json.dumps(purpose)})"
    field.on("change", heard, js_handler=send)
    zone.on("drop.prevent", heard, js_handler=send)
    zone.on("dragover.prevent", js_handler="() => {}")


def stop(key: str) -> None:
    """Give an upload up."""
    ui.run_javascript(f"graftStopUpload({json.dumps(key)})")


def _sent(args: Any) -> Sent:
    file = refusal = ""
    if args["state"] in ("sent", "refused"):
        try:
            reply = json.loads(args["reply"])
            file, refusal = str(reply.get("id", "")), str(reply.get("error", {}).get("message", ""))
        except ValueError:
            refusal = "the server did not answer"
    return Sent(
        key=str(args["id"])[:100],
        name=str(args["name"])[:200],
        state=str(args["state"]),
        share=float(args.get("share", 0)),
        file=file,
        refusal=refusal,
    )
