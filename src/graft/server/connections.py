"""A connection -> closed, unless every request on it comes whole in time.

uvicorn waits for ever for what a client does not send, and each connection that waits holds one of the few
descriptors that a process may open: silent ones would keep everybody else out. It does not know requests.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
BODY_SECONDS = 120.0
"""The largest body that is taken needs 64 s over a tunnel of 1 Mbit/s."""


class Connection(H11Protocol):
    """uvicorn's own, with a deadline for a request's head and one for its body."""

    _awaited: object = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """The first request is awaited."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A part of a request has come, perhaps its last."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """The next request is awaited."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._await(None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        self._await(state if state in (h11.IDLE, h11.SEND_BODY) else None)

    def _await(self, part: object) -> None:
        """Begin the deadline of a part of a request, unless it runs; None ends what runs."""
        if part is self._awaited:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = BODY_SECONDS if part is h11.SEND_BODY else HEAD_SECONDS
        self._deadline = None if part is None else self.loop.call_later(seconds, self.transport.close)
        self._awaited = part
