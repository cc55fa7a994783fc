"""What is read otherwise now is read again, what somebody removed stays out, a URL is asked for its version."""

from __future__ import annotations

import http.server
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graft import Workspace
from graft.access import Principals
from graft.errors import AccessDenied, NotFound, UsageError
from graft.readers.versions import VERSIONS
from graft.settings import resolve
from graft.store import Batch, ChunkRecord, SqlStore
from graft.sync import list_sources, remove_source
from tests.web_server import Web, answer

LEAVE = "# Leave\n\nUnused leave may be carried over until 31 March of the next year.\n\n## Sick\n\nSee a doctor.\n"
TRAVEL = "# Travel\n\nA hotel may cost at most 140 EUR a night.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    (documents / "deep").mkdir(parents=True)
    (documents / "leave.md").write_text(LEAVE)
    (documents / "deep" / "travel.md").write_text(TRAVEL)
    return documents


def uris(workspace: Workspace) -> list[str]:
    return [document.uri for document in workspace.documents()]


# Made otherwise


class Counting:
    """The real embedder, and how many texts it was given; its tokens may be letters."""

    def __init__(self, inner: Any, *, letters: bool = False) -> None:
        self.inner, self.letters, self.texts = inner, letters, 0
        self.identity, self.dimensions, self.max_tokens = inner.identity, inner.dimensions, inner.max_tokens

    def embed(self, texts: list[str], **others: Any) -> NDArray[np.float32]:
        self.texts += len(texts)
        vectors: NDArray[np.float32] = self.inner.embed(texts, **others)
        return vectors

    def token_offsets(self, text: str) -> NDArray[np.int32]:
        if self.letters:
            return np.array([(i, i + 1) for i, letter in enumerate(text) if letter.isalnum()], np.int32)
        offsets: NDArray[np.int32] = self.inner.token_offsets(text)
        return offsets


