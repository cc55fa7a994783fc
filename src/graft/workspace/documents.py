"""Documents and collections: the verbs that put in, list and take out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graft.access import join_inside
from graft.access import principals as check_principals
from graft.errors import NotFound, UsageError
from graft.workspace.opened import Opened

if TYPE_CHECKING:
    from graft.store import CollectionRecord, DocumentRecord, SourceRecord
    from graft.sync import AddResult, Progress, RemovedSource

DEFAULT_COLLECTION = "default"
_AT_ONCE = 1_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A range amid its text: `before` + `quote.text` + `after` stands so in that version, all of it or a part."""

    quote: Quote
    title: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on a page a range stands.

    Attributes:
        width, height: Of the page, in points.
        boxes: Left, bottom, right, top of each line of it, in points from the page's lower left corner.
    """

    page: int
    width: float
    height: float
    boxes: tuple[tuple[float, float, float, float], ...]


class DocumentVerbs(Opened):
    """add, sync, list, remove, resolve; collections."""

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

        grant = self.owns | (frozenset() if access is None else check_principals(access))
        return add(
            locations,
            ingest=self._ingest(progress),
            collection=collection,
            principals=self.principals,
            grant=grant,
            owners=self.owns,
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

        It stays out although its file may lie in an added folder, until that file is added by name.

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

    def sources(self, collection: str | None = None) -> list[SourceRecord]:
        """The folders, files and URLs that `sync` looks at, by collection and address."""
        from graft.sync import list_sources

        return list_sources(collection, store=self.store, principals=self.principals)

    def remove_source(self, location: str, *, collection: str | None = None) -> RemovedSource:
        """Forget a folder, file or URL that was added, with all its documents; it need not exist any more.

        Raises:
            NotFound: It is no source of these collections; names what is.
            UsageError: It is a source of several collections.
        """
        from graft.sync import remove_source

        return remove_source(location, store=self.store, collection=collection, principals=self.principals)

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

    def passage(self, document_id: str, version: int, start: int, end: int, *, around: int = 1500) -> Passage:
        """What a citation points at, with up to `around` characters before and after it.

        Raises:
            NotFound, UsageError: As `resolve`.
        """
        quote = self.resolve(document_id, version, start, end)
        found = self.store.version(document_id, version, principals=self.principals)
        before, after = found.text[max(0, start - around) : start], found.text[end : end + around]
        return Passage(quote=quote, title=found.title, before=before, after=after)

    def places(self, document_id: str, version: int, start: int, end: int) -> list[Place]:
        """Where a range stands, page by page; nothing where the format has no pages or the document is gone.

        Raises:
            NotFound, UsageError: As `resolve`.
        """
        from graft.documents import line_boxes

        if self.resolve(document_id, version, start, end).state == "removed":
            return []
        found = self.store.version(document_id, version, principals=self.principals)
        places = []
        for page in found.pages:
            first, last = max(start, page.start), min(end, page.end)
            if first >= last:
                continue
            boxes = self.store.boxes(document_id, version, first, last, principals=self.principals)
            if boxes is not None:
                lines = line_boxes(boxes)
                places.append(Place(page=page.number, width=page.width, height=page.height, boxes=lines))
        return places

    def picture(self, document_id: str, version: int, start: int, end: int) -> bytes:
        """The page on which a range begins, as a PNG with the range marked, drawn from the file itself.

        Raises:
            NotFound: As `resolve`; or there is no picture: the format has no pages, the file is on the web, is gone,
                or is no longer the one that this version was read from.
        """
        import hashlib

        places = self.places(document_id, version, start, end)
        if not places:
            raise NotFound("this document has no pages to be shown", fix="resolve the range: its words are kept")
        found = self.store.version(document_id, version, principals=self.principals)
        path = self._file_of(self._document(document_id, None))
        data = b"" if path is None or not path.is_file() else self._bytes_of(path)
        if hashlib.sha256(data).hexdigest() != found.source_sha256:
            raise NotFound(
                f"{found.uri} is no longer the file that version {version} was read from",
                fix="resolve the range: its words are kept",
            )
        return self.reader.picture(data, name=found.uri, page=places[0].page, marks=places[0].boxes)

    def _bytes_of(self, path: Path) -> bytes:
        from graft.readers import check_size

        check_size(path, self.settings.reading)
        return path.read_bytes()

    def _file_of(self, document: DocumentRecord) -> Path | None:
        source = next(one for one in self.sources(document.collection) if one.id == document.source_id)
        if source.kind == "url":
            return None
        return Path(source.uri) if source.kind == "file" else join_inside(Path(source.uri), document.uri)

    def collections(self) -> list[CollectionRecord]:
        """All collections, with counts of what may be read."""
        return self.store.collections(principals=self.principals)

    def create_collection(self, name: str) -> None:
        """Make an empty collection; one of that name that exists already is a UsageError."""
        if any(c.name == name for c in self.collections()):
            raise UsageError(f"there is a collection {name!r} already", fix="graft collections list")
        self.store.create_collection(name, principals=self.owns)

    def remove_collection(self, name: str) -> int:
        """Remove a collection with its documents; returns how many."""
        return len(self.store.remove_collection(name, principals=self.principals).removed)

    def share_collection(self, name: str, readers: Iterable[str]) -> int:
        """Let others read a collection: what is in it, and what its sources bring from now on.

        Returns: How many documents they could not read before.
        Raises:
            NotFound, AccessDenied: Not theirs to share.
            UsageError: A reader is no principal.
        """
        from graft.store import Batch

        added = check_principals(readers)
        new = {one.id: one.principals | added for one in self.documents(name) if not added <= one.principals}
        ids = list(new)
        for first in range(0, len(ids), _AT_ONCE):
            access = {one: new[one] for one in ids[first : first + _AT_ONCE]}
            self.store.write(Batch(collection=name, access=access), principals=self.principals)
        for source in self.store.sources(name, principals=self.principals):
            self.store.add_source(
                name,
                kind=source.kind,
                uri=source.uri,
                grant=source.principals | added,
                principals=self.principals,
            )
        return len(new)

    def reembed(self, name: str, *, progress: Callable[[Progress], None] | None = None) -> int:
        """Make a collection's vectors anew with the embedder of the settings; returns how many."""
        from graft.sync import reembed

        return reembed(name, ingest=self._ingest(progress), principals=self.principals)

    def rebuild_indexes(self) -> int:
        """Make the search indexes anew from the database; returns the number of chunks."""
        self.store.rebuild_indexes()
        return sum(c.chunks for c in self.collections())

    def _document(self, name: str, collection: str | None) -> DocumentRecord:
        documents = self.documents(collection)
        found = [d for d in documents if name in (d.id, d.uri)]
        if not found:
            raise NotFound(f"no document {name!r} among {len(documents)}", fix="graft list")
        if len(found) > 1:
            ids = ", ".join(d.id for d in found)
            raise UsageError(f"{len(found)} documents are called {name!r}: {ids}", fix=f"graft remove {found[0].id}")
        return found[0]
