"""HTTP -> the workspace's verbs, in the words of OpenAI's API; needs the `serve` extra.

`app` joins the routes; `running` listens. It has no logic of its own: what it answers, `Workspace` answered.
"""

from __future__ import annotations

from graft.server.app import create_app
from graft.server.exporting import spans_exported
from graft.server.log import LOG, Told, write_log
from graft.server.mcp_transports import serve_stdio
from graft.server.running import in_background, listen, serve, url_of

__all__ = [
    "LOG",
    "Told",
    "create_app",
    "in_background",
    "listen",
    "serve",
    "serve_stdio",
    "spans_exported",
    "url_of",
    "write_log",
]
