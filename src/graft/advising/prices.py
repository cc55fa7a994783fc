"""prices.toml and a file of the user's -> what machines, stores and hours cost, each figure with its source and date.

It does not know hosted models' own table (`model_prices` does) nor what is multiplied with what.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, TypeVar

from graft.advising.model_prices import ModelPrice, Tier
from graft.advising.reading import number, read_table, text
from graft.errors import UsageError

FIX = "compare your file with docs/advising.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """
    Attributes:
        source: Where the figures come from: an address, or "assumption".
        seen: When, as 2026-11-09.
    """

    source: str
    seen: str

    @property
    def told(self) -> str:
        return f"{self.source.removeprefix('https://')}, {self.seen}" if self.seen else self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Sourced):
    """One rented GPU; speeds in dense 16-bit TFLOPS and GB a second of its memory."""

    usd_per_hour: float
    memory_gb: float
    tflops: float
    bandwidth_gb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Sourced):
    """One machine without a GPU, for a store of one's own."""

    usd_per_month: float
    disk_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorStore(Sourced):
    """A hosted vector store, billed by what is stored, read and written, and by the month at least."""

    usd_per_gb_month: float
    usd_per_million_reads: float
    usd_per_million_writes: float
    least_usd_per_month: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedTuning(Sourced):
    """A provider's LoRA of open weights; of models over `up_to_billions` the price is unknown."""

    usd_per_million_tokens: float
    up_to_billions: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Sourced):
    """How much of a GPU's arithmetic a training reaches, and the hours that every run takes besides."""

    utilisation: float
    setup_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving(Sourced):
    """Speeds of a model of `billions` on a GPU of `tflops` and `bandwidth_gb_s`; `utilisation` is mean over peak."""

    prompt_tokens_per_s: float
    answer_tokens_per_s: float
    billions: float
    tflops: float
    bandwidth_gb_s: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Sourced):
    """People's hours and days."""

    usd_per_hour: float
    retrieval_days: float
    tuning_days: float
    hours_per_day: float
    curation_minutes_per_example: float
    evaluation_hours: float
    upkeep_hours_per_month: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Sourced):
    """What small systems are said to cost, from and to."""

    retrieval_build_usd: tuple[float, float]
    retrieval_month_usd: tuple[float, float]
    tuning_run_usd: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """All of prices.toml.

    Attributes:
        gpu: By name.
        models: The user's own prices of hosted models, by name; they stand before LiteLLM's.
    """

    gpu: Mapping[str, Gpu]
    server: Server
    vector_store: VectorStore
    hosted_tuning: HostedTuning
    training: Training
    serving: Serving
    work: Work
    reference: Reference
    models: Mapping[str, ModelPrice]


S = TypeVar("S", bound=Sourced)
_TABLES: Mapping[str, type[Sourced]] = {
    "server": Server,
    "vector_store": VectorStore,
    "hosted_tuning": HostedTuning,
    "training": Training,
    "serving": Serving,
    "work": Work,
    "reference": Reference,
}
_DIVISORS = {
    "memory_gb", "tflops", "bandwidth_gb_s", "disk_gb", "utilisation", "prompt_tokens_per_s", "answer_tokens_per_s",
    "billions", "hours_per_day",
}  # fmt: skip
_LEAST_DIVISOR = 1e-3


@cache
def _shipped_tables() -> dict[str, Any]:
    return tomllib.loads(package_files("graft.advising").joinpath("prices.toml").read_text(encoding="utf-8"))


@cache
def shipped_prices() -> Prices:
    """Those that Graft ships."""
    return _prices({}, "prices.toml")


def read_prices(path: str | Path) -> Prices:
    """The shipped prices with the user's over them; a table that was changed names the user's file as its source.

    Raises:
        UsageError: The file cannot be read, or a table, a key or a value is none that exists; names what does.
    """
    return _prices(read_table(path, what="a file of prices", fix=FIX), Path(path).name)


def _prices(yours: Mapping[str, Any], origin: str) -> Prices:
    shipped = _shipped_tables()
    have = (*_TABLES, "gpu", "models")
    for key, value in yours.items():
        if key not in have:
            raise UsageError(f"{origin}: no table [{key}]; have {', '.join(have)}", fix=FIX)
        _require_table(value, f"{origin}: {key}")
    made = {name: _over(kind, shipped[name], yours.get(name, {}), name, origin) for name, kind in _TABLES.items()}
    gpus = shipped["gpu"] | yours.get("gpu", {})
    gpu = {
        name: _over(Gpu, shipped["gpu"].get(name, {}), yours.get("gpu", {}).get(name, {}), f"gpu.{name}", origin)
        for name in gpus
    }
    models = {name: _model(value, name, origin) for name, value in yours.get("models", {}).items()}
    return Prices(gpu=gpu, models=models, **made)  # type: ignore[arg-type]  # each is of its table's kind


def _over(kind: type[S], shipped: Mapping[str, Any], yours: object, name: str, origin: str) -> S:
    where = f"{origin}: [{name}]"
    given = _require_table(yours, where)
    keys = [field.name for field in fields(kind)]
    for key in given:
        if key not in keys:
            raise UsageError(f"{where} has no {key!r}; have {', '.join(keys)}", fix=FIX)
    values = {**shipped, **({"source": origin, "seen": ""} if given else {}), **given}
    missing = [key for key in keys if key not in values]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(missing)}", fix=FIX)
    return kind(**{key: _value(key, values[key], where) for key in keys})


def _value(key: str, value: object, where: str) -> Any:
    name = f"{where} {key}"
    if key in ("source", "seen"):
        return text(value, name=name, fix=FIX)
    if isinstance(value, list):
        if len(value) != 2:
            raise UsageError(f"{name} is two numbers, from and to", fix=FIX)
        low = number(value[0], name=name, fix=FIX)
        return low, number(value[1], name=name, fix=FIX, low=low)
    high = 1.0 if key == "utilisation" else 1e12
    return number(value, name=name, fix=FIX, low=_LEAST_DIVISOR if key in _DIVISORS else 0.0, high=high)


def _model(value: object, name: str, origin: str) -> ModelPrice:
    where = f"{origin}: [models.{name!r}]"
    given = _require_table(value, where)
    keys = ("input_usd_per_million", "output_usd_per_million")
    for key in given:
        if key not in keys:
            raise UsageError(f"{where} has no {key!r}; have {', '.join(keys)}", fix=FIX)
    if set(given) != set(keys):
        raise UsageError(f"{where} needs both {' and '.join(keys)}", fix=FIX)
    paid, answered = (number(given[key], name=f"{where} {key}", fix=FIX, high=1e9) / 1e6 for key in keys)
    return ModelPrice(model=name, tiers=(Tier(above_tokens=-1, input_usd=paid, output_usd=answered),), source=origin)


def _require_table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a table", fix=FIX)
    return value
