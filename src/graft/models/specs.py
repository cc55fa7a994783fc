"""What a workspace stores about a model, and a spec -> the open model.

It does not know where specs are stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from graft.errors import ModelError, UsageError
from graft.models.catalogue import CatalogueEntry, entry_named, pulled, reader_of
from graft.models.protocol import Model
from graft.settings import ModelSettings

HOSTED_PREFIX = "litellm/"
SpecKind = Literal["catalogue", "file", "api"]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model that can be opened; holds no secret.

    Attributes:
        kind: "catalogue", "file" or "api".
        target: The catalogue's name, the GGUF's path, or LiteLLM's `PROVIDER/MODEL`.
        adapter: Path of a LoRA (GGUF) that belongs to it; not for "api".
        run: Folder of the tuning run that made it; only for tuned models.
        api_base: Of an OpenAI-compatible server; only for "api".
        key_env: Name of the environment variable that holds the key; only for "api".
        context_tokens: Where nothing else states it; only for "api".
        owners: The principals for whom it exists; None for everybody. A model has learnt what it was tuned on.
    """

    name: str
    kind: SpecKind
    target: str
    adapter: str | None = None
    run: str | None = None
    api_base: str | None = None
    key_env: str | None = None
    context_tokens: int | None = None
    owners: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.owners is not None:
            object.__setattr__(self, "owners", tuple(self.owners))
        if self.kind not in get_args(SpecKind) or not self.name or not self.target:
            raise UsageError(
                f"model {self.name!r} of kind {self.kind!r} for {self.target!r}; kinds are {get_args(SpecKind)}",
                fix="graft models add --help",
            )
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            raise UsageError(
                "key_env is the NAME of an environment variable, not the key itself", fix="--key-env MY_API_KEY"
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without what is not set."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> ModelSpec:
        """The inverse of `to_json`.

        Raises:
            UsageError: Not an object of these keys.

        >>> spec = ModelSpec(name="mine", kind="file", target="/models/mine.gguf")
        >>> ModelSpec.from_json(spec.to_json()) == spec
        True
        """
        try:
            unknown = set(given) - {field.name for field in fields(cls)}
            if unknown:
                raise TypeError(f"unknown {', '.join(sorted(unknown))}")
            return cls(**given)
        except TypeError as error:
            raise UsageError(f"no model description: {error}", fix="graft models add") from error


def spec_for(name: str) -> ModelSpec:
    """What a name means by itself: a GGUF's path, `litellm/PROVIDER/MODEL`, or a name of the catalogue.

    Raises:
        NotFound: None of these; names what exists.

    >>> spec_for("litellm/openai/gpt-4o").target
    'openai/gpt-4o'
    """
    if name.startswith(HOSTED_PREFIX):
        return ModelSpec(name=name, kind="api", target=name.removeprefix(HOSTED_PREFIX))
    if name.endswith(".gguf"):
        return ModelSpec(name=Path(name).stem, kind="file", target=name)
    return ModelSpec(name=name, kind="catalogue", target=entry_named(name).name)


def open_model(spec: ModelSpec | str, *, settings: ModelSettings, cache: Path) -> Model:
    """Open a model. Local ones load at their first use; keep the object, it is what keeps them loaded.

    Args:
        spec: Or a name, see `spec_for`.
        cache: Folder of pulled models.
    Raises:
        NotFound: No such name.
        ModelError: Not pulled, not a model that talks, or its file is damaged.
    """
    if isinstance(spec, str):
        spec = spec_for(spec)
    if spec.kind == "api":
        from graft.models.hosted import HostedModel

        return HostedModel(
            spec.target,
            name=spec.name,
            api_base=spec.api_base,
            key_env=spec.key_env,
            context_tokens=spec.context_tokens,
        )
    from graft.models.llama import LlamaModel

    path = Path(spec.target) if spec.kind == "file" else _pulled_chat(entry_named(spec.target), cache)
    reader = reader_of(spec.target) if spec.kind == "catalogue" and spec.adapter is None else None
    return LlamaModel(
        path,
        name=spec.name,
        context_tokens=settings.context_tokens,
        threads=settings.threads,
        parallel=settings.parallel,
        adapter=None if spec.adapter is None else Path(spec.adapter),
        reader=None if reader is None else Path(reader.adapter),
    )


def _pulled_chat(entry: CatalogueEntry, cache: Path) -> Path:
    if entry.kind != "chat":
        raise ModelError(f"{entry.name!r} is an {entry.kind}, it does not answer", fix="graft models list")
    return pulled(entry, cache=cache).main
