"""export: a tuned model as files that run anywhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import emit_json, note, say

if TYPE_CHECKING:
    from graft.training.exporting import ExportResult


@click.command()
@click.argument("name")
@click.option("--to", "form", required=True, type=click.Choice(["adapter", "merged", "gguf"]), help="What to write.")
@click.option(
    "--quantisation",
    type=click.Choice(["f16", "q8_0", "q4_k_m"]),
    help="Bits of a GGUF's weights.  [default: q8_0]",
)
@click.option("--into", default=".", metavar="DIR", help="Folder to write into.  [default: this one]")
@click.option("--force", is_flag=True, help="Replace what is there.")
@shared
def export(
    name: str, form: str, quantisation: str | None, into: str, force: bool, home: str | None, as_json: bool
) -> None:
    """Write a tuned model as an adapter, a merged checkpoint or a GGUF file.

    Each is asked the same questions as the adapter that is served; one that answers otherwise is not handed out.
    """
    with open_workspace(home) as workspace:
        result = workspace.export(
            name,
            to=form,
            quantisation=quantisation,
            into=Path(into),
            force=force,
            tell=lambda what: note(f"{what} ..."),
        )
    if as_json:
        emit_json(_plain(result))
        return
    for file in result.files:
        say(f"{file.path}  {file.size_bytes / 1e6:,.1f} MB  sha256 {file.sha256[:16]}")
    say(result.parity.words)
    if form == "gguf":
        say(f'try it: graft ask --model {result.path} "your question"')


def _plain(result: ExportResult) -> dict[str, object]:
    return {
        "name": result.name,
        "to": result.to,
        "quantisation": result.quantisation,
        "path": str(result.path),
        "size_bytes": result.size_bytes,
        "files": [{**asdict(file), "path": str(file.path)} for file in result.files],
        "parity": asdict(result.parity),
    }


COMMANDS = (export,)
