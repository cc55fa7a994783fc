"""text -> the facts in it that a machine can compare exactly: numbers with units, dates, names.

A fact of a claim must be found in the passage, whatever either of them writes it like: "two weeks" is
"14 days", "4.950,00 EUR" is "€4,950", "12 March 2025" is "2025-03-12". It does not know meaning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from graft.citing.words import is_function_word


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and the kind of thing it counts: "%", a currency, a unit of measure, or "" if it has none.

    `value` is in one unit for each kind (days, minutes, metres); `written` is the number as it stands.
    """

    value: Decimal
    unit: str
    start: int
    end: int
    written: Decimal


@dataclass(frozen=True, slots=True)
class Date:
    """A day, a month or a year; parts that the text leaves out are None."""

    year: int | None
    month: int | None
    day: int | None
    start: int
    end: int

    def agrees(self, other: Date) -> bool:
        """Whether every part that both state is the same, and they share at least the finest part of this one."""
        pairs = [(self.year, other.year), (self.month, other.month), (self.day, other.day)]
        if any(a is not None and b is not None and a != b for a, b in pairs):
            return False
        stated = [(a, b) for a, b in pairs if a is not None]
        return stated[-1][1] is not None


@dataclass(frozen=True, slots=True)
class Name:
    """A proper name, product, acronym, code, e-mail or web address, as its folded parts."""

    parts: tuple[str, ...]
    start: int
    end: int


_UNITS: dict[str, tuple[str, Decimal]] = {}


def _unit(kind: str, factor: str, spellings: str) -> None:
    for spelling in spellings.split():
        _UNITS[spelling] = (kind, Decimal(factor))


_unit("%", "1", "% percent percentage prozent")
_unit("EUR", "1", "€ eur euro euros")
_unit("USD", "1", "$ usd us$ dollar dollars")
_unit("GBP", "1", "£ gbp pound pounds")
_unit("CHF", "1", "chf franc francs franken")
_unit("minute", "1", "min mins minute minutes minuten")
_unit("minute", "60", "h hr hrs hour hours stunde stunden")
_unit("day", "1", "day days tag tage tagen")
_unit("day", "7", "week weeks woche wochen")
_unit("month", "1", "month months monat monate monaten")
_unit("month", "12", "year years yr yrs jahr jahre jahren")
_unit("second", "1", "s sec secs second seconds sekunden")
_unit("second", "0.001", "ms")
_unit("m", "1", "m metre metres meter meters")
_unit("m", "1000", "km kilometre kilometres kilometer kilometers")
_unit("m", "0.01", "cm")
_unit("m", "0.001", "mm")
_unit("km/h", "1", "km/h kmh kph")
_unit("km/h", "1.609344", "mph")
_unit("kg", "1", "kg kilo kilos kilogram kilograms")
_unit("kg", "0.001", "g gram grams")
_unit("W", "1", "w watt watts")
_unit("W", "1000", "kw")
_unit("Wh", "1", "wh")
_unit("Wh", "1000", "kwh")
_unit("N·m", "1", "nm n·m")
_unit("V", "1", "v volt volts")
_unit("A", "1", "a amp amps ampere")
_unit("°C", "1", "°c °")
_unit("bar", "1", "bar")
_unit("B", "1", "bytes")
_unit("B", "1000000", "mb")
_unit("B", "1000000000", "gb")

_WORD_NUMBERS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
} | {w: n for n, w in zip(range(30, 100, 10), "thirty forty fifty sixty seventy eighty ninety".split(), strict=True)}
_ORDINALS = {
    w: n
    for n, w in enumerate("third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), start=3)
}
_SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "k": 1_000,
    "million": 1_000_000,
    "millions": 1_000_000,
    "mn": 1_000_000,
    "billion": 1_000_000_000,
    "bn": 1_000_000_000,
}
_UNIT_PATTERN = "|".join(sorted((re.escape(u) for u in _UNITS), key=len, reverse=True))
_NUMBER_WORDS = "|".join([*_WORD_NUMBERS, *_ORDINALS])
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_NUMBER = re.compile(
    rf"""(?P<before>€|\$|£|\b(?:eur|usd|gbp|chf)\s?)?\s?
    (?: (?P<digits>(?<![\w.])[-−]?\d+(?:[.,'’\u202f\u00a0 ]\d{{3}}(?!\d))*(?:[.,]\d+)?(?!\.?\d))
      | \b(?P<tens>{_TENS})-(?P<ones>{_ONES})\b
      | \b(?P<word>{_NUMBER_WORDS})\b )
    (?P<ordinal>st|nd|rd|th)?
    (?:[\s-]?(?P<scale>hundred|thousand|k|million|millions|mn|billion|bn)\b)?
    (?:\s?\(\d+\))?
    (?:[\s\u00a0-]?(?:(?:calendar|business|working|consecutive|full|fully|paid|more|additional)\s){{0,2}}(?P<unit>{_UNIT_PATTERN})(?!\w))?
    """,
    re.IGNORECASE | re.VERBOSE,
)


