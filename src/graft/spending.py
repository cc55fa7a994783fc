"""A caller's answers -> what they took, for a key's day and a user's month; and whether one more may begin.

It does not know how keys are checked, nor what an answer is.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from graft.errors import QuotaExceeded
from graft.identity import Caller
from graft.store import tables as t
from graft.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was used in a day (2026-01-31) or a month (2026-01), UTC; `cost_usd` of what has a price."""

    period: str
    answers: int
    tokens: int
    cost_usd: float


class Spending:
    """What the callers of one workspace have used.

    Args:
        database: Of the store; what is spent does not raise its sequence, so nobody reads anything again for it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Give back all connections."""
        self._database.close()

    def spend(self, caller: Caller, *, tokens: int, cost_usd: float) -> None:
        """Write down what an answer took: for the key's day, and for the user's month."""
        subjects = [(f"key:{caller.key}", _day())] if caller.key else []
        subjects += [(f"user:{caller.user}", _month())] if caller.user else []
        if not subjects:
            return
        with self._database.writing(tells=False) as (connection, _):
            for subject, period in subjects:
                at = (t.spending.c.subject == subject) & (t.spending.c.period == period)
                more = {
                    "answers": t.spending.c.answers + 1,
                    "tokens": t.spending.c.tokens + tokens,
                    "cost_usd": t.spending.c.cost_usd + cost_usd,
                }
                if not connection.execute(update(t.spending).where(at).values(more)).rowcount:
                    first = {"subject": subject, "period": period, "answers": 1, "tokens": tokens}
                    connection.execute(insert(t.spending).values(**first, cost_usd=cost_usd))

    def spent(self, subject: str, period: str | None = None) -> Spent:
        """What a subject ("user:ana", "key:ana-laptop") has used in a period; by default in the one that runs."""
        when = period or (_month() if subject.startswith("user:") else _day())
        with self._database.reading() as connection:
            row = connection.execute(
                select(t.spending).where(t.spending.c.subject == subject, t.spending.c.period == when)
            ).first()
        if row is None:
            return Spent(period=when, answers=0, tokens=0, cost_usd=0.0)
        return Spent(period=when, answers=row.answers, tokens=row.tokens, cost_usd=row.cost_usd)

    def require_quota(self, caller: Caller) -> None:
        """Let an answer begin; the one that exceeds a limit is the last.

        Raises:
            QuotaExceeded: The key's day or the user's month is used up; names the figures.
        """
        if caller.tokens_per_day is not None:
            used = self.spent(f"key:{caller.key}")
            if used.tokens >= caller.tokens_per_day:
                raise QuotaExceeded(
                    f"the key {caller.key} has used {used.tokens:,} of its {caller.tokens_per_day:,} tokens a day",
                    fix="wait for the next day (UTC), or ask an administrator for a key with more",
                )
        if caller.budget_usd is not None:
            used = self.spent(f"user:{caller.user}")
            if used.cost_usd >= caller.budget_usd:
                raise QuotaExceeded(
                    f"{caller.user} has spent ${used.cost_usd:.2f} of ${caller.budget_usd:.2f} this month",
                    fix="wait for the next month (UTC), or ask an administrator: graft users set NAME --budget USD",
                )


def _day() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"


def _month() -> str:
    return _day()[:7]
