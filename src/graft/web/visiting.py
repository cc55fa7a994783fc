"""A page in a browser -> who looks at it, asked again before each thing they do.

A page lives for hours over one socket. Whoever was put out, or whose key was revoked, meanwhile must not go on, so
that no page keeps a seat: it has a visitor, and each action asks the visitor for one. It does not know pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from graft.server.authorising import Serving, require, seat_of, session_cookie

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody at a page.

    Attributes:
        session: The secret of their session; None where nobody has to sign in.
    """

    serving: Serving
    session: str | None

    async def seat(self) -> Serving:
        """What they may use at this moment.

        Raises:
            Unauthorised: Nothing any more, or never.
        """
        return await seat_of(self.serving, None, self.session)

    async def look(self, verb: Callable[[Serving], T]) -> T:
        """What a quick verb answers for them, made in a thread.

        Raises:
            Unauthorised: As `seat`; and whatever the verb raises.
        """
        seat = await self.seat()
        return await asyncio.wrap_future(seat.lookups.start(lambda _: verb(seat)).future)

    async def work(self, what: str, verb: Callable[[Serving], T], *, slow: bool = False, **about: str) -> T:
        """What a verb that changes something answers, made in a thread; written into the audit log.

        Args:
            slow: It takes seconds or minutes: it waits its turn behind files that are read.
            about: What it is done to.
        Raises:
            RoleRefused: They may change nothing.
            Busy: The line is full.
        """
        seat = await self.seat()
        require(seat, "editor")
        seat.workspace.audit.record(f"page: {what}", caller=seat.caller.name, **about)
        lane = seat.imports if slow else seat.lookups
        return await asyncio.wrap_future(lane.start(lambda _: verb(seat)).future)


def visitor_of(request: Request, serving: Serving) -> Visitor:
    """Who asks for a page; the door has let in no other site's."""
    return Visitor(serving, request.cookies.get(session_cookie(serving)))
