"""HTTP -> the workspace's verbs, in the words of OpenAI's API; needs the `serve` extra.

`app` joins the routes; `running` listens. It has no logic of its own: what it answers, `Workspace` answered.
"""

from __future__ import annotations

from graft.server.app import create_app
from graft.server.running import in_background, listen, serve, url_of

__all__ = ["create_app", "in_background", "listen", "serve", "url_of"]
