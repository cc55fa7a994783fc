"""The library's front door: the verbs as methods of one Workspace.

Command line, HTTP and Python call these and nothing below them. It holds what is open (store, embedder,
models, reading process) and opens each when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from graft.access import OWNER
from graft.access import principals as check_principals
from graft.errors import NotFound, UsageError
from graft.settings import Settings, home_folder, load_settings, model_cache

if TYPE_CHECKING:
    from graft.answering import Answer, Asking
    from graft.embedding import Embedder
    from graft.models import Message, Model
    from graft.models.specs import ModelSpec
    from graft.readers import SandboxedReader
    from graft.retrieval import SearchResult
    from graft.store import CollectionRecord, DocumentRecord, Store
    from graft.sync import AddResult, Ingest, Progress

DEFAULT_COLLECTION = "default"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A range of a document's version, and what became of that version.

    Attributes:
        state: "current", "superseded" by a later version, or "removed"; then `text` is "".
    """

    document: str
    document_id: str
    version: int
    start: int
    end: int
    state: str
    text: str


class Workspace:
    """Documents, models and settings in one folder.

    Args:
        home: The folder; see `settings.home_folder` for the default. Made when something is added.
        settings: Instead of those in `home/graft.toml`.
        principals: Who acts, unless a method is told otherwise; the owner by default.

    >>> from tempfile import TemporaryDirectory
    >>> from pathlib import Path
    >>> with TemporaryDirectory() as folder, Workspace(Path(folder) / "home") as workspace:
    ...     note = Path(folder) / "travel.md"
    ...     _ = note.write_text("# Travel\\n\\nA hotel may cost at most 140 EUR a night.")
    ...     added = workspace.add([str(note)])
    ...     hit = workspace.search("What may a hotel cost?").hits[0]
    >>> added.added, hit.document, hit.text.splitlines()[-1]
    (1, 'travel.md', 'A hotel may cost at most 140 EUR a night.')
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        settings: Settings | None = None,
        principals: Iterable[str] | None = None,
    ) -> None:
        self.home = home_folder(None if home is None else Path(home))
        self.settings = load_settings(self.home) if settings is None else settings
        self.principals = check_principals([OWNER] if principals is None else principals)
        self._models: dict[str, Model] = {}

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files, memory and processes; the workspace can be used again."""
        for name in ("reader", "store"):
            if (opened := self.__dict__.pop(name, None)) is not None:
                opened.close()
        self.__dict__.pop("embedder", None)
        self._models.clear()

    # What is opened on first use.

    @cached_property
    def store(self) -> Store:
        """The truth and its indexes."""
        from graft.store import SqlStore

        return SqlStore(self.home, self.settings.store)

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

    # Documents.

    def add(
        self,
        locations: Sequence[str],
        *,
        collection: str = DEFAULT_COLLECTION,
        access: Iterable[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> AddResult:
        """Read files, folders and URLs into a collection, which is made if it does not exist.

        Args:
            access: Who may read them besides those who add them.
            progress: Told how far it has come.
        Returns: Counts, and every file that failed with its fix; the others are in.
        Raises:
            UsageError: A location does not exist.
            EmbedderMismatch: The collection holds another embedder's vectors.
        """
        from graft.sync import add

        grant = self.principals | (frozenset() if access is None else check_principals(access))
        return add(
            locations,
            ingest=self._ingest(progress),
            collection=collection,
            principals=self.principals,
            grant=grant,
        )

    def sync(self, collection: str | None = None, *, progress: Callable[[Progress], None] | None = None) -> AddResult:
        """Look again at every source of a collection, or of all: take up what is new, changed or gone."""
        from graft.sync import sync

        return sync(ingest=self._ingest(progress), collection=collection, principals=self.principals)

    def documents(self, collection: str | None = None) -> list[DocumentRecord]:
        """The documents that may be read, by collection and path."""
        return self.store.documents(collection=collection, principals=self.principals)

    def remove(self, document: str, *, collection: str | None = None) -> DocumentRecord:
        """Remove a document from everywhere at once; citations of it resolve to "removed".

        Args:
            document: Its path or URL as `documents` shows it, or its id.
        Raises:
            NotFound: There is none, or it may not be read.
            UsageError: Several documents have that path.
        """
        from graft.store import Batch

        found = self._document(document, collection)
        self.store.write(Batch(collection=found.collection, removed=[found.id]), principals=self.principals)
        return found

    def resolve(self, document_id: str, version: int, start: int, end: int) -> Quote:
        """What a citation points at, for as long as the document is not removed.

        Raises:
            NotFound: No such version, or it may not be read.
            UsageError: The range leaves the text.
        """
        found = self.store.version(document_id, version, principals=self.principals)
        if found.state != "removed" and not 0 <= start < end <= len(found.text):
            raise UsageError(
                f"range {start}-{end} is not within the {len(found.text)} characters of {found.uri}",
                fix="use the range as the citation gives it",
            )
        return Quote(
            document=found.uri,
            document_id=document_id,
            version=version,
            start=start,
            end=end,
            state=found.state,
            text=found.text[start:end],
        )

    # Questions.

    def search(
        self,
        question: str,
        *,
        k: int | None = None,
        collection: str | None = None,
        principals: Iterable[str] | None = None,
    ) -> SearchResult:
        """The passages that bear on a question, best first; see `retrieval.search`."""
        from graft.retrieval import search

        return search(
            question,
            store=self.store,
            embedder=self.embedder,
            principals=self.principals if principals is None else check_principals(principals),
            settings=self.settings.retrieval,
            collections=None if collection is None else (collection,),
            k=k,
        )

    def ask(
        self,
        question: str,
        *,
        model: str | None = None,
        retrieval: bool = True,
        strict: bool = False,
        collection: str | None = None,
        history: Sequence[Message] = (),
    ) -> Answer:
        """A question -> a checked answer, or an honest "not in your documents"; see `answering`."""
        from graft.models import drain

        return drain(
            self.ask_stream(
                question, model=model, retrieval=retrieval, strict=strict, collection=collection, history=history
            )
        )

    def ask_stream(
        self,
        question: str,
        *,
        model: str | None = None,
        retrieval: bool = True,
        strict: bool = False,
        collection: str | None = None,
        history: Sequence[Message] = (),
    ) -> Generator[str, None, Answer]:
        """Like `ask`, yielding the model's draft as it is written; the return value is the Answer."""
        from graft.answering import answer_closed_book, answer_stream

        if strict and not retrieval:
            raise UsageError(
                "without retrieval nothing can be checked, so strict would leave nothing",
                fix="leave out --no-retrieval",
            )
        asking = self._asking(model, collection)
        if retrieval:
            return answer_stream(question, asking, history=history, strict=strict)
        return answer_closed_book(question, asking)

    # Collections.

    def collections(self) -> list[CollectionRecord]:
        """All collections, with counts of what may be read."""
        return self.store.collections(principals=self.principals)

    def create_collection(self, name: str) -> None:
        """Make an empty collection; one of that name that exists already is a UsageError."""
        if any(c.name == name for c in self.collections()):
            raise UsageError(f"there is a collection {name!r} already", fix="graft collections list")
        self.store.create_collection(name, principals=self.principals)

    def remove_collection(self, name: str) -> int:
        """Remove a collection with its documents; returns how many."""
        return len(self.store.remove_collection(name, principals=self.principals).removed)

    def reembed(self, name: str, *, progress: Callable[[Progress], None] | None = None) -> int:
        """Make a collection's vectors anew with the embedder of the settings; returns how many."""
        from graft.sync import reembed

        return reembed(name, ingest=self._ingest(progress), principals=self.principals)

    def rebuild_indexes(self) -> int:
        """Make the search indexes anew from the database; returns the number of chunks."""
        self.store.rebuild_indexes()
        return sum(c.chunks for c in self.collections())

    def check(self) -> list[str]:
        """What is wrong with the database, the indexes or the pulled models, in words; empty when nothing is."""
        from graft.errors import GraftError
        from graft.models.catalogue import catalogue, is_pulled
        from graft.models.pulling import verify

        problems = self.store.check()
        for entry in catalogue().values():
            if is_pulled(entry, cache=model_cache()):
                try:
                    verify(entry, cache=model_cache())
                except GraftError as error:
                    problems.append(str(error))
        return problems

    # Models.

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
            remove_pulled(entry_named(name, also=added).name, cache=model_cache())
        self._models.pop(name, None)

    def model(self, name: str | None = None) -> Model:
        """An open model: by default the one that the settings name.

        Raises:
            ModelError: It is not pulled, or cannot be loaded.
            NotFound: No model has that name.
        """
        from graft.models import open_model

        wanted = name or self.settings.model.default
        if wanted not in self._models:
            spec = self._added_models().get(wanted, wanted)
            self._models[wanted] = open_model(spec, settings=self.settings.model, cache=model_cache())
        return self._models[wanted]

    # Parts of the above.

    def _ingest(self, progress: Callable[[Progress], None] | None) -> Ingest:
        from graft.sync import Ingest

        return Ingest(
            store=self.store,
            reader=self.reader,
            embedder=self.embedder,
            settings=self.settings,
            progress=progress or (lambda _: None),
        )

    def _asking(self, model: str | None, collection: str | None) -> Asking:
        from graft.answering import Asking

        return Asking(
            store=self.store,
            embedder=self.embedder,
            model=self.model(model),
            principals=self.principals,
            answering=self.settings.answering,
            retrieval=self.settings.retrieval,
            collections=None if collection is None else (collection,),
        )

    def _document(self, name: str, collection: str | None) -> DocumentRecord:
        documents = self.documents(collection)
        found = [d for d in documents if name in (d.id, d.uri)]
        if not found:
            raise NotFound(f"no document {name!r} among {len(documents)}", fix="graft list")
        if len(found) > 1:
            ids = ", ".join(d.id for d in found)
            raise UsageError(f"{len(found)} documents are called {name!r}: {ids}", fix=f"graft remove {found[0].id}")
        return found[0]

    def _added_models(self) -> dict[str, ModelSpec]:
        from graft.models.specs import ModelSpec

        return {name: ModelSpec.from_json(spec) for name, spec in self.store.models().items()}

    def _put_model(self, spec: ModelSpec) -> str:
        from graft.models.catalogue import catalogue

        if spec.name in catalogue():
            raise UsageError(f"the catalogue has a model {spec.name!r}", fix="choose another --name")
        self.store.put_model(spec.name, spec.to_json())
        self._models.pop(spec.name, None)
        return spec.name


def _added(spec: ModelSpec) -> ModelListing:
    return ModelListing(
        name=spec.name,
        kind="chat",
        ready=spec.kind == "api" or Path(spec.target).is_file(),
        size_bytes=None,
        licence="",
        context_tokens=spec.context_tokens,
        about=spec.target,
    )
