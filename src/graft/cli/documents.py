"""add, sync, list, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graft.cli.options import collection_option, open_workspace, shared
from graft.cli.output import add_progress, counted, emit_json, say, show_add, show_table
from graft.errors import NotFound

if TYPE_CHECKING:
    from graft.sync import AddResult


def _finish(result: AddResult, as_json: bool) -> int:
    if as_json:
        emit_json(
            {
                "added": result.added,
                "updated": result.updated,
                "unchanged": result.unchanged,
                "removed": result.removed,
                "failed": [{"path": f.path, "error": f.error, "fix": f.fix} for f in result.failed],
                "chunks": result.chunks,
                "seconds": result.seconds,
            }
        )
    else:
        show_add(result)
    nothing_done = not (result.added or result.updated or result.unchanged or result.removed)
    return 1 if result.failed and nothing_done else 0


@click.command()
@click.argument("locations", nargs=-1, required=True, metavar="PATH|URL ...")
@click.option("--collection", "-c", default="default", show_default=True, metavar="NAME", help="Where to put them.")
@click.option(
    "--access",
    multiple=True,
    metavar="PRINCIPAL",
    help="Who else may read them: user:NAME or group:NAME; repeatable.",
)
@click.option("--queue", is_flag=True, help="Leave it to `graft worker`.")
@shared
def add(
    locations: tuple[str, ...],
    collection: str,
    access: tuple[str, ...],
    queue: bool,
    home: str | None,
    as_json: bool,
) -> int:
    """Read files, folders and URLs into a collection.

    A folder is remembered: adding it again, or `graft sync`, takes up only what changed there.
    """
    if queue:
        with open_workspace(home) as workspace:
            job = workspace.queue_add(locations, collection=collection, access=access or None)
        emit_json({"job": job.id}) if as_json else say(f"queued {job.id}; a worker does it: graft worker")
        return 0
    with open_workspace(home) as workspace, add_progress(quiet=as_json) as progress:
        result = workspace.add(locations, collection=collection, access=access or None, progress=progress)
    return _finish(result, as_json)


@click.command()
@click.argument("collection", required=False)
@shared
def sync(collection: str | None, home: str | None, as_json: bool) -> int:
    """Look again at every folder, file and URL that was added."""
    with open_workspace(home) as workspace, add_progress(quiet=as_json) as progress:
        result = workspace.sync(collection, progress=progress)
    return _finish(result, as_json)


@click.command("list")
@collection_option
@shared
def list_documents(collection: str | None, home: str | None, as_json: bool) -> None:
    """List the documents."""
    with open_workspace(home) as workspace:
        documents, folder = workspace.documents(collection), workspace.home
    if as_json:
        emit_json({"documents": documents})
    elif not documents:
        say(f"no documents yet in {folder}; add some: graft add FOLDER")
    else:
        show_table(
            ["document", "title", "format", "version", "chunks", "collection", "id"],
            [(d.uri, d.title, d.format, d.version, d.chunks, d.collection, d.id) for d in documents],
        )


@click.command()
@click.argument("document", metavar="DOC|SOURCE")
@collection_option
@shared
def remove(document: str, collection: str | None, home: str | None, as_json: bool) -> None:
    """Remove a document, by its path or id, or an added folder or URL with all its documents.

    At once, and from everywhere. A removed document stays out of later syncs; `graft add FILE` brings it back.
    """
    with open_workspace(home) as workspace:
        try:
            source = workspace.remove_source(document, collection=collection)
            said = f"removed {source.source.uri} with {counted(source.documents, 'document')}"
            found: dict[str, Any] = {"removed": source}
        except NotFound:
            one = workspace.remove(document, collection=collection)
            said = f"removed {one.uri} ({counted(one.chunks, 'chunk')}); `graft add FILE` would bring it back"
            found = {"removed": one}
    if as_json:
        emit_json(found)
    else:
        say(said)


COMMANDS = (add, sync, list_documents, remove)
