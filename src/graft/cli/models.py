"""models: list, pull, add, remove."""

from __future__ import annotations

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import byte_progress, emit_json, say, show_table


@click.group()
def models() -> None:
    """Models that answer, and the one that embeds."""


@models.command("list")
@shared
def list_models(home: str | None, as_json: bool) -> None:
    """List the catalogue and what was added to it."""
    with open_workspace(home) as workspace:
        found = workspace.models()
    if as_json:
        emit_json({"models": found})
        return
    show_table(
        ["model", "kind", "size", "licence", "context", "here", "about"],
        [
            (
                m.name,
                m.kind,
                _megabytes(m.size_bytes),
                m.licence,
                m.context_tokens or "",
                "yes" if m.ready else "",
                m.about,
            )
            for m in found
        ],
    )


def _megabytes(size: int | None) -> str:
    return "unknown" if not size else f"{size / 1e6:,.0f} MB"


@models.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch it again even if it is here.")
@shared
def pull(name: str, force: bool, home: str | None, as_json: bool) -> None:
    """Fetch a model's weights and verify their checksum; goes on where it was interrupted."""
    with open_workspace(home) as workspace, byte_progress(name, quiet=as_json) as progress:
        folder = workspace.pull_model(name, force=force, progress=progress)
    if as_json:
        emit_json({"pulled": name, "path": str(folder)})
    else:
        say(f"{name} is in {folder}")


@models.command()
@click.argument("source", metavar="FILE.gguf|NAME")
@click.option("--name", help="What to call a file.  [default: its name]")
@click.option("--api", metavar="litellm/PROVIDER/MODEL", help="A hosted model.")
@click.option("--api-base", metavar="URL", help="Where an OpenAI-compatible server listens.")
@click.option("--key-env", metavar="VARIABLE", help="Environment variable that holds the key.")
@shared
def add(
    source: str,
    name: str | None,
    api: str | None,
    api_base: str | None,
    key_env: str | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Register a GGUF file, or a hosted model under a name of your own."""
    with open_workspace(home) as workspace:
        if api is not None:
            added = workspace.add_hosted_model(source, api, api_base=api_base, key_env=key_env)
        else:
            added = workspace.add_model_file(source, name=name)
    if as_json:
        emit_json({"added": added})
    else:
        say(f'added {added}; try it: graft ask --model {added} "your question"')


@models.command()
@click.argument("name")
@shared
def remove(name: str, home: str | None, as_json: bool) -> None:
    """Forget an added model, or delete a pulled one's weights."""
    with open_workspace(home) as workspace:
        workspace.remove_model(name)
    if as_json:
        emit_json({"removed": name})
    else:
        say(f"removed {name}")


COMMANDS = (models,)