def test_changed_chunking_reaches_files_that_did_not_change(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    before = workspace.search("Until when may leave be carried over?").hits[0]
    workspace.close()
    with Workspace(workspace.home, settings=resolve({"chunking": {"max_tokens": 12}})) as other:
        result = other.sync()
        assert (result.updated, result.unchanged, result.added) == (2, 0, 0)
        documents = {d.uri: d for d in other.documents()}
        assert documents["leave.md"].chunks > 2 and {d.version for d in documents.values()} == {1}
        quote = other.resolve(before.document_id, before.version, before.start, before.end)
        assert (quote.state, quote.text) == ("current", before.text)
        again = other.add([str(folder)])
        assert (again.updated, again.unchanged) == (0, 2)


def test_another_tokenizer_of_the_embedder_reaches_files_that_did_not_change(
    workspace: Workspace, folder: Path
) -> None:
    workspace.add([str(folder)])
    chunks = sum(d.chunks for d in workspace.documents())
    workspace.embedder = Counting(workspace.embedder, letters=True)  # type: ignore[assignment]
    (folder / "long.txt").write_text("Words of a long text. " * 60)
    result = workspace.sync()
    assert (result.added, result.updated, result.unchanged) == (1, 2, 0)
    assert sum(d.chunks for d in workspace.documents()) > chunks + 1


def test_a_better_reader_reaches_files_of_its_format_and_embeds_only_what_is_new(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "note.txt").write_text("A plain note.")
    workspace.add([str(folder)])
    embedder = Counting(workspace.embedder)
    workspace.embedder = embedder  # type: ignore[assignment]
    assert workspace.sync().unchanged == 3
    monkeypatch.setitem(VERSIONS, "markdown", VERSIONS["markdown"] + 1)
    result = workspace.sync()
    assert (result.updated, result.unchanged, result.failed) == (2, 1, [])
    assert embedder.texts == 0 and {d.version for d in workspace.documents()} == {1}
    (folder / "leave.md").write_text(LEAVE + "\n## Parental leave\n\n" + "It lasts up to three years. " * 40)
    result = workspace.sync()
    assert (result.updated, result.unchanged) == (1, 2)
    assert 0 < embedder.texts <= result.chunks


def test_a_file_that_the_better_reader_cannot_read_keeps_what_the_old_one_could(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add([str(folder)])
    monkeypatch.setitem(VERSIONS, "markdown", VERSIONS["markdown"] + 1)
    (folder / "leave.md").write_text("")
    for _ in range(2):
        result = workspace.sync()
        assert len(result.failed) == 1 and "leave.md" in uris(workspace)
    assert workspace.search("Until when may leave be carried over?").hits[0].document == "leave.md"


# Removed by somebody, or gone


def test_a_removed_document_stays_out_although_its_file_lies_there(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    workspace.remove("leave.md")
    for again in (workspace.sync, lambda: workspace.add([str(folder)])):
        result = again()
        assert (result.added, result.unchanged, result.kept_out) == (0, 1, 1)
        assert uris(workspace) == ["deep/travel.md"]
    (folder / "leave.md").write_text(LEAVE + "More of it.")
    assert workspace.sync().added == 0
    (folder / "leave.md").unlink()
    assert workspace.sync().removed == 0
    (folder / "leave.md").write_text(LEAVE)
    assert workspace.sync().added == 0 and uris(workspace) == ["deep/travel.md"]


def test_naming_the_file_brings_a_removed_document_back_to_its_folder(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    removed = workspace.remove("deep/travel.md")
    result = workspace.add([str(folder / "deep" / "travel.md")])
    assert (result.added, result.kept_out) == (1, 0)
    back = next(d for d in workspace.documents() if d.uri == "deep/travel.md")
    assert (back.id, back.source_id, back.version) == (removed.id, removed.source_id, 2)
    (folder / "deep" / "travel.md").write_text(TRAVEL.replace("140", "150"))
    result = workspace.sync()
    assert (result.updated, result.unchanged) == (1, 1)
    assert len(list_sources(None, store=workspace.store, principals=workspace.principals)) == 1


def test_naming_it_for_other_readers_adds_it_beside_the_folder(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    workspace.remove("leave.md")
    assert workspace.add([str(folder / "leave.md")], access=["group:hr"]).added == 1
    assert workspace.sync().kept_out == 1
    with Workspace(workspace.home, principals=["group:hr"]) as hr:
        assert uris(hr) == ["leave.md"]


def test_a_file_that_was_added_by_itself_and_removed_returns_only_when_it_is_named(
    workspace: Workspace, folder: Path
) -> None:
    note = str(folder / "leave.md")
    workspace.add([note])
    workspace.remove("leave.md")
    assert (workspace.sync().added, uris(workspace)) == (0, [])
    assert (workspace.add([note]).added, uris(workspace)) == (1, ["leave.md"])


def test_a_file_that_vanished_comes_back_with_its_document(workspace: Workspace, folder: Path) -> None:
    workspace.add([str(folder)])
    before = workspace.documents()[1]
    (folder / "leave.md").rename(folder.parent / "aside")
    assert workspace.sync().removed == 1
    (folder.parent / "aside").rename(folder / "leave.md")
    assert workspace.sync().added == 1
    assert [(d.uri, d.id) for d in workspace.documents()][1] == ("leave.md", before.id)


class Removing(SqlStore):
    """A store from which somebody removes a document just after its chunks were read."""

    victim = ""

    def chunks(self, chunk_ids: Any, *, principals: Principals) -> list[ChunkRecord]:
        found = super().chunks(chunk_ids, principals=principals)
        self.write(Batch(collection="default", removed=[self.victim]), principals=principals)
        return found


def test_a_document_removed_while_it_is_searched_for_is_left_out(tmp_path: Path, models: Path, folder: Path) -> None:
    (folder / "leave.md").write_text(LEAVE + "\n" + "Leave is asked for in writing, leave is leave. " * 60)
    with Workspace(tmp_path / "home", settings=resolve({"chunking": {"max_tokens": 40}})) as workspace:
        workspace.add([str(folder)])
        assert workspace.search("leave in writing").hits[0].document == "leave.md"
        store = Removing(workspace.home)
        store.victim = next(d.id for d in workspace.documents() if d.uri == "leave.md")
        workspace.__dict__["store"] = store
        hits = workspace.search("leave in writing, hotel").hits
        assert [h.document for h in hits if h.end - h.start > 300] == []
        assert "deep/travel.md" in {h.document for h in hits}


# Sources


def test_a_forgotten_source_takes_its_documents_along_and_is_looked_at_no_more(
    workspace: Workspace, folder: Path
) -> None:
    other = folder.parent / "other.txt"
    other.write_text("Another note.")
    workspace.add([str(folder), str(other)])
    who, store = workspace.principals, workspace.store
    assert [s.uri for s in list_sources(None, store=store, principals=who)] == [str(folder), str(other)]
    with pytest.raises(NotFound, match=r"nowhere is no source; have .*documents, .*other\.txt"):
        remove_source("nowhere", store=store, collection=None, principals=who)
    folder.rename(folder.with_name("moved"))  # it need not be there any more
    removed = remove_source(str(folder), store=store, collection=None, principals=who)
    assert (removed.source.uri, removed.documents) == (str(folder), 2)
    assert uris(workspace) == ["other.txt"]
    folder.with_name("moved").rename(folder)
    assert (workspace.sync().added, workspace.sync().unchanged) == (0, 1)
    assert workspace.add([str(folder)]).added == 2


def test_a_source_of_two_collections_must_be_told_apart_and_others_sources_are_unknown(
    workspace: Workspace, folder: Path
) -> None:
    workspace.add([str(folder)], collection="one", access=["group:hr"])
    workspace.add([str(folder)], collection="two")
    store = workspace.store
    with pytest.raises(UsageError, match="several collections: one, two"):
        remove_source(str(folder), store=store, collection=None, principals=workspace.principals)
    hr = frozenset({"group:hr"})
    with pytest.raises(AccessDenied):
        remove_source(str(folder), store=store, collection=None, principals=hr)
    with pytest.raises(NotFound):
        remove_source(str(folder), store=store, collection="two", principals=hr)
    assert remove_source(str(folder), store=store, collection="two", principals=workspace.principals).documents == 2
    assert {d.collection for d in workspace.documents()} == {"one"}


# URLs, asked for by way of a proxy on loopback: the guard lets no URL lead inside


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    server = Web()
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield server
    server.server.shutdown()
    server.server.server_close()


PAGE = "http://docs.example/travel.md"


def serve(web: Web, text: str, *, etag: str) -> list[int]:
    """Serve a text under an ETag; the statuses that were answered."""
    statuses: list[int] = []

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        statuses.append(304 if request.headers["If-None-Match"] == etag else 200)
        body = b"" if statuses[-1] == 304 else text.encode()
        answer(request, body, status=statuses[-1], ETag=etag, Content_Type="text/markdown")

    web.paths[PAGE] = handle
    return statuses


def test_a_url_whose_version_is_the_same_is_not_sent_again(workspace: Workspace, web: Web) -> None:
    statuses = serve(web, TRAVEL, etag='"1"')
    assert workspace.add([PAGE]).added == 1
    assert workspace.sync().unchanged == workspace.add([PAGE]).unchanged == 1
    assert statuses == [200, 304, 304]
    statuses = serve(web, TRAVEL, etag='"2"')  # another mark, the same bytes
    assert [workspace.sync().unchanged for _ in range(2)] == [1, 1]
    assert statuses == [200, 304]
    statuses = serve(web, TRAVEL.replace("140", "150"), etag='"3"')
    result = workspace.sync()
    assert (result.updated, statuses) == (1, [200])
    assert "150 EUR" in workspace.search("What may a hotel cost?").hits[0].text


def test_a_url_that_is_read_otherwise_now_is_sent_again(
    workspace: Workspace, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = serve(web, TRAVEL, etag='"1"')
    workspace.add([PAGE])
    monkeypatch.setitem(VERSIONS, "markdown", VERSIONS["markdown"] + 1)
    assert (workspace.sync().updated, workspace.sync().unchanged) == (1, 1)
    assert statuses == [200, 200, 304]


def test_a_url_that_does_not_answer_keeps_its_document_and_one_removed_stays_out(
    workspace: Workspace, web: Web
) -> None:
    serve(web, TRAVEL, etag='"1"')
    workspace.add([PAGE])
    handle = web.paths.pop(PAGE)
    result = workspace.sync()
    assert "404" in result.failed[0].error and uris(workspace) == [PAGE]
    web.paths[PAGE] = handle
    workspace.remove(PAGE)
    asked = len(web.asked)
    assert (workspace.sync().kept_out, len(web.asked), uris(workspace)) == (1, asked, [])
    assert (workspace.add([PAGE]).added, uris(workspace)) == (1, [PAGE])


# A home that is not there


def test_a_mistyped_home_reads_as_empty_and_is_not_made(tmp_path: Path, models: Path) -> None:
    home = tmp_path / "mistyped" / "home"
    with Workspace(home) as workspace:
        assert (workspace.documents(), workspace.collections()) == ([], [])
        assert workspace.search("anything").hits == ()
        assert workspace.sync().added == 0 and workspace.rebuild_indexes() == 0
        with pytest.raises(NotFound):
            workspace.remove("note.txt")
        with pytest.raises(NotFound):
            workspace.remove_collection("default")
        with pytest.raises(UsageError, match="does not exist"):
            workspace.add([str(tmp_path / "nothing")])
    assert not home.parent.exists()
