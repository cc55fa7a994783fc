"""The report of a comparison: the same figures in every form, and nothing from outside but text."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console, RenderableType

from graft.comparing.report import markdown, terminal, write_html
from graft.comparing.report_figures import clean, leader, score_pairs
from graft.comparing.report_html import SHOWN_EXAMPLES, SHOWN_QUESTIONS, page
from graft.comparing.report_plot import LEFT, RIGHT, TOP, plot
from graft.comparing.values import SCORE, Arm, ArmReply, Comparison, LatencyFigures, Record
from graft.errors import UsageError
from graft.evaluation.statistics import mean_interval
from tests.comparison_example import example

HOSTILE = (
    "<script>alert(1)</script><img src=http://evil.example/a onerror=alert(2)>\"'><svg onload=alert(3)>"
    "</style></title>{{ 7*7 }}{% raw %} [x](javascript:alert(4)) ![y](http://evil.example/b) "
    "| cell | `tick` \n| --- |\n# head\n```\n<b>bold</b> \x1b[2J\x1b]0;owned\x07 \u202egnp.exe\u2066\x00 \ud83d "
)


class Seen(HTMLParser):
    """Tags, attributes and text of a page, as a browser's parser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.values: list[float] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "data":
            self.values.append(float(dict(attrs)["value"] or "nan"))

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(renderable: RenderableType, width: int = 120) -> str:
    console = Console(width=width, soft_wrap=True, force_terminal=True, color_system=None)  # as the command line's
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def poisoned(value: Any) -> Any:
    """Every text of a comparison's JSON with hostile text behind it, but for what the report looks up."""
    if isinstance(value, dict):
        return {key: inner if key in ("verdict", "metric") else poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return value + HOSTILE if isinstance(value, str) else value


def hostile() -> Comparison:
    """Everything that is text is hostile, names of arms and kinds, keys and settings too."""
    made = example(questions=12)
    made = Comparison.from_json({**poisoned(made.to_json()), "version": made.version})
    arms = tuple(
        replace(arm, by_kind={kind + HOSTILE: inner for kind, inner in arm.by_kind.items()}, error=HOSTILE)
        if arm.name.startswith("few-shot")
        else arm
        for arm in made.arms
    )
    records = tuple(
        replace(record, replies={name + HOSTILE: reply for name, reply in record.replies.items()})
        for record in made.records
    )
    return replace(
        made,
        arms=arms,
        records=records,
        verdict=made.verdict + HOSTILE,
        partial=HOSTILE,
        kinds={kind + HOSTILE: number for kind, number in made.kinds.items()},
        settings={**made.settings, HOSTILE: {HOSTILE: HOSTILE}},
    )


def test_hostile_text_never_becomes_markup_in_the_page() -> None:
    plain, attacked = Seen(page(example(questions=12))), Seen(page(hostile()))
    assert "alert(1)" in attacked.text, "the hostile text is not shown at all"
    assert set(attacked.tags) == set(plain.tags)
    assert not {"script", "img", "iframe", "object", "link", "form", "base", "foreignobject"} & set(attacked.tags)
    assert attacked.tags["b"] <= plain.tags["b"] + plain.tags["p"]
    assert not [name for _, name, _ in attacked.attributes if name.startswith("on") or name in ("style", "srcset")]
    assert "49" not in attacked.text.split("{{ 7*7 }}")[1][:3]


def test_what_a_screen_would_obey_or_hide_is_in_no_form_of_the_report() -> None:
    made = hostile()
    for text in (page(made), markdown(made), shown(terminal(made))):
        assert "owned" in text
        assert not [character for character in text if clean(character) != character]


def test_hostile_text_never_becomes_markup_in_a_pull_request() -> None:
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(hostile()))
    tokens = [token for outer in found for token in (outer, *(outer.children or ()))]
    kinds = Counter(token.type for token in tokens)
    assert kinds["table_open"] >= 3
    assert not {"html_inline", "html_block", "link_open", "image", "code_inline"} & set(kinds)
    assert kinds["fence"] == 1, "the command is the only block of code"
    assert {token.content for token in tokens if token.type == "inline" and token.content == "head"} == set()
    rows = [token for token in tokens if token.type == "tr_open"]
    cells = kinds["td_open"] + kinds["th_open"]
    assert cells == sum(width for width in _widths(tokens)) and len(rows) == len(_widths(tokens))
    assert len({*_widths(tokens)}) <= 4, "a cell has broken out of its table"


def _widths(tokens: list[Any]) -> list[int]:
    widths: list[int] = []
    for token in tokens:
        if token.type == "tr_open":
            widths.append(0)
        elif token.type in ("td_open", "th_open"):
            widths[-1] += 1
    return widths


def test_the_page_asks_nothing_of_a_network() -> None:
    text = page(hostile())
    found = Seen(text)
    targets = [value for _, name, value in found.attributes if name in ("src", "href", "action", "data", "poster")]
    assert len(targets) >= 8
    assert all(value.startswith("#") for value in targets)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|image-set|https?:", style)
    policies = [value for tag, name, value in found.attributes if tag == "meta" and name == "content"]
    assert any(policy.startswith("default-src 'none'; style-src 'sha256-") for policy in policies)


