"""Claims are held against the source: by number, date, name, polarity and meaning."""

from __future__ import annotations

import pytest

from graft.citing import split_claims
from graft.citing.excerpts import excerpt
from graft.citing.facts import dates, names, quantities, same_quantity
from graft.citing.negation import opposed
from graft.citing.sentences import sentences
from graft.citing.verifying import Verdict, closest, verify
from graft.citing.windows import Passage
from graft.embedding import Embedder

POLICY = Passage(
    "Customers in the European Union may return a bike within 30 days of delivery. Customers in the United States "
    "may return a bike within 14 days. A restocking fee of 8 percent is deducted, unless the bike is defective. "
    "Gift cards are not refundable. Samuel Okafor approves exceptions. The policy was adopted on 12 March 2025.",
    "Returns policy",
)
PRICES = Passage(
    "Atlas 2 | EU | EUR | 5,190\nAtlas 2 | US | USD | 5,890", "Price list > Bikes\nModel | Region | Currency | Price"
)


def verdict(claim: str, embedder: Embedder, *passages: Passage, question: str = "") -> Verdict:
    return verify([claim], passages or (POLICY, PRICES), embed=embedder.embed, question=question)[0].verdict


@pytest.mark.parametrize(
    "claim",
    [
        "Customers in the European Union can return a bike within thirty days.",
        "In the United States a bike may be returned within two weeks.",
        "A restocking fee of 8% is deducted.",
        "Gift cards cannot be refunded.",
        "Exceptions are approved by Samuel Okafor.",
        "The returns policy was adopted on 2025-03-12.",
        "The Atlas 2 costs 5,190 EUR in the EU.",
        "The Atlas 2 costs $5,890 in the US.",
    ],
)
def test_a_true_claim_is_supported_however_it_is_worded(claim: str, embedder: Embedder) -> None:
    assert verdict(claim, embedder) is Verdict.SUPPORTED


@pytest.mark.parametrize(
    "claim",
    [
        "Customers in the European Union can return a bike within 14 days.",
        "In the United States a bike may be returned within 30 days.",
        "A restocking fee of 18% is deducted.",
        "Gift cards can be refunded.",
        "Exceptions are approved by Helen Marsh.",
        "The returns policy was adopted on 12 May 2025.",
        "The returns policy was not adopted on 12 March 2025.",
        "The Atlas 2 costs 5,890 EUR in the EU.",
        "The Atlas 2 costs 4,190 EUR in the EU.",
        "The moon is made of green cheese.",
    ],
)
def test_a_false_claim_is_flagged(claim: str, embedder: Embedder) -> None:
    assert verdict(claim, embedder) is not Verdict.SUPPORTED


def test_a_short_claim_is_read_together_with_its_question(embedder: Embedder) -> None:
    question = "How long may customers in the United States return a bike?"
    assert verdict("14 days.", embedder, question=question) is Verdict.SUPPORTED
    assert verdict("21 days.", embedder, question=question) is not Verdict.SUPPORTED


def test_a_range_turned_round_is_flagged(embedder: Embedder) -> None:
    passage = Passage("The deposit for a test ride rose from 10 to 20 EUR in May.")
    assert verdict("The deposit for a test ride rose from 10 to 20 EUR.", embedder, passage) is Verdict.SUPPORTED
    assert verdict("The deposit for a test ride rose from 20 to 10 EUR.", embedder, passage) is not Verdict.SUPPORTED


def test_a_row_names_the_sheet_that_it_is_on(embedder: Embedder) -> None:
    text = "# Bikes\nModel | Price EUR\nAtlas 2 | 5,190\n\n# Parts\nPart | Price EUR\nBrake lever | 31"
    claims = ["The Atlas 2 costs 5,190 EUR.", "A brake lever costs 31 EUR."]
    got = verify(claims, [Passage(text, "Price list")], embed=embedder.embed)
    assert [(c.heading, c.header) for c in got] == [("Bikes", "Model | Price EUR"), ("Parts", "Part | Price EUR")]
    below = verify(
        claims[1:], [Passage("Brake lever | 31", "Price list > Parts\nPart | Price EUR")], embed=embedder.embed
    )
    assert below[0].heading == "Parts"


def test_the_finding_names_the_exact_range_and_what_is_missing(embedder: Embedder) -> None:
    true, false = verify(
        ["Gift cards are not refundable.", "A restocking fee of 18 percent is deducted."],
        [POLICY],
        embed=embedder.embed,
    )
    assert POLICY.text[true.start : true.end] == "Gift cards are not refundable."
    assert false.missing == ("18 percent",)


def test_nothing_is_supported_without_passages(embedder: Embedder) -> None:
    assert verify(["Anything at all."], [], embed=embedder.embed)[0].verdict is Verdict.UNSUPPORTED
    assert closest("Anything?", [], embed=embedder.embed) is None


