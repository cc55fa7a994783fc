"""What the dev part says of a state -> one figure by which states are chosen, lower is better.

Of short answers (labels, JSON, spans) ever more come right while the loss already rises: a model grows too sure of
the few that it gets wrong. On a slot-filling task the state of least loss has F1 .836, the last one .897.
Of free text hardly any answer comes right word for word; there the loss decides.
It does not know models.
"""

from __future__ import annotations

ENOUGH = 0.2
"""Share of dev answers that must be right before their number decides."""
_TIE = 1e-6


def choice(loss: float, exact: float) -> float:
    """The figure of a state; among equally many right answers the loss decides.

    Args:
        loss: Mean over the dev answers' tokens, in nats.
        exact: Share of dev answers whose every token is the model's first choice, so that it would write them.

    >>> choice(0.5, 0.1) < choice(0.6, 0.15), choice(0.6, 0.5) < choice(0.5, 0.4), choice(0.5, 0.5) < choice(0.6, 0.5)
    (True, True, True)
    >>> choice(0.9, 0.3) < choice(0.1, 0.1)
    True
    """
    return loss if exact < ENOUGH else _TIE * loss - exact
