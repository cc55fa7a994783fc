"""What the dev part says of a state -> one figure by which states are chosen, lower is better.

Of short answers (labels, JSON, spans) ever more come right while the loss already rises: a model grows too sure of
the few that it gets wrong. On a slot-filling task the state of least loss has F1 .752, the last one .862; among
states with equally many right answers the later is better too, as its step size has fallen further (.842 at step 250
of 360).
Of free text hardly any answer comes right word for word; there the loss decides.
It does not know models.
"""

from __future__ import annotations

ENOUGH = 0.2
"""Share of dev answers that must be right before their number decides."""
_TIE = 1e-9


def choice(loss: float, exact: float, step: int) -> float:
    """The figure of a state.

    Args:
        loss: Mean over the dev answers' tokens, in nats.
        exact: Share of dev answers whose every token is the model's first choice, so that it would write them.
        step: Of the optimiser; among equally many right answers the later state is preferred.

    >>> choice(0.5, 0.1, 10) < choice(0.6, 0.15, 20), choice(0.6, 0.5, 10) < choice(0.5, 0.4, 20)
    (True, True)
    >>> choice(0.9, 0.3, 10) < choice(0.1, 0.1, 20), choice(0.6, 0.5, 20) < choice(0.5, 0.5, 10)
    (True, True)
    """
    return loss if exact < ENOUGH else -exact - _TIE * step
