"""An answer's call -> the same call, counted: refused where a quota is used up, written down when it has ended.

It does not know what is asked or how keys are checked.
"""

from __future__ import annotations

from graft.server.answers import Turn
from graft.server.authorising import Serving
from graft.server.lanes import Tell, Work


def metered(seat: Serving, work: Work[Turn]) -> Work[Turn]:
    """The call within its caller's quota; what it took is written down, however it ends.

    Of a call that its client leaves, the pieces that were written count: the model's own figures never come.

    Raises (when it is run):
        QuotaExceeded: Before the model is asked.
    """

    def call(tell: Tell) -> Turn:
        seat.workspace.spending.require_quota(seat.caller)
        written = 0

        def counting(piece: str) -> None:
            nonlocal written
            written += 1
            tell(piece)

        try:
            turn = work(counting)
        except BaseException:
            if written:
                write_down(seat, "", 0, written, None)
            raise
        write_down(seat, turn.model, turn.usage.input_tokens, turn.usage.output_tokens, turn.graft.cost_usd)
        return turn

    return call


def write_down(seat: Serving, model: str, read: int, written: int, cost_usd: float | None) -> None:
    """What a model's answer took: in the figures, and for its caller."""
    seat.metrics.answered(model, read=read, written=written, cost_usd=cost_usd)
    seat.workspace.spending.spend(seat.caller, tokens=read + written, cost_usd=cost_usd or 0.0)
