"""collections: list, create, remove, reembed, rebuild."""

from __future__ import annotations

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import add_progress, emit_json, say, show_table


@click.group()
def collections() -> None:
    """Sets of documents, each with one embedder."""


@collections.command("list")
@shared
def list_collections(home: str | None, as_json: bool) -> None:
    """List the collections."""
    with open_workspace(home) as workspace:
        found = workspace.collections()
    if as_json:
        emit_json({"collections": found})
    elif not found:
        say("no collections yet; `graft add FOLDER` makes the first")
    else:
        show_table(
            ["collection", "documents", "chunks", "embedder"],
            [(c.name, c.documents, c.chunks, c.embedder or "none yet") for c in found],
        )


@collections.command()
@click.argument("name")
@shared
def create(name: str, home: str | None, as_json: bool) -> None:
    """Make an empty collection."""
    with open_workspace(home) as workspace:
        workspace.create_collection(name)
    _done({"created": name}, f"created {name}", as_json)


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def remove(name: str, yes: bool, home: str | None, as_json: bool) -> None:
    """Remove a collection and all its documents."""
    with open_workspace(home) as workspace:
        if not yes and not as_json:
            click.confirm(f"Remove collection {name} and all its documents?", abort=True, err=True)
        removed = workspace.remove_collection(name)
    _done({"removed": name, "documents": removed}, f"removed {name} ({removed} documents)", as_json)


@collections.command()
@click.argument("name")
@click.option("--with", "readers", multiple=True, required=True, metavar="PRINCIPAL", help="user:NAME or group:NAME.")
@shared
def share(name: str, readers: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Let others read a collection, and what its sources bring from now on."""
    with open_workspace(home) as workspace:
        documents = workspace.share_collection(name, readers)
    told = f"{documents} documents of {name} may now be read by {', '.join(readers)} too"
    _done({"shared": name, "with": list(readers), "documents": documents}, told, as_json)


@collections.command()
@click.argument("name")
@shared
def reembed(name: str, home: str | None, as_json: bool) -> None:
    """Make all vectors anew with the embedder of the settings."""
    with open_workspace(home) as workspace, add_progress(quiet=as_json) as progress:
        chunks = workspace.reembed(name, progress=progress)
    _done({"reembedded": name, "chunks": chunks}, f"embedded {chunks} chunks of {name} anew", as_json)


@collections.command()
@shared
def rebuild(home: str | None, as_json: bool) -> None:
    """Make the search indexes anew from the database."""
    with open_workspace(home) as workspace:
        chunks = workspace.rebuild_indexes()
    _done({"rebuilt": True, "chunks": chunks}, f"rebuilt the indexes of {chunks} chunks", as_json)


def _done(value: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        emit_json(value)
    else:
        say(text)


COMMANDS = (collections,)