def quantities(text: str) -> list[Quantity]:
    """The numbers of a text, dates left out; units converted to one per kind.

    >>> [(str(q.value), q.unit) for q in quantities("Two weeks, 4.950,00 EUR, €4,950, 2.5 million and 12%")]
    [('14', 'day'), ('4950.00', 'EUR'), ('4950', 'EUR'), ('2500000.0', ''), ('12', '%')]
    """
    taken = [(date.start, date.end) for date in dates(text)]
    found = []
    for match in _NUMBER.finditer(text):
        start = match.start("digits") if match["digits"] else match.start()
        if any(a <= start < b for a, b in taken) or _is_enumeration(text, match):
            continue
        quantity = _quantity(match)
        if quantity is not None:
            found.append(quantity)
    return found


def _is_enumeration(text: str, match: re.Match[str]) -> bool:
    """Whether the number only counts list items ("1. First"), cites ("[2]") or is the pronoun "one"."""
    before, after = text[: match.start()], text[match.end() :]
    if match["digits"]:
        line_start = not before.strip() or before.rstrip(" \t").endswith("\n")
        return (line_start and re.match(r"[.)]\s", after) is not None and len(match["digits"]) <= 2) or (
            before.endswith("[") and after.startswith("]")
        )
    word = (match["word"] or "").lower()
    return word == "one" and not match["unit"]


def _quantity(match: re.Match[str]) -> Quantity | None:
    if match["digits"]:
        value = _decimal(match["digits"])
        if value is None:
            return None
    elif match["tens"]:
        value = Decimal(_WORD_NUMBERS[match["tens"].lower()] + _WORD_NUMBERS[match["ones"].lower()])
    else:
        word = match["word"].lower()
        value = Decimal(_WORD_NUMBERS[word] if word in _WORD_NUMBERS else _ORDINALS[word])
    if match["scale"]:
        value *= _SCALES[match["scale"].lower()]
    spelling = (match["unit"] or match["before"] or "").strip().lower()
    kind, factor = _UNITS.get(spelling, ("", Decimal(1)))
    return Quantity(value * factor, kind, match.start(), match.end(), value)


def _decimal(digits: str) -> Decimal | None:
    """Read 4,950 / 4.950 / 4 950 as thousands and 4.95 / 4,95 as a fraction; 4.950,00 by its last mark."""
    plain = re.sub(r"[\s'’\u202f\u00a0]", "", digits).replace("−", "-")
    if "," in plain and "." in plain:
        thousands, point = (",", ".") if plain.rfind(".") > plain.rfind(",") else (".", ",")
        plain = plain.replace(thousands, "").replace(point, ".")
    elif re.fullmatch(r"-?[1-9]\d{0,2}(?:,\d{3})+", plain) or re.fullmatch(r"-?[1-9]\d{0,2}(?:\.\d{3}){2,}", plain):
        plain = plain.replace(",", "").replace(".", "")
    else:
        plain = plain.replace(",", ".")
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def same_quantity(claimed: Quantity, stated: Quantity) -> bool:
    """Whether a claim's number is the passage's: equal value; equal unit where both have one.

    A point before three digits may mean thousands, so 4.950 agrees with 4950.
    """
    if claimed.unit and stated.unit and claimed.unit != stated.unit:
        return False
    bare = not claimed.unit or not stated.unit  # a table's cell, its unit in the header
    a, b = (q.written if bare else q.value for q in (claimed, stated))
    return a == b or (_three_places(a) and a * 1000 == b) or (_three_places(b) and b * 1000 == a)


def _three_places(value: Decimal) -> bool:
    return value.as_tuple().exponent == -3


_MONTHS = {
    name: number
    for number, names in enumerate(
        [
            "january jan januar enero",
            "february feb februar",
            "march mar märz",
            "april apr",
            "may mai",
            "june jun juni",
            "july jul juli",
            "august aug",
            "september sep sept",
            "october oct oktober",
            "november nov",
            "december dec dezember",
        ],
        start=1,
    )
    for name in names.split()
}
_MONTH_NAMES = "|".join(sorted((name.capitalize() for name in _MONTHS), key=len, reverse=True))
_MONTH = f"(?P<month>{_MONTH_NAMES})" + r"\b\.?"
_DATES = [
    re.compile(rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTH},?\s*(?P<year>(?:19|20)\d\d)?\b", re.I),
    re.compile(rf"\b{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s*(?P<year>(?:19|20)\d\d)\b)?", re.I),
    re.compile(rf"\b{_MONTH},?\s+(?:of\s+)?(?P<year>(?:19|20)\d\d)\b", re.I),
    re.compile(r"\b(?P<year>(?:19|20)\d\d)-(?P<number>\d{1,2})-(?P<day>\d{1,2})\b"),
    re.compile(r"\b(?P<day>\d{1,2})\.(?P<number>\d{1,2})\.(?P<year>(?:19|20)\d\d)\b"),
    re.compile(r"\b(?P<number>\d{1,2})/(?P<day>\d{1,2})/(?P<year>(?:19|20)\d\d)\b"),
]
_BARE_MONTH = re.compile(
    r"\b(?P<month>January|February|March|April|June|July|August|September|October|November|December)\b"
)
_YEAR = re.compile(r"(?<![\w.,€$£-])(?P<year>(?:19|20)\d\d)\b(?!\s?(?:€|EUR|USD|GBP|CHF|%|kg|km|mm|Wh|W\b)|[.,]\d)")


