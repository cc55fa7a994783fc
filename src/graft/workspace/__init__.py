"""The library's front door: the verbs as methods of one Workspace, a file for each group of them.

Command line, HTTP and Python call these and nothing below them.
"""

from __future__ import annotations

from graft.workspace.backing_up import BackupVerbs
from graft.workspace.documents import DEFAULT_COLLECTION, Quote
from graft.workspace.fine_tuning import FineTuningVerbs
from graft.workspace.models import ModelListing
from graft.workspace.vector_stores import VectorStoreVerbs

__all__ = ["DEFAULT_COLLECTION", "ModelListing", "Quote", "Workspace"]


class Workspace(FineTuningVerbs, VectorStoreVerbs, BackupVerbs):
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
