"""principals + a thing's grants -> may they? One function that every read and write asks.

A principal is a string: a user (`user:ana`), a group (`group:hr`) or the owner of a single person's
workspace (`owner`). A document is granted to a set of principals; nobody else learns that it exists.
It does not know where grants are stored: the store turns them into a filter inside the search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from graft.errors import UsageError

OWNER = "owner"
"""The only principal of a single person's workspace; who runs the command line without `--as`."""

_PRINCIPAL = re.compile(r"[a-z]+(:[^\s:,;\"']{1,128})?")

Principals = frozenset[str]


def principals(names: Iterable[str]) -> Principals:
    """Check and freeze names of users and groups.

    Raises:
        UsageError: A name is not `kind` or `kind:name`, or there is none: there is no "everyone".

    >>> sorted(principals(["user:ana", "group:hr"]))
    ['group:hr', 'user:ana']
    """
    checked = frozenset(names)
    if not checked:
        raise UsageError("no principal given; every read and grant names who", fix="pass --as user:NAME")
    for name in checked:
        if not _PRINCIPAL.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a principal; it must look like owner, user:ana or group:hr",
                fix="--as user:NAME or --access group:NAME",
            )
    return checked


def may_read(who: Principals, granted: Principals) -> bool:
    """Whether any of `who` is among those a document is granted to.

    >>> may_read(frozenset({"user:ana", "group:hr"}), frozenset({"group:hr"}))
    True
    >>> may_read(frozenset({"user:ben"}), frozenset({"owner"}))
    False
    """
    return not who.isdisjoint(granted)


def join_inside(root: Path, *parts: str) -> Path:
    """Join untrusted parts below `root`; the only way a name from outside becomes a path.

    Raises:
        UsageError: The result would lie outside `root` (absolute part, `..`, a symbolic link, a NUL).

    >>> join_inside(Path("/srv/files"), "a", "b.txt").as_posix()
    '/srv/files/a/b.txt'
    """
    if any("\0" in part for part in parts):
        raise UsageError("a file name holds a NUL byte", fix="rename the file")
    base = root.resolve()
    joined = base.joinpath(*parts).resolve()
    if joined != base and base not in joined.parents:
        raise UsageError(f"{'/'.join(parts)!r} lies outside {root}", fix="use a plain name without ..")
    return joined
