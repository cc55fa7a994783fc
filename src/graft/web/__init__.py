"""A browser -> the workspace's verbs: pages for people, on the server of the API, with its identity.

`mounting` puts them into the application; each page is one file. Nothing is decided here: what a page shows, a verb
or a route's own function answered, as whoever has signed in. It does not know how answers are made or keys checked.
"""

from __future__ import annotations

from graft.web.mounting import mount

__all__ = ["mount"]
