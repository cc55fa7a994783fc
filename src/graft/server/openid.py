"""A browser at an OpenID provider -> who the provider says it is.

The authorisation code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636); the ID token is believed
only with the provider's own signature, for this server, this attempt, and this moment. It does not know users.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from graft.errors import AccessDenied, FetchError, GraftError, UsageError
from graft.fetching import fetch
from graft.settings import OidcSettings

SECRET_VARIABLE = "GRAFT_OIDC_SECRET"
ATTEMPT_S = 600
"""Somebody who takes longer at the provider begins again."""

_MOST_ATTEMPTS = 10_000
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""With public keys alone: neither "none" nor one for which the provider's public key would be the secret."""
_LEEWAY_S = 60
_MOST_BYTES, _SECONDS = 1_000_000, 10.0
_KEYS_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Somebody who was sent to the provider.

    Attributes:
        browser: Known to that browser alone, so that nobody else's answer is taken for its.
        next: Where they wanted to go, on this server.
    """

    browser: str
    nonce: str
    verifier: str
    redirect_uri: str
    next: str
    began: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says it is.

    Attributes:
        subject: Issuer and subject: the same for ever.
        verified: Whether the provider has made sure that the name is theirs.
    """

    name: str
    subject: str
    groups: tuple[str, ...]
    verified: bool


