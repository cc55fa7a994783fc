"""A model's name -> what is tuned: a checkpoint and the GGUF that serves it, or a provider's model.

It does not know examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graft.errors import ModelError, UsageError
from graft.models import ModelSpec, catalogue, pulled
from graft.models.catalogue import entry_named
from graft.models.specs import HOSTED_PREFIX, spec_for
from graft.training.checkpoint import checkpoint_from_gguf, open_checkpoint
from graft.training.gguf_writer import write_gguf
from graft.training.merging import disk_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A model that can be tuned.

    Attributes:
        gguf: Serves it; made from the checkpoint where the base is one (see `serving_gguf`), then None.
        licence: "" where unknown.
    """

    name: str
    checkpoint: Path
    gguf: Path | None
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedBase:
    """A model that its provider tunes, by a fine-tuning API like OpenAI's.

    Attributes:
        spec: How the base is asked.
        provider, model: The provider as LiteLLM names it, and the provider's own name of the model.
        base_url: None is OpenAI's.
        key_env: Name of the environment variable that holds the key.
    """

    spec: ModelSpec
    provider: str
    model: str
    base_url: str | None
    key_env: str

    @property
    def name(self) -> str:
        """The base's."""
        return self.spec.name

    @property
    def licence(self) -> str:
        """Not known here: the provider's terms."""
        return ""


def open_base(
    spec: ModelSpec | str, *, cache: Path, tell: Callable[[str], object] = lambda what: None
) -> Base | HostedBase:
    """Find the base, dequantising a GGUF to a checkpoint the first time it is tuned.

    Args:
        spec: A checkpoint's folder, a GGUF's path, a name of the catalogue, `litellm/PROVIDER/MODEL`, or what was
            registered.
        cache: Folder of pulled models; checkpoints are kept beside them.
    Raises:
        UsageError: A hosted model whose provider's fine-tuning is not known, or a local one that is itself tuned.
        ModelError: Not pulled, not a model of text, or not safe to open.
    """
    if isinstance(spec, str) and Path(spec).is_dir():
        checkpoint = open_checkpoint(Path(spec))
        return Base(name=Path(spec).name, checkpoint=checkpoint.folder, gguf=None, licence="")
    if isinstance(spec, str):
        spec = _spec(spec)
    if spec.kind == "api":
        return _hosted(spec)
    if spec.adapter is not None:
        raise UsageError(
            f"{spec.name!r} is an adapter on {spec.target!r}",
            fix=f"graft export {spec.name} --to merged, and tune the folder that it writes",
        )
    entry = catalogue().get(spec.target) if spec.kind == "catalogue" else None
    gguf = pulled(entry, cache=cache).main if entry is not None else Path(spec.target)
    tell(f"open {spec.name} as a checkpoint")
    folder = checkpoint_from_gguf(gguf, cache / "checkpoints")
    return Base(name=spec.name, checkpoint=folder, gguf=gguf, licence=entry.licence if entry is not None else "")


def _hosted(spec: ModelSpec) -> HostedBase:
    provider, _, model = spec.target.partition("/")
    add = f"graft models add NAME --api {HOSTED_PREFIX}openai/MODEL --api-base URL --key-env VARIABLE"
    if not model or (spec.api_base is None and provider != "openai"):
        raise UsageError(
            f"{spec.name!r}: of {provider!r} no fine-tuning API is known; OpenAI has one, and servers that are "
            "registered by their address may",
            fix=add,
        )
    if spec.api_base is not None and spec.key_env is None:  # the key of OpenAI is not for another server
        raise UsageError(f"{spec.name!r} is registered without a key, and tuning needs one", fix=add)
    return HostedBase(
        spec=spec,
        provider=provider,
        model=model,
        base_url=spec.api_base,
        key_env=spec.key_env or "OPENAI_API_KEY",
    )


def _spec(name: str) -> ModelSpec:
    if name.startswith(HOSTED_PREFIX):
        return spec_for(name)
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise ModelError(f"there is no file {name}", fix="graft models list")
        return ModelSpec(name=Path(name).stem, kind="file", target=str(Path(name).resolve()))
    return ModelSpec(name=name, kind="catalogue", target=entry_named(name).name)


def serving_gguf(base: Base, into: Path) -> Path:
    """The GGUF that serves the base: its own, or one in half precision made in the folder `into`, once."""
    if base.gguf is not None:
        return base.gguf
    target = into / f"{base.name}-f16.gguf"
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        try:
            write_gguf(base.checkpoint, part, quantisation="f16", name=base.name, like=None)
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise disk_error(error, target) from error
    return target
