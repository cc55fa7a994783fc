"""Models: list, pull, add, remove, and whether what is here is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graft.errors import GraftError, UsageError
from graft.settings import model_cache
from graft.workspace.opened import Opened

if TYPE_CHECKING:
    from graft.models.specs import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelListing:
    """A model by name, and whether it can be used at once.

    Attributes:
        ready: Its weights are here, or it is hosted.
        size_bytes, context_tokens: None where unknown.
    """

    name: str
    kind: str
    ready: bool
    size_bytes: int | None
    licence: str
    context_tokens: int | None
    about: str


class ModelVerbs(Opened):
    """Models by name."""

    def models(self) -> list[ModelListing]:
        """The catalogue, then what was added here."""
        from graft.models.catalogue import catalogue, is_pulled

        listed = [
            ModelListing(
                name=entry.name,
                kind=entry.kind,
                ready=is_pulled(entry, cache=model_cache()),
                size_bytes=entry.size_bytes,
                licence=entry.licence,
                context_tokens=entry.context_tokens,
                about=entry.description,
            )
            for entry in catalogue().values()
        ]
        return listed + [_added(spec) for spec in self._added_models().values()]

    def pull_model(
        self, name: str, *, force: bool = False, progress: Callable[[int, int | None], None] | None = None
    ) -> Path:
        """Fetch a catalogue model's weights, verify them, and return their folder; see `models.pulling.pull`."""
        from graft.models.pulling import pull

        return pull(name, cache=model_cache(), force=force, progress=progress).folder

    def add_model_file(self, path: str, *, name: str | None = None) -> str:
        """Register a GGUF file, once it has been found whole; returns the model's name.

        Raises:
            ModelError: It is not a GGUF, or a damaged one.
        """
        from graft.models.gguf import read_head
        from graft.models.specs import ModelSpec

        file = Path(path).expanduser().resolve()
        read_head(file)
        return self._put_model(ModelSpec(name=name or file.stem, kind="file", target=str(file)))

    def add_hosted_model(
        self, name: str, api: str, *, api_base: str | None = None, key_env: str | None = None
    ) -> str:
        """Register a hosted model (litellm/PROVIDER/MODEL); the key stays in the environment variable `key_env`."""
        from graft.models.specs import HOSTED_PREFIX, ModelSpec

        if not api.startswith(HOSTED_PREFIX):
            raise UsageError(f"--api {api!r} does not begin with {HOSTED_PREFIX}", fix=f"--api {HOSTED_PREFIX}{api}")
        return self._put_model(
            ModelSpec(
                name=name, kind="api", target=api.removeprefix(HOSTED_PREFIX), api_base=api_base, key_env=key_env
            )
        )

    def remove_model(self, name: str) -> None:
        """Forget a model that was added, or delete a pulled one's weights."""
        from graft.models.catalogue import entry_named
        from graft.models.pulling import remove_pulled

        added = self._added_models()
        if name in added:
            self.store.remove_model(name)
        else:
            remove_pulled(entry_named(name, also=added), cache=model_cache())
        self._close_model(name)

    def check(self) -> list[str]:
        """What is wrong with the database, the indexes or the pulled models, in words; empty when nothing is."""
        from graft.models.catalogue import catalogue, is_pulled
        from graft.models.pulling import verify

        problems = self.store.check()
        for entry in catalogue().values():
            if entry.weights == entry.name and is_pulled(entry, cache=model_cache()):
                try:
                    verify(entry, cache=model_cache())
                except GraftError as error:
                    problems.append(str(error))
        return problems

    def _put_model(self, spec: ModelSpec) -> str:
        from graft.models.catalogue import catalogue

        if spec.name in catalogue():
            raise UsageError(f"the catalogue has a model {spec.name!r}", fix="choose another --name")
        if spec.name in self.store.models() and spec.name not in self._added_models():
            raise UsageError(f"the name {spec.name!r} is taken", fix="choose another --name")
        self.store.put_model(spec.name, spec.to_json())
        self._close_model(spec.name)
        return spec.name

    def _close_model(self, name: str) -> None:
        """Open it anew when it is asked next."""
        for key in [key for key in self._models if key[0] == name]:
            self._models.pop(key, None)


def _added(spec: ModelSpec) -> ModelListing:
    return ModelListing(
        name=spec.name,
        kind="chat",
        ready=spec.kind == "api" or Path(spec.target).is_file(),
        size_bytes=None,
        licence="",
        context_tokens=spec.context_tokens,
        about=spec.target if spec.run is None else f"tuned from {Path(spec.target).stem}; card: {spec.run}/card.md",
    )
