"""A caller's requests of the last minute -> whether one more may come. It does not know what is asked."""

from __future__ import annotations

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from graft.identity import Caller
from graft.server.failing import Busy


class Rates:
    """Requests of the last minute by key; one server's own."""

    def __init__(self) -> None:
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def take(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            Busy: The key's minute is used up; says when to come again.
        """
        if caller.requests_per_minute is None:
            return
        limit = RateLimitItemPerMinute(caller.requests_per_minute)
        if self._window.hit(limit, caller.key):
            return
        seconds = max(1, round(self._window.get_window_stats(limit, caller.key).reset_time - time.time()))
        raise Busy(
            f"the key {caller.key} may ask {caller.requests_per_minute} times a minute",
            fix=f"ask again in {seconds} s, or ask an administrator for a key with more",
            retry_after_s=seconds,
        )
