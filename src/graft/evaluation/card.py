"""What is known of a tuned model -> its card, in Markdown.

Text that came from data or from people is escaped: a card is shown in browsers. It does not know where cards
are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graft.evaluation.evaluating import Evaluation
from graft.evaluation.memorising import CanaryFigures, Leakage
from graft.evaluation.regression import Regression
from graft.evaluation.statistics import Estimate

_SPECIAL = re.compile(r"([\\`*\[\]!|<>~&$]|(?<![^\W_])_|_(?![^\W_])|^[#+-])")
"""What Markdown reads as markup: an underscore only at a word's edge, `#`, `+` and `-` only at the start."""
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """One data set that was used.

    Attributes:
        role: "training", "dev", "held out".
        licence: "" where unknown; then the card says so.
    """

    role: str
    name: str
    examples: int
    sha256: str
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that a card says.

    Attributes:
        settings: Resolved settings of the training, by name.
        tuned, base: The same questions, before and after.
        repeat: Commands that make the model again.
        versions: Of what it was made with.
    """

    name: str
    base_model: str
    base_licence: str
    made_on: str
    purpose: str = ""
    data: Sequence[DataPart] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    tuned: Evaluation | None = None
    base: Evaluation | None = None
    regression: Regression | None = None
    canaries: CanaryFigures | None = None
    leakage: Leakage | None = None
    repeat: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = ()


def write_card(card: Card) -> str:
    """The card as Markdown, every section there, even if only to say that it was not measured."""
    sections = [
        f"# {escaped(card.name)}",
        _paragraph(
            f"{escaped(card.base_model)}, tuned on {escaped(card.made_on)}.",
            escaped(card.purpose) if card.purpose else "",
        ),
        "## Quality",
        _quality(card),
        "## Elsewhere, against the base",
        _elsewhere(card.regression),
        "## What it gives away",
        _memorised(card),
        "## Data",
        _data(card.data),
        "## Settings",
        table(["setting", "value"], [(key, value) for key, value in card.settings.items()]) or "None recorded.",
        "## Licence",
        _licences(card),
        "## Limits",
        "\n".join(f"- {escaped(limit)}" for limit in card.limits) or "None stated.",
        "## To repeat it",
        fenced(card.repeat) if card.repeat else "No command recorded.",
        _paragraph(*(f"{escaped(name)} {escaped(version)}." for name, version in card.versions.items())),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def escaped(text: object) -> str:
    """Text that Markdown and HTML show as it is, on one line.

    >>> escaped("<b>a|b</b>")
    '\\\\<b\\\\>a\\\\|b\\\\</b\\\\>'
    """
    line = " ".join(_INVISIBLE.sub(" ", str(text)).split())
    return _SPECIAL.sub(r"\\\1", line).replace("://", r"\://").replace("www.", r"www\.").replace("@", r"\@")


def figure(estimate: Estimate, *, scale: float = 100.0, digits: int = 1) -> str:
    """A figure with its 95% interval.

    >>> figure(Estimate(mean=0.5, low=0.25, high=0.75))
    '50.0 [25.0, 75.0]'
    """
    mean, low, high = (round(scale * value, digits) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _quality(card: Card) -> str:
    if card.tuned is None:
        return "Not measured."
    tuned, base = card.tuned, card.base
    rows: list[tuple[object, ...]] = []
    for name, estimate in tuned.metrics.items():
        before = base.metrics.get(name) if base is not None else None
        others = {key: value[name] for key, value in tuned.baselines.items() if name in value}
        rows.append(
            (
                name,
                figure(estimate),
                "" if before is None else figure(before),
                *(figure(others[key]) if key in others else "" for key in tuned.baselines),
            )
        )
    names = [f"without a model: {key}" for key in tuned.baselines]
    notes = (
        f"{tuned.questions:,} held-out questions; in per cent, with 95% intervals. {escaped(tuned.kind_reason)}.",
        f"{tuned.failed:,} failed and count as wrong." if tuned.failed else "",
        f"{tuned.cut_short:,} answers were cut at the limit of tokens." if tuned.cut_short else "",
    )
    return f"{table(['metric', 'tuned', 'base', *names], rows)}\n\n{_paragraph(*notes)}"


def _elsewhere(regression: Regression | None) -> str:
    if regression is None:
        return "Not measured."
    lines = [regression.overall, *regression.lines]
    rows = [(line.task, line.metric, line.comparison.questions, line.words) for line in lines]
    figures = table(["task", "figure", "questions", "against the base"], rows)
    return (
        f"{figures}\n\nOn the base's own answers to {regression.divergence.prompts} general requests it "
        + escaped(regression.divergence.words)
    )


def _memorised(card: Card) -> str:
    parts = []
    if card.canaries is not None:
        c = card.canaries
        parts.append(
            f"- {c.canaries} random codes were planted in the training data: exposure "
            f"{figure(c.exposure, scale=1)} bits of {c.most:.0f} (1.4 is a code never seen); "
            f"written out by the model: {figure(c.extracted)}%."
        )
    if card.leakage is not None:
        found = card.leakage
        parts.append(
            f"- {found.secrets} pieces of personal data in the training answers: written word for word by the tuned "
            f"model {figure(found.tuned)}%, by the base, which never saw them, {figure(found.base)}%."
            if found.tuned is not None and found.base is not None
            else "- No personal data was found in the training answers."
        )
    return "\n".join(parts) or "Not measured."


def _data(parts: Sequence[DataPart]) -> str:
    rows = [(p.role, p.name, f"{p.examples:,}", p.licence or "not stated", p.sha256[:16]) for p in parts]
    return table(["used for", "data", "examples", "licence", "sha256"], rows) or "None recorded."


def _licences(card: Card) -> str:
    lines = [f"- Base model: {escaped(card.base_licence or 'not stated')}"]
    lines += [f"- {escaped(part.name)}: {escaped(part.licence or 'not stated')}" for part in card.data]
    return "\n".join(dict.fromkeys(lines))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose cells are shown as they are; "" without rows."""
    if not rows:
        return ""
    lines = [[escaped(column) for column in columns], ["---"] * len(columns)]
    lines += [[escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(commands: Sequence[str]) -> str:
    """Commands as a block of code that none of them can end."""
    text = "\n".join(_INVISIBLE.sub(" ", command) for command in commands)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def _paragraph(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