def test_the_policy_names_the_one_style_sheet_of_the_page() -> None:
    import base64
    import hashlib

    text = page(example())
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'".replace("'", "&#39;") in text
    assert Seen(text).tags["style"] == 1


def test_the_figures_of_the_page_are_those_of_the_json() -> None:
    made = example()
    written = json.loads(json.dumps(made.to_json()))
    found = Counter(Seen(page(made)).values)
    checked = 0
    for arm in written["arms"]:
        for estimate in arm["metrics"].values():
            assert found[estimate["mean"]] >= 1
            checked += 1
        for by_metric in arm["by_kind"].values():
            assert found[by_metric[SCORE]["mean"]] >= 1
            checked += 1
    for pair in written["pairs"]:
        assert found[pair["difference"]] or found[-pair["difference"]]
        assert found[pair["p"]] and found[pair["p_holm"]] and found[pair["detectable"]]
        checked += 1
    assert checked >= 7 * 4 + 21


def test_a_pair_turned_round_says_the_same() -> None:
    made = example()
    given = {frozenset((pair.a, pair.b)): pair for pair in made.pairs}
    best = leader(made)
    assert best is not None
    turned = 0
    for pair in score_pairs(made):
        first = given[frozenset((pair.a, pair.b))]
        if pair.a != first.a:
            turned += 1
            assert (pair.low, pair.difference, pair.high) == (-first.high, -first.difference, -first.low)
        assert (pair.verdict == "better") == (pair.p_holm < 0.05 and pair.difference > 0)
        assert (pair.verdict == "worse") == (pair.p_holm < 0.05 and pair.difference < 0)
    assert turned >= 5
    assert [best.name in (pair.a, pair.b) for pair in score_pairs(made)] == [True] * 6 + [False] * 15


def test_every_form_begins_with_the_verdict_and_has_the_same_table_of_arms() -> None:
    made = example()
    looked = Seen(page(made)).text
    for text in (looked, markdown(made).replace("\\", ""), shown(terminal(made), width=170)):
        assert text.index(made.verdict) < text.index("49 short")
        for cell in (
            "76.7 [64.6, 85.6]",
            "1.5 s / 2.7 s",
            "1,120 + 58",
            "$0.018",
            "$0.20",
            "4 min 12 s, 105,600 tokens",
        ):
            assert cell in text
        assert text.index("Without a model") < text.index("nearest-vote", text.index("Without a model"))


def test_an_unknown_price_is_never_written_as_nothing() -> None:
    made = example(arms=("base", "tuned"))
    unknown = tuple(
        replace(
            arm,
            cost_usd_per_1000=None,
            one_time_cost_usd=None,
            one_time=arm.one_time and replace(arm.one_time, cost_usd=None),
        )
        for arm in made.arms
    )
    told = replace(made, arms=unknown, cost_usd=None, verdict="tuned is better")
    for text in (page(told), markdown(told), shown(terminal(told), width=200)):
        assert "unknown" in text and "$" not in text
        assert "price unknown (4 min 12 s, 105,600 tokens)" in text
    assert "No price is known for any arm with a model" in page(told)
    assert "No break-even" in page(told)


def test_break_even_is_where_both_arms_have_cost_the_same() -> None:
    text = markdown(example(arms=("rag", "tuned")))
    assert "tuned costs less than rag from 185,984 questions on" in text
    assert 34.5 + 185_984 * 0.018 / 1000 <= 185_984 * 0.2035 / 1000 < 34.5 + 185_983 * 0.018 / 1000 + 0.001


@pytest.mark.parametrize("count", [1, 2])
def test_one_question_or_one_arm_still_makes_a_report(count: int) -> None:
    made = example(questions=1, arms=("base", "rag")[:count])
    text = Seen(page(made)).text
    assert "1 question ·" in text
    assert ("Only one arm was asked" in text) == (count == 1)
    assert "All questions are of one kind: short." in text
    assert markdown(made) and shown(terminal(made), width=60)


def test_arms_that_failed_on_everything_are_shown_as_failed() -> None:
    made = example(questions=20, arms=("base", "rag", "nearest-vote"))
    nothing = LatencyFigures(**dict.fromkeys(LatencyFigures.__dataclass_fields__))
    arms = tuple(
        arm
        if arm.control
        else replace(
            arm,
            metrics={SCORE: mean_interval([0.0] * 20)},
            failed=20,
            error="connection refused",
            latency_ms=nothing,
            cost_usd_per_1000=None,
        )
        for arm in made.arms
    )
    failed = ArmReply(reply="", mode="model", error="connection refused")
    records = tuple(replace(record, replies={"base": failed, "rag": failed}) for record in made.records)
    told = replace(made, arms=arms, records=records, pairs=(), verdict="no arm answered a single question")
    text = Seen(page(told)).text
    assert leader(told) is None
    assert "rag failed on every question: connection refused" in text
    assert "best mean" not in text and "Best mean" not in text
    assert "The scores of no question lie 50 points apart" in text
    assert "rag failed on every question: connection refused" in markdown(told)