class OpenId:
    """One provider.

    Args:
        secret: Of this server as the provider's client; None where it has none (PKCE alone).
    Raises:
        UsageError: The settings cannot be.
    """

    def __init__(self, settings: OidcSettings, secret: str | None) -> None:
        if not settings.client_id:
            raise UsageError("[oidc] has an issuer and no client_id", fix="client_id = what the provider calls it")
        if settings.default_role not in ("", "reader", "editor"):
            raise UsageError(
                f"[oidc] default_role = {settings.default_role!r} is neither reader nor editor",
                fix="administrators come from admin_groups, or are made by hand",
            )
        self.settings = settings
        self._secret = secret
        self._lock = threading.Lock()
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._known: tuple[float, dict[str, Any], KeySet] | None = None

    def begin(self, redirect_uri: str, next: str) -> tuple[str, Attempt]:
        """Where to send a browser, and the attempt that begins.

        Raises:
            FetchError, GraftError: The provider cannot be reached, or is none.
        """
        told, _ = self._provider()
        state = secrets.token_urlsafe(32)
        attempt = Attempt(
            browser=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            next=next,
            began=time.monotonic(),
        )
        with self._lock:
            self._attempts[state] = attempt
            while len(self._attempts) > _MOST_ATTEMPTS:
                self._attempts.popitem(last=False)
        url: str = prepare_grant_uri(
            told["authorization_endpoint"],
            client_id=self.settings.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self.settings.scopes,
            state=state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return url, attempt

    def finish(self, state: str, code: str, browser: str) -> tuple[Person, Attempt]:
        """Who came back.

        Raises:
            AccessDenied: It is no answer to an attempt of this browser, or the provider's word does not hold.
            FetchError: The provider cannot be reached, or refuses the code.
        """
        with self._lock:
            attempt = self._attempts.pop(state, None)  # once only
        late = attempt is None or time.monotonic() - attempt.began > ATTEMPT_S
        if attempt is None or late or not secrets.compare_digest(attempt.browser, browser):
            raise AccessDenied("this sign-in was not begun here, or is over", fix="begin again: /auth/login")
        told, keys = self._provider()
        return self._person(self._claims(self._token(told, code, attempt), keys, attempt)), attempt

    def _provider(self) -> tuple[dict[str, Any], KeySet]:
        """What the provider publishes, read again each hour."""
        with self._lock:
            known = self._known
        if known is not None and time.monotonic() - known[0] < _KEYS_S:
            return known[1], known[2]
        issuer = self.settings.issuer
        told = self._read(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if told.get("issuer") != issuer:
            raise GraftError(
                f"the provider at {issuer} calls itself {told.get('issuer')!r}",
                fix="[oidc] issuer must be what it calls itself, to the letter",
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(told.get(name), str):
                raise GraftError(f"the provider at {issuer} tells no {name}", fix="check [oidc] issuer")
        try:
            keys = KeySet.import_key_set(cast(Any, self._read(told["jwks_uri"])))
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise GraftError(f"the keys of {issuer} cannot be read", fix="check [oidc] issuer") from error
        with self._lock:
            self._known = (time.monotonic(), told, keys)
        return told, keys

    def _token(self, told: Mapping[str, Any], code: str, attempt: Attempt) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
            "client_id": self.settings.client_id,
        }
        if self._secret is not None:
            form["client_secret"] = self._secret
        given = self._read(told["token_endpoint"], form)
        token = given.get("id_token")
        if not isinstance(token, str):
            raise AccessDenied("the provider gave no ID token", fix="[oidc] scopes must have openid")
        return token

    def _claims(self, token: str, keys: KeySet, attempt: Attempt) -> CodeIDToken:
        settings = self.settings
        try:
            decoded = jwt.decode(token, keys, algorithms=_ALGORITHMS)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": settings.issuer},
                    "aud": {"essential": True, "value": settings.client_id},
                    "sub": {"essential": True},
                },
                {"nonce": attempt.nonce, "client_id": settings.client_id},
            )
            claims.validate(leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            with self._lock:
                self._known = None  # its keys may have changed
            raise AccessDenied(
                f"the provider's word does not hold: {type(error).__name__}", fix="begin again: /auth/login"
            ) from error
        return claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        settings = self.settings
        name, subject = claims.get(settings.name_claim), claims.get("sub")
        if not isinstance(name, str) or not isinstance(subject, str) or not name or not subject:
            raise AccessDenied(
                f"the provider does not tell {settings.name_claim}", fix="[oidc] scopes and name_claim"
            )
        verified = settings.name_claim == "email" and claims.get("email_verified") is True
        if settings.name_claim == "email" and not verified:
            raise AccessDenied("the provider has not verified your email", fix="verify it there, and sign in again")
        domains = _listed(settings.domains)
        if domains and (not verified or name.rpartition("@")[2].lower() not in domains):
            raise AccessDenied(f"{name} is of none of the domains that are let in", fix="[oidc] domains")
        given = claims.get(settings.groups_claim) or []
        groups = tuple(one for one in given if isinstance(one, str)) if isinstance(given, list) else ()
        subject = f"{settings.issuer}#{quote(subject, safe='')}"
        return Person(name=name.lower() if verified else name, subject=subject, groups=groups, verified=verified)

    def _read(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """JSON of the provider, which may stand inside the operator's own network."""
        try:
            got = fetch(
                url,
                max_bytes=_MOST_BYTES,
                timeout_seconds=_SECONDS,
                allow_private=True,
                headers={"Accept": "application/json"},
                form=form,
            )
        except FetchError as error:
            raise FetchError("the provider cannot be reached, or refuses", fix=error.fix) from error
        try:
            read = json.loads(got.data)
        except ValueError as error:
            raise GraftError("the provider answers in something else than JSON", fix="check [oidc]") from error
        if not isinstance(read, dict):
            raise GraftError("the provider answers in something else than an object", fix="check [oidc]")
        return read


def role_of(groups: tuple[str, ...], settings: OidcSettings) -> str | None:
    """The role that the provider's groups give; None for nobody's.

    >>> role_of(("staff", "it"), OidcSettings(admin_groups="it, board"))
    'admin'
    >>> role_of(("staff",), OidcSettings(admin_groups="it")) is None
    True
    """
    for role, named in (("admin", settings.admin_groups), ("editor", settings.editor_groups)):
        if _listed(named, fold=False) & set(groups):
            return role
    return settings.default_role or None


def _listed(given: str, *, fold: bool = True) -> frozenset[str]:
    names = (one.strip() for one in given.split(","))
    return frozenset(one.lower() if fold else one for one in names if one)
