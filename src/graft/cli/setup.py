"""settings, completion, doctor, backup, restore."""

from __future__ import annotations

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import emit_json, note, say, show_table


@click.command()
@shared
def settings(home: str | None, as_json: bool) -> None:
    """Show every setting, its value and its reason."""
    from graft.settings import FILE_NAME, describe

    with open_workspace(home) as workspace:
        described = describe(workspace.settings)
        file = workspace.home / FILE_NAME
    if as_json:
        emit_json({"home": str(file.parent), "file": str(file), "settings": described})
        return
    rows = [
        (
            f"[{stage}] {key}",
            repr(entry["value"]),
            "" if entry["value"] == entry["default"] else "changed",
            entry["why"],
        )
        for stage, entries in described.items()
        for key, entry in entries.items()
    ]
    show_table(["setting", "value", "", "why"], rows)
    note(f"to change one, write it to {file}: for example\n[retrieval]\ntop_k = 5")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@shared
def completion(shell: str, home: str | None, as_json: bool) -> None:
    """Print a shell's completion script: eval "$(graft completion bash)"."""
    from click.shell_completion import get_completion_class

    from graft.cli import graft

    complete = get_completion_class(shell)
    assert complete is not None  # click has all three
    script = complete(graft, {}, "graft", "_GRAFT_COMPLETE").source()
    if as_json:
        emit_json({"shell": shell, "script": script})
    else:
        say(script)


@click.command()
@shared
def doctor(home: str | None, as_json: bool) -> int:
    """Check the database, the indexes and the models' weights."""
    with open_workspace(home) as workspace:
        problems = workspace.check()
    if as_json:
        emit_json({"problems": problems})
    elif problems:
        for problem in problems:
            say(f"✗ {problem}", "red")
        note("damaged indexes are made anew from the database: graft collections rebuild")
    else:
        say("nothing is wrong")
    return 1 if problems else 0


@click.command()
@click.argument("file", metavar="FILE")
@shared
def backup(file: str, home: str | None, as_json: bool) -> None:
    """Write documents, keys, tuned models and settings into one FILE, while the workspace may be in use."""
    with open_workspace(home) as workspace:
        made = workspace.back_up(file)
    if as_json:
        emit_json({"file": file, "created": made.created, "files": len(made.files), "size_bytes": made.size_bytes})
    else:
        say(f"{len(made.files):,} files, {made.size_bytes / 1e6:,.1f} MB in {file}")
        note("whoever has it can read every document: keep it as safe as the workspace")


@click.command()
@click.argument("file", metavar="FILE")
@shared
def restore(file: str, home: str | None, as_json: bool) -> None:
    """Make a workspace out of a backup's FILE, in a folder that is empty: --home NEW_FOLDER."""
    with open_workspace(home) as workspace:
        made = workspace.restore(file)
        chunks = sum(one.chunks for one in workspace.collections())
    if as_json:
        emit_json({"file": file, "created": made.created, "files": len(made.files), "chunks": chunks})
    else:
        say(f"{len(made.files):,} files of {made.created}; {chunks:,} passages are indexed anew")


COMMANDS = (settings, completion, doctor, backup, restore)
