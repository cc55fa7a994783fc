"""Vector stores in OpenAI's sense: a collection of its own each, filled with uploaded files."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from graft.errors import GraftError, NotFound, UsageError
from graft.workspace.files import FILE, FileVerbs
from graft.workspace.questions import QuestionVerbs

if TYPE_CHECKING:
    from graft.objects import Stored
    from graft.retrieval import Hit
    from graft.settings import ChunkingSettings

VECTOR_STORE, MEMBER = "vector_store", "vector_store.file"
MOST_RESULTS = 50
_CONTEXT_TOKENS = 64
"""What the embedder reads beside a chunk: its title and headings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A passage of a file in a vector store."""

    file_id: str
    filename: str
    attributes: Mapping[str, Any]
    hit: Hit


class VectorStoreVerbs(FileVerbs, QuestionVerbs):
    """Make, fill, search, remove."""

    def create_vector_store(
        self,
        *,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
    ) -> Stored:
        """An empty vector store and the collection behind it, which has its id as name."""
        from graft.objects import new_id

        id = new_id("vs_")
        self.create_collection(id)
        body = {
            "name": name,
            "metadata": dict(metadata or {}),
            "expires_after_days": expires_after_days,
            "last_active_at": int(time.time()),
        }
        return self.objects.put(VECTOR_STORE, body, id=id, owners=self.owns)

    def vector_store(self, id: str) -> Stored:
        """Raises:
        NotFound: It is not there, or not theirs.
        """
        return self.objects.get(VECTOR_STORE, id, principals=self.principals)

    def use_vector_store(self, id: str) -> Stored:
        """A vector store that is about to be searched: being used, one that expires lives on.

        Raises:
            NotFound: It is not there, or not theirs.
        """
        store = self.vector_store(id)
        if store.body["expires_after_days"] is None:
            return store
        now = int(time.time())
        return self.objects.edit(
            VECTOR_STORE, id, lambda body: {**body, "last_active_at": now}, principals=self.principals
        )

    def vector_store_files(self, id: str) -> list[Stored]:
        """What is in a vector store, in the order in which it was put there."""
        self.vector_store(id)
        return self.objects.all(MEMBER, parent=id)

    def remove_vector_store(self, id: str) -> Stored:
        """Remove a vector store with all that is in it; the uploaded files stay."""
        self.vector_store(id)
        self.store.remove_collection(id, principals=self.principals)
        return self.objects.remove(VECTOR_STORE, id, principals=self.principals)

    def attach_file(
        self,
        store: str,
        file: str,
        *,
        attributes: Mapping[str, Any] | None = None,
        chunks: tuple[int, int] | None = None,
    ) -> Stored:
        """Put an uploaded file into a vector store: "in_progress" until `index_file` has read it.

        Args:
            chunks: Tokens of a chunk and of an overlap, instead of the settings'; never more than the embedder reads.
        Raises:
            NotFound: Either is not there, or not theirs.
            UsageError: It is in there already.
        """
        owner = self.vector_store(store)
        given = self.objects.get(FILE, file, principals=self.principals)
        cut = self._chunking(chunks)
        body = {
            "filename": given.body["filename"],
            "status": "in_progress",
            "error": None,
            "file_id": file,
            "attributes": dict(attributes or {}),
            "chunk_tokens": cut.max_tokens,
            "overlap_tokens": cut.overlap_tokens,
            "usage_bytes": 0,
            "document_id": None,
        }
        return self.objects.put(MEMBER, body, id=_member(store, file), owners=owner.principals, parent=store)

    def attached_file(self, store: str, file: str) -> Stored:
        """Raises:
        NotFound: It is not in there, or not theirs.
        """
        try:
            return self.objects.get(MEMBER, _member(store, file), principals=self.principals)
        except NotFound:
            raise NotFound(f"no file {file!r} in the vector store {store!r}", fix="list its files") from None

    def change_attributes(self, store: str, file: str, attributes: Mapping[str, Any]) -> Stored:
        """Give a file in a vector store other attributes; searches see them at once."""
        found = self.attached_file(store, file)
        body = {**found.body, "attributes": dict(attributes)}
        return self.objects.change(MEMBER, found.id, body, principals=self.principals)

    def index_file(self, store: str, file: str) -> Stored:
        """Read, cut, embed and keep an attached file. Done again, it changes nothing; a failure is its status.

        Raises:
            NotFound: It was taken out meanwhile.
        """
        begun = self.attached_file(store, file)
        if begun.body["status"] == "cancelled":
            return begun
        try:
            path = self.file_path(file)
            added = self._cutting(begun).add([str(path)], collection=store)
            error = None if not added.failed else f"{added.failed[0].error} / fix: {added.failed[0].fix}"
        except NotFound:
            raise
        except GraftError as failure:
            error = str(failure)
        found = self.attached_file(store, file)
        if found.body["status"] == "cancelled":  # while it was read
            self._forget_source(store, file)
            return found
        document = None if error else self._document_of(store, path)
        body = {
            **found.body,
            "status": "failed" if error else "completed",
            "error": error,
            "document_id": document,
            "usage_bytes": 0 if error else path.stat().st_size,
        }
        return self.objects.change(MEMBER, found.id, body, principals=self.principals)

    def cancel_files(self, store: str, files: Sequence[str]) -> None:
        """Read no more of these files, if they have not been read."""
        for file in files:
            with suppress(NotFound):  # taken out since
                found = self.attached_file(store, file)
                if found.body["status"] == "in_progress":
                    body = {**found.body, "status": "cancelled"}
                    self.objects.change(MEMBER, found.id, body, principals=self.principals)

    def text_of_file(self, store: str, file: str) -> str:
        """What was read of a file in a vector store.

        Raises:
            NotFound: It is not in there, or not theirs.
            UsageError: It has not been read, or could not be.
        """
        found = self.attached_file(store, file)
        if found.body["document_id"] is None:
            raise UsageError(f"{file} is {found.body['status']}", fix="ask again when its status is completed")
        return self.store.version(found.body["document_id"], principals=self.principals).text

    def detach_file(self, store: str, file: str) -> Stored:
        """Take a file out of a vector store; the uploaded file stays."""
        found = self.attached_file(store, file)
        self._forget_source(store, file)
        return self.objects.remove(MEMBER, found.id, principals=self.principals)

    def remove_file(self, id: str) -> Stored:
        """Remove an uploaded file everywhere: out of the vector stores that it is in, too."""
        self.objects.get(FILE, id, principals=self.principals)
        for member in self.objects.all(MEMBER):
            if member.parent is not None and member.id == _member(member.parent, id):
                self.acting_as(member.principals).detach_file(member.parent, id)
        return self.forget_file(id)

    def search_vector_store(
        self,
        id: str,
        queries: Sequence[str],
        *,
        k: int = 10,
        keep: Callable[[Mapping[str, Any]], bool] | None = None,
        least_score: float = 0.0,
    ) -> list[Found]:
        """The passages that bear on any of the queries, best first.

        Args:
            keep: Of a file's attributes, whether it is searched.
            least_score: From 0 to 1.
        Raises:
            NotFound: No such vector store, or not theirs.
            UsageError: No query, an empty one, or k is not from 1 to 50.
        """
        if not 1 <= k <= MOST_RESULTS:
            raise UsageError(f"max_num_results = {k} is not from 1 to {MOST_RESULTS}", fix="max_num_results=10")
        if not queries:
            raise UsageError("there is no query", fix='query="your question"')
        self.use_vector_store(id)
        files = {
            one.body["document_id"]: one
            for one in self.vector_store_files(id)
            if one.body["document_id"] is not None and (keep is None or keep(one.body["attributes"]))
        }
        best: dict[tuple[str, int, int], Found] = {}
        for query in queries:
            for hit in self.search(query, k=k, collection=id, documents=tuple(files)).hits:
                member = files[hit.document_id]
                place = (hit.document_id, hit.start, hit.end)
                if hit.score >= least_score and (place not in best or best[place].hit.score < hit.score):
                    best[place] = Found(
                        file_id=member.id.partition("/")[2],
                        filename=member.body["filename"],
                        attributes=member.body["attributes"],
                        hit=hit,
                    )
        return sorted(best.values(), key=lambda found: -found.hit.score)[:k]

    def unfinished_files(self) -> list[Stored]:
        """What a server that stopped had not read yet, everybody's."""
        return [one for one in self.objects.all(MEMBER) if one.body["status"] == "in_progress"]

    def remove_expired(self) -> int:
        """Remove files and vector stores whose time is over, everybody's; returns how many."""
        now, removed = time.time(), 0
        for one in self.objects.all(VECTOR_STORE):
            days = one.body["expires_after_days"]
            if days is not None and one.body["last_active_at"] + 86_400 * days <= now:
                self.acting_as(one.principals).remove_vector_store(one.id)
                removed += 1
        for one in self.objects.all(FILE):
            if one.body["expires_at"] is not None and one.body["expires_at"] <= now:
                self.acting_as(one.principals).remove_file(one.id)
                removed += 1
        return removed

    def _chunking(self, given: tuple[int, int] | None) -> ChunkingSettings:
        usual = self.settings.chunking
        if given is None:
            return usual
        size = min(given[0], max(usual.max_tokens, self.embedder.max_tokens - _CONTEXT_TOKENS))
        return replace(usual, max_tokens=size, overlap_tokens=min(given[1], size // 2))

    def _cutting(self, member: Stored) -> Self:
        """The same workspace, cutting as a member asks for."""
        cut = replace(
            self.settings.chunking,
            max_tokens=member.body["chunk_tokens"],
            overlap_tokens=member.body["overlap_tokens"],
        )
        other = copy.copy(self)
        other.settings = replace(self.settings, chunking=cut)
        return other

    def _document_of(self, store: str, path: Path) -> str | None:
        source = next((s for s in self.sources(store) if s.uri == str(path.resolve())), None)
        documents = [] if source is None else self.store.documents(source_id=source.id, principals=self.principals)
        return documents[0].id if documents else None

    def _forget_source(self, store: str, file: str) -> None:
        folder = str(self.file_path(file).parent.resolve())
        for source in self.sources(store):
            if str(Path(source.uri).parent) == folder:
                self.store.remove_source(source.id, principals=self.principals)


def _member(store: str, file: str) -> str:
    return f"{store}/{file}"
