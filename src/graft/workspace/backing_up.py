"""backup and restore: a workspace in one file, and out of it again in another place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import UsageError
from graft.workspace.models import ModelVerbs

if TYPE_CHECKING:
    from graft.backup import Backup


class BackupVerbs(ModelVerbs):
    """Back up; restore."""

    def back_up(self, into: Path | str, *, tell: Callable[[str], object] = lambda path: None) -> Backup:
        """Write all that cannot be made anew into one file, while the workspace may be in use.

        Raises:
            UsageError: The file exists, or lies in the workspace, or the documents are kept in PostgreSQL.
        """
        from graft.backup import back_up

        if self.settings.store.url.startswith("postgres"):
            raise UsageError(
                "the documents are kept in PostgreSQL, which has tools of its own for this",
                fix=f"pg_dump for the database, and a copy of {self.home} for files and tuned models",
            )
        return back_up(self.home, Path(into), tell=tell)

    def restore(self, file: Path | str, *, tell: Callable[[str], object] = lambda path: None) -> Backup:
        """Make this workspace, which must be empty, out of a backup, with its indexes made anew.

        Raises:
            UsageError: The workspace holds something, or the file is no backup, or a damaged one.
        """
        from graft.backup import restore

        found = restore(Path(file), self.home, tell=tell)
        now = str(self.home.resolve())
        for name, spec in self.store.models().items():
            self.store.put_model(name, _moved(spec, found.home, now))
        for done in self.home.glob("tuned/*/*/done.json"):
            told = json.loads(done.read_text(encoding="utf-8"))
            done.write_text(json.dumps(_moved(told, found.home, now)), encoding="utf-8")
        self.store.move_sources(found.home, now)
        self.store.rebuild_indexes()
        return found


def _moved(spec: Any, before: str, now: str) -> dict[str, Any]:
    """A model's description with the paths of its own files below the folder where they lie now.

    >>> _moved({"adapter": "/old/tuned/a.gguf", "target": "/models/b.gguf"}, "/old", "/new")
    {'adapter': '/new/tuned/a.gguf', 'target': '/models/b.gguf'}
    """
    return {
        key: now + value.removeprefix(before) if isinstance(value, str) and value.startswith(f"{before}/") else value
        for key, value in spec.items()
    }
