"""Text -> personal data and secrets in it, each with its place: what a model might learn by heart.

Numbers are only taken for what their check digits, their form or the word before them say they are: most
numbers are amounts and order numbers. It does not know names of people: that would need a model of its own.
"""

from __future__ import annotations

import ipaddress
import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graft.errors import UsageError


@dataclass(frozen=True, slots=True)
class Personal:
    """What was found: its kind, and its range in the text."""

    kind: str
    start: int
    end: int


_CUE_BEFORE = 40
"""Characters before a number in which a word must stand that says what it is."""

_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_RESERVED = re.compile(r"(?:^|\.)(?:example|test|invalid|localhost|example\.(?:com|org|net|edu))$", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\w.,/-])\(?\+?\d[\d().\s/-]{5,22}\d(?![\w-])")
_AMERICAN = re.compile(r"\(\d{3}\) ?\d{3}-\d{4}|(?:\+?1[ .-])?\d{3}-\d{3}-\d{4}")
_PHONE_CUE = re.compile(
    r"\b(?:phone|tel|telephone|call|cell|mobile|fax|whatsapp|sms|ring|dial|telefon|handy|anruf\w*|rufnummer|"
    r"t[ée]l[ée]phone|portable|tel[ée]fono|m[óo]vil|llam\w+|telefone|celular)\b\W{0,3}[^.!?]*$",
    re.IGNORECASE,
)
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AT", "IN", "AU", "BR")
"""Tried for numbers without a country code that follow a word for telephone."""

_CARD = re.compile(r"(?<![\d.,/=-])\d(?:[ -]?\d){12,18}(?![\d-]|[.,]\d)")
_CARD_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6011|65|35|62|30[0-5]|3[689]|50|5[6-9]|6[0-9]")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:|:){2,7}(?::|[0-9a-fA-F]{1,4})(?![\w:])")
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}")
_NOT_IP = re.compile(r"(?:\bv|\bEC|\bversions?|\brelease|\bsection|\bchapter|§)\s*$", re.IGNORECASE)
_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----|\b(?:"
    r"sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|"
    r"xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z]{30,}|glpat-[A-Za-z0-9_-]{20,}|"
    r"[sr]k_live_[A-Za-z0-9]{16,}|(?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
)
_ASSIGNED = re.compile(
    r"\b(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?token|auth[_-]?token|password|passwd|client[_-]?secret)"
    r"[\"']?\s*[:=]\s*[\"']?([^\s\"'<>{}$]{10,200})",
    re.IGNORECASE,
)
_LEAST_ENTROPY = 3.0
"""Bits a character, of a value that is assigned to a password; words of one case are below it mostly."""


@dataclass(frozen=True, slots=True)
class _Number:
    """An identity number: its form, the module of python-stdnum that checks it, the word it needs before it."""

    kind: str
    form: re.Pattern[str]
    module: str
    cue: re.Pattern[str] | None = None


def _number(kind: str, form: str, module: str, cue: str = "") -> _Number:
    return _Number(
        kind,
        re.compile(rf"(?<![\w.,-]){form}(?![\w-]|[.,]\d)"),
        module,
        re.compile(rf"\b(?:{cue})\b[^.!?\n]*$", re.IGNORECASE) if cue else None,
    )


