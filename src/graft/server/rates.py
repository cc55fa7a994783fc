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

    def take(self, caller: Caller) -> dict[str, str]:
        """Count a request.

        Returns: What OpenAI's headers tell of the minute; nothing where there is no limit.
        Raises:
            Busy: The key's minute is used up; says when to come again.
        """
        if caller.requests_per_minute is None:
            return {}
        limit = RateLimitItemPerMinute(caller.requests_per_minute)
        taken = self._window.hit(limit, caller.key)
        stats = self._window.get_window_stats(limit, caller.key)
        seconds = max(1, round(stats.reset_time - time.time()))
        if taken:
            return {
                "x-ratelimit-limit-requests": str(caller.requests_per_minute),
                "x-ratelimit-remaining-requests": str(stats.remaining),
                "x-ratelimit-reset-requests": f"{seconds}s",
            }
        raise Busy(
            f"the key {caller.key} may ask {caller.requests_per_minute} times a minute",
            fix=f"ask again in {seconds} s, or ask an administrator for a key with more",
            retry_after_s=seconds,
        )
