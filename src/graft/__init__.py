"""Graft: customise a language model on your documents by retrieval, tuning or both, and measure which wins.

from graft import Workspace
with Workspace() as workspace:
    workspace.add(["handbook/"])
    print(workspace.ask("How much leave may I carry over?").text)
"""

from __future__ import annotations

from graft.errors import GraftError
from graft.settings import Settings
from graft.workspace import Workspace

__all__ = ["GraftError", "Settings", "Workspace"]
