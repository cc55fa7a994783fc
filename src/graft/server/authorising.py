"""a request -> what it may use: the one function through which a route gets at the workspace.

Every route under /v1 takes `Seat` as a parameter and has no other way to documents or models; a test walks
the routes. There is at most one key and no users yet: who holds the key, or reaches the loopback address of a
server without one, acts as the workspace's own principal.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from graft.errors import UsageError
from graft.server.failing import Unauthorised
from graft.server.lanes import Lane
from graft.workspace import Workspace

KEY_VARIABLE = "GRAFT_API_KEY"

_bearer = HTTPBearer(auto_error=False, description=f"The value of {KEY_VARIABLE}, where the server has one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the routes work with.

    Attributes:
        answers, lookups: Threads for questions to models, and for searches and embeddings.
        key_digest: SHA-256 of the key that every request must carry; None where none is asked for.
    """

    workspace: Workspace
    answers: Lane
    lookups: Lane
    key_digest: bytes | None


def digest_of(key: str | None) -> bytes | None:
    """A key as it is kept.

    Raises:
        UsageError: It is empty, or cannot be sent in a header; an empty variable is not taken for "no key".
    """
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{KEY_VARIABLE} is {'empty' if not key else 'not made of printable ASCII characters without spaces'}",
            fix=f"unset {KEY_VARIABLE}, or: export {KEY_VARIABLE}=$(openssl rand -hex 24)",
        )
    return hashlib.sha256(key.encode()).digest()


async def authorised(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Serving:
    """What the caller may use.

    Raises:
        Unauthorised: A key is asked for, and the request has none or another.
    """
    serving: Serving = request.app.state.serving
    if serving.key_digest is None:
        return serving
    given = "" if credentials is None else credentials.credentials
    # Digests are compared: their length says nothing, and the comparison's time says nothing either.
    if not hmac.compare_digest(hashlib.sha256(given.encode("utf-8", "replace")).digest(), serving.key_digest):
        raise Unauthorised(
            "no API key was given"
            if credentials is None
            else "Incorrect API key provided",  # LiteLLM knows the words
            fix=f"OpenAI(api_key=...) with the value of {KEY_VARIABLE} that the server was started with",
        )
    return serving


Seat = Annotated[Serving, Depends(authorised)]