def dates(text: str) -> list[Date]:
    """The days, months and years a text names.

    >>> [(d.year, d.month, d.day) for d in dates("on 12 March 2025, 2024-01-31, July 4 and since 2019")]
    [(2025, 3, 12), (2024, 1, 31), (None, 7, 4), (2019, None, None)]
    """
    found: list[Date] = []
    for pattern in [*_DATES, _BARE_MONTH, _YEAR]:
        for match in pattern.finditer(text):
            if not any(d.start < match.end() and match.start() < d.end for d in found):
                found.extend(_date(match))
    return sorted(found, key=lambda date: date.start)


def _date(match: re.Match[str]) -> Iterator[Date]:
    parts = match.groupdict()
    month = _MONTHS[parts["month"].lower()] if parts.get("month") else None
    year = int(parts["year"]) if parts.get("year") else None
    day = int(parts["day"]) if parts.get("day") else None
    if parts.get("number"):
        month = int(parts["number"])
        if "/" in match.group() and month > 12 and day is not None:
            month, day = day, month
    if (month is None or 1 <= month <= 12) and (day is None or 1 <= day <= 31):
        yield Date(year, month, day, match.start(), match.end())


_ADDRESS = re.compile(
    r"\b[Vv]ersion \d+\.\d+\b|\bv?\d+(?:\.\d+){2,}\b|[\w.+-]+@[\w-]+\.[\w.-]*\w|https?://\S+|\bwww\.\S+"
)
_MODEL = re.compile(
    rf"\b(?P<word>[A-ZÄÖÜ][^\W\d_]+) (?P<number>\d{{1,3}})\b(?![.,:]\d)(?!\s?(?:{_UNIT_PATTERN})(?!\w))"
    rf"(?! (?:{_MONTH_NAMES})\b)"
)
_NAME = re.compile(
    r"\b(?:[^\W\d_a-zß-öø-ÿ][\w’'&.-]*\w|[^\W\d_a-zß-öø-ÿ])(?:[ \u00a0](?:(?:of|the|de|van|von|der|and|&)[ ])?"
    r"(?:[^\W\d_a-zß-öø-ÿ][\w’'&-]*))*"
)
_CURRENCIES = frozenset({"eur", "usd", "gbp", "chf"})
_CALENDAR = frozenset("monday tuesday wednesday thursday friday saturday sunday".split()) | frozenset(_MONTHS)
_GERMAN = re.compile(
    r"\b(?:der|die|das|dem|den|des|und|nicht|ist|sind|für|mit|ein|eine|werden|wird|im|am|von|zu|zur|bei|auf|pro|gilt|gelten)\b",
    re.IGNORECASE,
)


def names(text: str, *, known: Collection[str] = ()) -> list[Name]:
    """Proper names of a text.

    Args:
        known: Folded words that are names wherever they stand; without it a sentence's first word
            counts only within a longer name, or as an acronym.

    >>> [" ".join(n.parts) for n in names("Refunds go to Ana Keller in Lyon, says HR; mail it@example.com")]
    ['it@example.com', 'ana keller', 'lyon', 'hr']
    """
    found = [Name((_folded(m.group().rstrip(".,;")),), m.start(), m.end()) for m in _ADDRESS.finditer(text)]
    for match in _MODEL.finditer(text):
        word = _folded(match["word"])
        if (
            not is_function_word(word)
            and word not in _CURRENCIES
            and (not _starts_sentence(text, match.start()) or word in known)
        ):
            found.append(Name((f"{word} {match['number']}",), match.start(), match.end()))
    german = len(_GERMAN.findall(text)) >= 2
    for match in _NAME.finditer(text):
        if any(n.start <= match.start() < n.end for n in found):
            continue
        words = match.group().split()
        if _starts_sentence(text, match.start()) and not _is_name_at_start(words, known):
            words = words[1:]
        while words and is_function_word(words[0]) and not words[0].isupper():
            words = words[1:]
        if german and len(words) == 1 and not words[0].isupper():
            continue  # every German noun is written like a name
        parts = tuple(_folded(w) for w in words if w.lower() not in _CALENDAR and w.lower() not in _CURRENCIES)
        if any(len(part) > 1 for part in parts):
            found.append(Name(parts, match.start() + match.group().index(words[0]), match.end()))
    return found


def _is_name_at_start(words: list[str], known: Collection[str]) -> bool:
    first = words[0]
    acronym = first.isupper() and len(first) > 1
    return acronym or _folded(first) in known or (len(words) > 1 and not is_function_word(first))


def _starts_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \t\"'“”‘’(*_-•|#>")
    return not before or before[-1] in ".!?:;\n…"


def _folded(word: str) -> str:
    return word.lower().replace("’", "'").removesuffix("'s").strip(".,;:'\"-")
