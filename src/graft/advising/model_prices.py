"""a hosted model's name -> its price by the token, from LiteLLM's own table; None where that is not known, never 0.

The table is a file inside LiteLLM's package: it is read without importing LiteLLM, which takes seconds. It does not
know what is asked of a model.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_TABLE = "model_prices_and_context_window_backup.json"
_ABOVE = re.compile(r"(input|output)_cost_per_token_above_(\d+)(k?)_tokens")
_NOT_BY_TOKENS = ("input_cost_per_request", "input_cost_per_second", "cost_per_second", "off_peak_pricing")
"""A price that also depends on this, or on the hour of the day, is no price by the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Rates of a request whose prompt has more than `above_tokens`; US dollars a token."""

    above_tokens: float
    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """What a hosted model takes by the token.

    Attributes:
        tiers: By rising `above_tokens`, the first of them for every prompt; a request is billed whole by one tier.
    """

    model: str
    tiers: tuple[Tier, ...]
    source: str

    def usd(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Of one request."""
        tier = next(tier for tier in reversed(self.tiers) if prompt_tokens > tier.above_tokens)
        return prompt_tokens * tier.input_usd + answer_tokens * tier.output_usd


def model_price(name: str, *, yours: Mapping[str, ModelPrice] | None = None) -> ModelPrice | None:
    """The price of a model or embedder.

    Args:
        name: LiteLLM's name, with or without Graft's "litellm/" before it.
        yours: Prices that stand before LiteLLM's.
    Returns: None where LiteLLM is not installed, does not know the model, has 0 for it (which it has for the free and
        the unknown alike), or bills it by something else than tokens.
    """
    plain = name.removeprefix("litellm/")
    for known in (name, plain):
        if yours and known in yours:
            return yours[known]
    entry = _entry(plain)
    return None if entry is None else _price(plain, entry)


def table_source() -> str | None:
    """Where prices of models come from; None where LiteLLM is not installed."""
    try:
        return f"LiteLLM {version('litellm')}" if litellm_table() else None
    except PackageNotFoundError:
        return None


@cache
def litellm_table() -> Mapping[str, Any]:
    """LiteLLM's table of prices, by model; empty where LiteLLM, or the table in it, is not there."""
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            found = json.loads((Path(folder) / _TABLE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _entry(name: str) -> Mapping[str, Any] | None:
    """As LiteLLM looks a model up: by its whole name, or without the provider where that is the entry's."""
    table = litellm_table()
    found = table.get(name)
    if found is None:
        provider, _, rest = name.partition("/")
        found = table.get(rest)
        if not isinstance(found, dict) or found.get("litellm_provider") != provider:
            return None
    return found if isinstance(found, dict) else None


def _price(name: str, entry: Mapping[str, Any]) -> ModelPrice | None:
    if any(entry.get(key) for key in _NOT_BY_TOKENS):
        return None
    tiers = _listed(entry) if entry.get("tiered_pricing") else _thresholds(entry)
    if not tiers or any(tier.input_usd + tier.output_usd <= 0 for tier in tiers):
        return None
    return ModelPrice(model=name, tiers=tiers, source=table_source() or "LiteLLM")


def _thresholds(entry: Mapping[str, Any]) -> tuple[Tier, ...]:
    paid, answered = _rate(entry.get("input_cost_per_token")), _rate(entry.get("output_cost_per_token"))
    if entry.get("mode") == "embedding":
        answered = 0.0
    if paid is None or answered is None:
        return ()
    tiers = [Tier(above_tokens=-1, input_usd=paid, output_usd=answered)]
    found = [match for match in map(_ABOVE.fullmatch, entry) if match]
    for above in sorted({float(match[2]) * (1000 if match[3] else 1) for match in found}):
        rates = {
            match[1]: _rate(entry[match[0]])
            for match in found
            if float(match[2]) * (1000 if match[3] else 1) == above
        }
        last = tiers[-1]
        paid, answered = rates.get("input"), rates.get("output")
        tiers.append(
            Tier(
                above_tokens=above,
                input_usd=last.input_usd if paid is None else paid,
                output_usd=last.output_usd if answered is None else answered,
            )
        )
    return tuple(tiers)


def _listed(entry: Mapping[str, Any]) -> tuple[Tier, ...]:
    """Of `tiered_pricing`: ranges of prompt tokens with their rates."""
    tiers = []
    for given in entry["tiered_pricing"]:
        paid = _rate(given.get("input_cost_per_token"))
        answered = _rate(given.get("output_cost_per_token", entry.get("output_cost_per_token")))
        start = _rate((given.get("range") or [None])[0])
        if paid is None or answered is None or start is None:
            return ()
        tiers.append(Tier(above_tokens=start or -1, input_usd=paid, output_usd=answered))
    tiers.sort(key=lambda tier: tier.above_tokens)
    return tuple(tiers) if tiers and tiers[0].above_tokens <= 0 else ()


def _rate(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