_NUMBERS = (
    _number("social security number (US)", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _number("social insurance number (CA)", r"\d{3}[ -]\d{3}[ -]\d{3}", "ca.sin", "sin|social insurance"),
    _number("NHS number (GB)", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", "nhs"),
    _number("tax number (DE)", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", "steuer\\w*|tin|tax|idnr|id-nr"),
    _number("social security number (FR)", r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _number("identity number (ES)", r"\d{8}-?[A-Z]", "es.dni"),
    _number("tax code (IT)", r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _number("citizen number (NL)", r"\d{9}", "nl.bsn", "bsn|burgerservicenummer|sofinummer"),
    _number("identity number (PL)", r"\d{11}", "pl.pesel", "pesel"),
    _number("personal number (SE)", r"\d{6}(?:\d{2})?[-+]\d{4}", "se.personnummer"),
    _number("taxpayer number (BR)", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _number("Aadhaar (IN)", r"\d{4} ?\d{4} ?\d{4}", "in_.aadhaar", "aadhaar|aadhar|uidai"),
)


def find_personal(text: str) -> list[Personal]:
    """Personal data and secrets, in order, none within another.

    Kinds: email, phone, card, iban, ip, secret, and identity numbers by name and country. Reserved names
    (example.com) and addresses of private networks are nobody's.

    Raises:
        UsageError: phonenumbers or python-stdnum are not installed.

    >>> [found.kind for found in find_personal("Mail ann@acme.io, order 4711-0815, or call +44 20 7946 0958.")]
    ['email', 'phone']
    """
    found: list[Personal] = []
    if "@" in text:
        found += _emails(text)
    found += [Personal("secret", *match.span()) for match in _SECRET.finditer(text)]
    found += _assigned(text)
    if sum(map(str.isdigit, text)) >= 4 or text.count(":") >= 2:
        for search in (_ibans, _cards, _identity_numbers, _addresses, _phones):
            found += search(text)
    return _apart(found)


def masked(found: str) -> str:
    """Enough of it to find it again.

    >>> masked("ann@acme.io")
    'an*******io'
    """
    shown = 2 if len(found) > 6 else 0
    return found[:shown] + "*" * min(12, len(found) - 2 * shown) + found[len(found) - shown :]


def _apart(found: list[Personal]) -> list[Personal]:
    """In order; of two that overlap, the one that was looked for first."""
    kept: list[Personal] = []
    for item in found:
        at = bisect(kept, item.start, key=lambda other: other.start)
        if (at == 0 or kept[at - 1].end <= item.start) and (at == len(kept) or item.end <= kept[at].start):
            kept.insert(at, item)
    return kept


def _emails(text: str) -> Iterator[Personal]:
    for match in _EMAIL.finditer(text):
        if not _RESERVED.search(match[0].rpartition("@")[2]):
            yield Personal("email", *match.span())


def _assigned(text: str) -> Iterator[Personal]:
    for match in _ASSIGNED.finditer(text):
        value = match[1]
        mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
        if mixed and _entropy(value) >= _LEAST_ENTROPY:
            yield Personal("secret", *match.span(1))


def _entropy(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _ibans(text: str) -> Iterator[Personal]:
    for match in _IBAN.finditer(text):
        if _stdnum("iban")(match[0]):
            yield Personal("iban", *match.span())


def _cards(text: str) -> Iterator[Personal]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_ISSUER.match(digits) and len(set(digits)) > 1 and _stdnum("luhn")(digits):
            yield Personal("card", *match.span())


def _identity_numbers(text: str) -> Iterator[Personal]:
    for number in _NUMBERS:
        for match in number.form.finditer(text):
            cued = number.cue is None or number.cue.search(text[max(0, match.start() - _CUE_BEFORE) : match.start()])
            if cued and _stdnum(number.module)(match[0]):
                yield Personal(number.kind, *match.span())


def _addresses(text: str) -> Iterator[Personal]:
    for match in [*_IPV4.finditer(text), *_IPV6.finditer(text)]:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global and not _NOT_IP.search(text[max(0, match.start() - 12) : match.start()]):
            yield Personal("ip", *match.span())


def _phones(text: str) -> Iterator[Personal]:
    for match in _PHONE.finditer(text):
        written = match[0]
        if sum(map(str.isdigit, written)) < 7 or _DATE.search(written):
            continue
        cued = bool(_PHONE_CUE.search(text[max(0, match.start() - _CUE_BEFORE) : match.start()]))
        if written.lstrip("(").startswith("+"):
            regions: tuple[str | None, ...] = (None,)
        elif cued:
            regions = _REGIONS
        elif _AMERICAN.fullmatch(written):
            regions = ("US",)
        else:
            continue
        if any(_is_phone(written, region) for region in regions):
            yield Personal("phone", *match.span())


def _is_phone(written: str, region: str | None) -> bool:
    try:
        import phonenumbers
    except ImportError as error:
        raise _missing("phonenumbers") from error
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(written, region)))
    except phonenumbers.NumberParseException:
        return False


def _stdnum(module: str) -> Callable[[str], bool]:
    from importlib import import_module

    try:
        return import_module(f"stdnum.{module}").is_valid  # type: ignore[no-any-return]
    except ImportError as error:
        raise _missing("python-stdnum") from error


def _missing(package: str) -> UsageError:
    return UsageError(f"looking for personal data needs {package}", fix="pip install 'graft-llm[tune]'")