def test_an_experiment_that_stopped_before_its_first_question_says_so() -> None:
    made = example(questions=1)
    told = replace(
        made, arms=(), pairs=(), judged=(), records=(), kinds={}, questions=0, sample="", partial="the budget of $0"
    )
    for text in (Seen(page(told)).text, markdown(told), shown(terminal(told))):
        assert "Not finished: the budget of $0" in text.replace("*", "").replace("\\", "")


def test_thousands_of_long_replies_make_a_page_of_bounded_size_that_counts_what_it_leaves_out() -> None:
    made = example(arms=("base", "rag", "best-sentence"))
    lengthened = tuple(_lengthened(record) for record in made.records)
    long = (lengthened * 100)[:5000]
    text = page(replace(made, records=long, warnings=tuple(f"warning {i} " + "x" * 5000 for i in range(300))))
    assert len(text.encode()) < 1_000_000
    apart = int(re.findall(r"On ([\d,]+) of 5,000 questions", text)[0].replace(",", ""))
    assert apart > 2000
    assert f"the other {apart - SHOWN_QUESTIONS:,} are left out" in text
    assert Seen(text).tags["article"] == 3 * (SHOWN_QUESTIONS + SHOWN_EXAMPLES)
    assert "more characters)" in text and "250 more warnings" in text
    comment = markdown(replace(made, records=long, warnings=tuple("x" * 5000 for _ in range(300))))
    assert len(comment) < 65_536, "longer than a comment of a pull request may be"


def _lengthened(record: Record) -> Record:
    return replace(
        record,
        question=record.question + " why" * 5000,
        replies={name: replace(reply, reply=reply.reply + " so" * 20_000) for name, reply in record.replies.items()},
    )


def test_every_mark_of_a_plot_stands_inside_it_and_no_two_names_overlap() -> None:
    arms = [_seeded(arm, seed) for arm in example().arms for seed in range(6)]
    drawn = plot(arms, lambda arm: arm.latency_ms.total_p50, written=str, far_of=lambda arm: arm.latency_ms.total_p95)
    assert drawn is not None and len(drawn.marks) == 42
    for mark in drawn.marks:
        assert LEFT <= mark.x <= (mark.far_x or mark.x) <= RIGHT + 0.01
        assert TOP - 0.01 <= mark.high_y <= mark.y <= mark.low_y <= drawn.bottom + 0.01
    labels = sorted(mark.label_y for mark in drawn.marks)
    assert min(after - before for before, after in itertools.pairwise(labels)) > 14
    assert labels[0] >= TOP and labels[-1] <= drawn.bottom + 0.01
    assert plot(arms, lambda arm: None, written=str) is None


def _seeded(arm: Arm, seed: int) -> Arm:
    return replace(arm, name=f"{arm.name} (seed {seed})", seed=seed)


def test_a_plot_with_costs_from_nothing_to_much_keeps_them_apart() -> None:
    arms = example().arms
    prices = dict(zip((arm.name for arm in arms), (0.0, 0.001, 0.02, 5.0, 100.0, 0.0, 0.0), strict=True))
    drawn = plot(arms, lambda arm: prices[arm.name], written=str)
    assert drawn is not None
    places = sorted({mark.x for mark in drawn.marks})
    assert len(places) == 5 and places[0] == LEFT
    assert min(after - before for before, after in itertools.pairwise(places)) > 15
    assert next(tick.label for tick in drawn.x_ticks) == "0.0"


def test_tables_tell_a_screen_reader_their_headers_and_drawings_their_content() -> None:
    text = page(example())
    found = Seen(text)
    assert found.tags["table"] >= 8
    assert found.tags["caption"] == found.tags["table"]
    scopes = [value for tag, name, value in found.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == found.tags["th"]
    drawings = re.findall(r'<svg class="plot".*?</svg>', text, re.DOTALL)
    assert len(drawings) == 2
    assert all(re.search(r"<title id=.*?<desc id=.*?tuned\+rag: score 76\.7", one, re.DOTALL) for one in drawings)
    identities = [value for _, name, value in found.attributes if name == "id"]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(dark: bool) -> None:
    style = (Path(__file__).parent.parent / "src/graft/comparing/templates/report.css").read_text(encoding="utf-8")
    block = style.split("@media (prefers-color-scheme: dark)")[dark].split("}")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
    pairs = [
        (ink, ground) for ink in ("ink", "soft", "accent", "good", "middling", "bad") for ground in ("paper", "sheet")
    ]
    for ink, ground in [*pairs, ("ink", "warn")]:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_page_that_cannot_be_written_is_a_failure_with_a_remedy(tmp_path: Path) -> None:
    write_html(example(questions=2), tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_html(example(questions=2), tmp_path / "file" / "report.html")
