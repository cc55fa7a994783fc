"""A workspace's folder, settings and principals -> what is open: store, embedder, reader, models.

Each is opened when it is first needed. It does not know the verbs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from graft.access import OWNER, may_read
from graft.access import principals as check_principals
from graft.settings import Settings, home_folder, load_settings, model_cache

if TYPE_CHECKING:
    from graft.audit import Audit
    from graft.embedding import Embedder
    from graft.identity import Identities
    from graft.models import Model, Usage
    from graft.models.catalogue import Reader
    from graft.models.specs import ModelSpec
    from graft.objects import Objects
    from graft.readers import SandboxedReader
    from graft.sessions import Sessions
    from graft.spending import Spending
    from graft.store import Store
    from graft.sync import Ingest, Progress


class Opened:
    """What the verbs work on."""

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        settings: Settings | None = None,
        principals: Iterable[str] | None = None,
    ) -> None:
        self.home = home_folder(None if home is None else Path(home)).absolute()
        self.settings = load_settings(self.home) if settings is None else settings
        self.principals = check_principals([OWNER] if principals is None else principals)
        self.owns = self.principals
        self._models: dict[tuple[str, ModelSpec | str], Model] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acting_as(self, principals: Iterable[str], *, owns: Iterable[str] | None = None) -> Self:
        """The same open workspace for others; it is closed with this one, and need not be by itself.

        Args:
            owns: Whose that is which they add, fewer than who they are: a user's, not their groups'. By default all.
        """
        _ = (
            self.store,
            self.embedder,
            self.reader,
            self.identities,
            self.objects,
            self.sessions,
            self.spending,
        )  # opened once, and shared
        other = copy.copy(self)
        other.principals = check_principals(principals)
        other.owns = other.principals if owns is None else check_principals(owns)
        other.__dict__.pop("jobs", None)  # they see others
        return other

    def close(self) -> None:
        """Let go of files, memory and processes; the workspace can be used again."""
        for name in ("reader", "store", "jobs", "identities", "objects", "sessions", "spending"):
            if (opened := self.__dict__.pop(name, None)) is not None:
                opened.close()
        self.__dict__.pop("embedder", None)
        self._models.clear()

    @cached_property
    def store(self) -> Store:
        """The truth and its indexes."""
        from graft.store import SqlStore

        return SqlStore(self.home, self.settings.store)

    @cached_property
    def identities(self) -> Identities:
        """Users, groups and keys."""
        from graft.identity import Identities
        from graft.store.database import Database

        return Identities(Database(self.settings.store.url, home=self.home))

    @cached_property
    def sessions(self) -> Sessions:
        """Who has signed in."""
        from graft.sessions import Sessions
        from graft.store.database import Database

        return Sessions(Database(self.settings.store.url, home=self.home))

    @cached_property
    def spending(self) -> Spending:
        """What callers have used."""
        from graft.spending import Spending
        from graft.store.database import Database

        return Spending(Database(self.settings.store.url, home=self.home))

    @cached_property
    def audit(self) -> Audit:
        """Who changed what."""
        from graft.audit import Audit

        return Audit(self.home)

    @cached_property
    def objects(self) -> Objects:
        """What clients of the API made, with its owners."""
        from graft.objects import Objects
        from graft.store.database import Database

        return Objects(Database(self.settings.store.url, home=self.home))

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder of the settings; a local one's weights are fetched if they are not here."""
        from graft.embedding.registry import open_embedder
        from graft.models.catalogue import catalogue
        from graft.models.pulling import pull

        if self.settings.embedding.model in catalogue():
            pull(self.settings.embedding.model, cache=model_cache())
        return open_embedder(self.settings.embedding, cache=model_cache())

    @cached_property
    def reader(self) -> SandboxedReader:
        """The process that reads files."""
        from graft.readers import SandboxedReader

        return SandboxedReader(self.settings.reading)

    def model(self, name: str | None = None) -> Model:
        """An open model: by default the one that the settings name.

        Raises:
            ModelError: It is not pulled, or cannot be loaded.
            NotFound: No model has that name.
        """
        from graft.models import open_model

        wanted = name or self.settings.model.default
        spec = self._added_models().get(wanted, wanted)
        if (wanted, spec) not in self._models:
            self._models[wanted, spec] = open_model(spec, settings=self.settings.model, cache=model_cache())
        return self._models[wanted, spec]

    def _reader_of(self, name: str | None) -> Reader | None:
        """With what a model of the catalogue answers from passages."""
        from graft.models.catalogue import reader_of

        wanted = name or self.settings.model.default
        return None if wanted in self._added_models() else reader_of(wanted)

    def _ingest(self, progress: Callable[[Progress], None] | None) -> Ingest:
        from graft.sync import Ingest

        return Ingest(
            store=self.store,
            reader=self.reader,
            embedder=self.embedder,
            settings=self.settings,
            home=self.home.resolve(),
            progress=progress or (lambda _: None),
        )

    def _added_models(self) -> dict[str, ModelSpec]:
        """Those that exist for whoever acts."""
        from graft.models.specs import ModelSpec

        found = {name: ModelSpec.from_json(spec) for name, spec in self.store.models().items()}
        return {
            name: spec
            for name, spec in found.items()
            if spec.owners is None or OWNER in self.principals or may_read(self.principals, frozenset(spec.owners))
        }

    def _spec(self, name: str) -> ModelSpec:
        from graft.models import spec_for

        return self._added_models().get(name) or spec_for(name)

    def is_hosted(self, name: str) -> bool:
        """Whether a provider answers under this name, for money."""
        return self._spec(name).kind == "api"

    def _price(self, name: str) -> Callable[[Usage], float | None] | None:
        """Of a hosted model's tokens; None where nobody is paid."""
        spec = self._spec(name)
        if spec.kind != "api":
            return None
        from graft.models.hosted import price_of

        return lambda usage: price_of(spec.target, usage)