def test_a_title_or_the_question_again_is_never_the_closest_answer(embedder: Embedder) -> None:
    text = "Binary star\n\nA binary star is a star. The faster of the two has the smaller mass."
    question = "Which star of a binary star is the faster?"
    found = closest(question, [Passage(text)], embed=embedder.embed)
    assert found is not None and "smaller mass" in text[found.start : found.end]
    alone = closest(question, [Passage("Binary star\n\nA binary star is a star.")], embed=embedder.embed)
    assert alone is not None and alone.support == 0


def test_two_places_may_support_one_claim_together(embedder: Embedder) -> None:
    claim = "The Premium plan costs 49 EUR a month and is answered within one hour."
    plan = Passage("The Premium plan costs 49 EUR a month.", "Plans")
    level = Passage("Tickets of the Premium plan are answered within one hour.", "Service levels")
    assert verdict(claim, embedder, plan, level) is Verdict.SUPPORTED
    assert verdict(claim.replace("one hour", "two hours"), embedder, plan, level) is not Verdict.SUPPORTED


def test_a_question_in_a_source_supports_nothing(embedder: Embedder) -> None:
    faq = Passage("Are gift cards refundable?\n\nAsk your dealer.", "FAQ")
    found = verify(["Gift cards are refundable."], [faq], embed=embedder.embed)[0]
    assert found.verdict is not Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("4,950 EUR", "€4.950,00"),
        ("two weeks", "14 days"),
        ("1.5 million", "1,500,000"),
        ("three years", "36 months"),
        ("12%", "twelve percent"),
        ("twenty-five days", "25 days"),
        ("90 minutes", "1.5 hours"),
        ("5 km", "5,000 m"),
    ],
)
def test_quantities_written_differently_are_the_same(one: str, other: str) -> None:
    assert same_quantity(quantities(one)[0], quantities(other)[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [("30 days", "30 weeks"), ("5 EUR", "5 USD"), ("1,500", "15,000"), ("4.95", "495"), ("20 °C", "-20 °C")],
)
def test_quantities_that_differ_are_told_apart(one: str, other: str) -> None:
    assert not same_quantity(quantities(one)[0], quantities(other)[0])


@pytest.mark.parametrize(
    ("claimed", "stated", "agree"),
    [
        ("12 March 2025", "2025-03-12", True),
        ("March 2025", "12 March 2025", True),
        ("12 March", "12.03.2025", True),
        ("12 March 2025", "13 March 2025", False),
        ("in 2024", "12 March 2025", False),
        ("5 May 2025", "in 2025", False),
    ],
)
def test_dates_agree_in_every_part_that_the_claim_states(claimed: str, stated: str, agree: bool) -> None:
    assert dates(claimed)[0].agrees(dates(stated)[0]) is agree


def test_a_number_that_counts_list_items_or_cites_is_not_a_fact() -> None:
    assert quantities("1. First do this [2].") == []
    assert names("The bike is new.") == []


@pytest.mark.parametrize(
    ("claim", "passage", "result"),
    [
        ("You may carry leave over.", "You may not carry leave over.", True),
        ("Leave is never paid out.", "Leave is paid out.", True),
        ("Charging overnight is not allowed.", "Charging overnight is forbidden.", False),
        ("It must be paid within at most 30 days.", "It must be paid no later than 30 days.", False),
        ("Wine is not served in the plant.", "Wine may be served after 17:00, except in the plant.", False),
        ("No receipt is needed below 10 EUR.", "Receipts are not needed below 10 EUR.", False),
        ("It costs at least 140 EUR.", "It costs at most 140 EUR.", True),
        ("Orders above 500 EUR are free.", "Orders below 500 EUR are free.", True),
        ("Valid only after 31 March.", "Valid only until 31 March.", True),
        ("Prices rise by 5%.", "Prices fall by 5%.", True),
        ("Überstunden werden nicht bezahlt.", "Überstunden werden bezahlt.", True),
    ],
)
def test_polarity_is_compared_clause_by_clause(claim: str, passage: str, result: bool) -> None:
    assert opposed(claim, passage) is result


def test_sentences_hold_wrapped_lines_together_and_keep_rows_apart() -> None:
    text = "This sentence was wrapped by a text editor at eighty\ncolumns. Next one.\n\n- item one\n- item two\na | b\nc | d"  # noqa: E501
    parts = [text[a:b] for a, b in sentences(text)]
    assert parts == [
        "This sentence was wrapped by a text editor at eighty\ncolumns.",
        "Next one.",
        "- item one",
        "- item two",
        "a | b",
        "c | d",
    ]


def test_claims_lose_labels_markers_and_questions() -> None:
    claims = split_claims("The answer is: 30 days [1][2].\n- Gift cards lapse. Is that all?")
    assert [(c.text, c.markers) for c in claims] == [("30 days.", (1, 2)), ("Gift cards lapse.", ())]


def test_an_excerpt_is_never_longer_than_asked_for() -> None:
    address = "https://example.org/" + "price/" * 100
    for passage in (address, f"See {address} for the price.", "The price is 5 EUR. " * 40):
        start, end = excerpt("What is the price?", passage, characters=300)
        assert 0 < end - start <= 300
