"""Signing in through an OpenID provider: a real one, small, on this machine; and what others try."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import re
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from graft.errors import UsageError
from graft.server import in_background
from graft.server.openid import OpenId
from graft.settings import OidcSettings, ServingSettings, Settings
from graft.workspace import Workspace
from tests.conftest import ROOT

CLIENT = "graft"
KEY, OTHER_KEY = RSAKey.generate_key(2048, {"kid": "one"}), RSAKey.generate_key(2048, {"kid": "one"})


def signed(claims: dict[str, Any], algorithm: str, key: Any) -> str:
    """A token; by hand where no library would make it."""
    if algorithm == "RS256":
        return jwt.encode({"alg": algorithm, "kid": "one"}, claims, key)
    parts = [{"alg": algorithm, "kid": "one", "typ": "JWT"}, claims]
    body = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mark = hmac.digest(key, body, "sha256") if algorithm == "HS256" else b""
    return (body + b"." + base64.urlsafe_b64encode(mark).rstrip(b"=")).decode()


class Provider(BaseHTTPRequestHandler):
    """Knows one person, who has always agreed; what its word says can be spoilt."""

    person: ClassVar[dict[str, Any]] = {}
    spoil: ClassVar[dict[str, Any]] = {}
    codes: ClassVar[dict[str, dict[str, str]]] = {}
    port: ClassVar[int] = 0

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/.well-known/openid-configuration":
            here = f"http://127.0.0.1:{self.port}"
            self._tell(
                {
                    "issuer": here,
                    "authorization_endpoint": f"{here}/authorize?tenant=1",
                    "token_endpoint": f"{here}/token",
                    "jwks_uri": f"{here}/keys",
                }
            )
        elif url.path == "/keys":
            self._tell({"keys": [KEY.as_dict(private=False)]})
        elif url.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            assert asked["response_type"] == "code" and asked["client_id"] == CLIENT and asked["tenant"] == "1"
            code = f"code-{len(self.codes)}"
            self.codes[code] = asked
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?code={code}&state={asked['state']}")
            self.end_headers()

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        given = {name: values[0] for name, values in form.items()}
        asked = self.codes.pop(given["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(given["code_verifier"].encode()).digest())
        right = (
            asked is not None
            and challenge.decode().rstrip("=") == asked["code_challenge"]
            and given["redirect_uri"] == asked["redirect_uri"]
            and given["client_secret"] == "of the client"
        )
        if not right or asked is None:
            self.send_error(400)
            return
        now = int(time.time())
        claims = {
            "iss": f"http://127.0.0.1:{self.port}",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.person,
            **{name: value for name, value in self.spoil.items() if name not in ("key", "alg")},
        }
        token = signed(claims, self.spoil.get("alg", "RS256"), self.spoil.get("key", KEY))
        self._tell({"access_token": "x", "token_type": "Bearer", "id_token": token})

    def _tell(self, what: dict[str, Any]) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    Provider.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{Provider.port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def served(issuer: str, tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, Workspace]]:
    oidc = OidcSettings(
        issuer=issuer, client_id=CLIENT, admin_groups="board", editor_groups="staff, it", domains="example.org"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFT_OIDC_SECRET", "of the client")
        settings = Settings(oidc=oidc)
        with (
            Workspace(tmp_path_factory.mktemp("login") / "home", settings=settings) as workspace,
            in_background(workspace, ServingSettings(port=0)) as (url, _),
        ):
            yield url.removesuffix("/v1"), workspace


@pytest.fixture(autouse=True)
def ana() -> None:
    Provider.person = {"sub": "1", "email": "Ana@example.org", "email_verified": True, "groups": ["staff", "hr"]}
    Provider.spoil = {}


def sign_in(root: str, browser: httpx.Client, next: str = "/") -> httpx.Response:
    """As a browser does it: to the provider and back; the answer to the last step."""
    begun = browser.get(f"{root}/auth/login", params={"next": next})
    assert begun.status_code == 303, begun.text
    back = httpx.get(begun.headers["location"]).headers["location"]
    return browser.get(back)


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


def test_somebody_signs_in_works_and_signs_out(served: tuple[str, Workspace], browser: httpx.Client) -> None:
    root, workspace = served
    assert httpx.get(f"{root}/v1/files").status_code == 401
    done = sign_in(root, browser, next="/docs?page=2")
    assert done.status_code == 303 and done.headers["location"] == "/docs?page=2"
    cookie = next(one for one in done.headers.get_list("set-cookie") if one.startswith("graft-session="))
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Max-Age=43200" in cookie
    me = browser.get(f"{root}/auth/me").json()
    assert me["name"] == "ana@example.org" and me["role"] == "editor"
    assert {"group:sso.hr", "group:sso.staff", "user:ana@example.org"} <= set(me["principals"])
    made = browser.post(f"{root}/v1/vector_stores", json={"name": "hers"}, headers={"Origin": root})
    assert made.status_code == 200, made.text
    secret = browser.cookies["graft-session"]
    assert not any(secret.encode() in path.read_bytes() for path in workspace.home.glob("*.db*"))
    assert browser.post(f"{root}/auth/logout").status_code == 204
    again = httpx.get(f"{root}/v1/files", cookies={"graft-session": secret})
    assert again.status_code == 401, "the session outlived its end"


def test_the_providers_groups_give_role_and_groups_anew_each_time(
    served: tuple[str, Workspace], browser: httpx.Client
) -> None:
    root, workspace = served
    sign_in(root, browser)
    Provider.person["groups"] = ["board"]
    with httpx.Client() as other:
        sign_in(root, other)
        assert other.get(f"{root}/auth/me").json()["role"] == "admin"
    assert browser.get(f"{root}/auth/me").json()["role"] == "admin"
    Provider.person["groups"] = []
    refused = sign_in(root, browser)
    assert refused.status_code == 403 and "may not sign in" in refused.json()["error"]["message"]
    assert browser.get(f"{root}/auth/me").status_code == 401, "who is out stays in with a session begun before"
    Provider.person["groups"] = ["staff"]
    sign_in(root, browser)
    assert browser.get(f"{root}/auth/me").json()["role"] == "editor"
    workspace.identities.remove_user("ana@example.org")
    assert browser.get(f"{root}/auth/me").status_code == 401


def test_a_providers_group_gets_nobody_into_one_that_was_made_here(
    served: tuple[str, Workspace], browser: httpx.Client
) -> None:
    root, workspace = served
    Provider.person |= {"sub": "7", "email": "mal@example.org"}
    Provider.person["groups"] = ["staff", "fun hr", "x\thr", "group:hr", "fun sso.board", "/hr", "y" * 80]
    sign_in(root, browser)
    (mal,) = [user for user in workspace.identities.users() if user.name == "mal@example.org"]
    assert mal.groups == ("sso.staff",)


def test_a_user_made_by_hand_keeps_role_and_groups(served: tuple[str, Workspace], browser: httpx.Client) -> None:
    root, workspace = served
    workspace.identities.create_user("eva@example.org", role="reader", groups=["legal"])
    Provider.person |= {"sub": "2", "email": "eva@example.org", "groups": ["board"]}
    sign_in(root, browser)
    me = browser.get(f"{root}/auth/me").json()
    assert me["role"] == "reader" and "group:legal" in me["principals"]
    Provider.person["sub"] = "3"
    refused = sign_in(root, browser)
    assert refused.status_code == 403 and "somebody else" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "spoil",
    [
        {"key": OTHER_KEY},
        {"alg": "HS256", "key": KEY.as_pem(private=False)},
        {"alg": "none"},
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"exp": 1_000_000_000},
        {"exp": "never"},
        {"nonce": "of another attempt"},
        {"nonce": None},
        {"sub": None},
        {"email": None},
        {"email": ["ana@example.org"]},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email": "ana@evil.example"},
        {"email": "ana@example.org.evil.example"},
        {"email": "owner"},
        {"email": "../../ana@example.org"},
    ],
)
def test_a_word_that_does_not_hold_lets_nobody_in(
    served: tuple[str, Workspace], browser: httpx.Client, spoil: dict[str, Any]
) -> None:
    root, workspace = served
    before = {user.name for user in workspace.identities.users()}
    Provider.spoil = spoil
    refused = sign_in(root, browser)
    assert refused.status_code in (400, 403), refused.text
    assert refused.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "graft-session" not in browser.cookies and browser.get(f"{root}/auth/me").status_code == 401
    assert {user.name for user in workspace.identities.users()} == before


def test_an_answer_counts_once_and_in_the_browser_that_asked(
    served: tuple[str, Workspace], browser: httpx.Client
) -> None:
    root, _ = served
    begun = browser.get(f"{root}/auth/login")
    back = httpx.get(begun.headers["location"]).headers["location"]
    with httpx.Client() as victim:
        assert victim.get(back).status_code == 403, "an attacker's answer became the victim's session"
        victim.get(f"{root}/auth/login")
        assert victim.get(back).status_code == 403
    assert browser.get(back).status_code == 403, "what somebody else used up cannot be used again"
    first = sign_in(root, browser)
    assert first.status_code == 303
    for query in ("", "code=x", "state=x", "code=x&state=x", "error=access_denied", "code=a&state=" + "x" * 4001):
        assert browser.get(f"{root}/auth/callback?{query}").status_code in (400, 403)


@pytest.mark.parametrize("next", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nX: y", "", "a"])
def test_nobody_is_sent_elsewhere(served: tuple[str, Workspace], browser: httpx.Client, next: str) -> None:
    assert sign_in(served[0], browser, next=next).headers["location"] == "/"


def test_no_other_sites_page_acts_with_the_cookie(served: tuple[str, Workspace], browser: httpx.Client) -> None:
    root, _ = served
    sign_in(root, browser)
    post = f"{root}/v1/vector_stores"
    assert browser.post(post, json={}, headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.post(post, json={}).status_code == 401, "neither Origin nor Sec-Fetch-Site: not a browser's page"
    assert browser.post(post, json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
    assert browser.get(f"{root}/auth/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
    assert browser.post(post, json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    for wrong in ("", "x", browser.cookies["graft-session"] + "x"):
        assert httpx.get(f"{root}/auth/me", cookies={"graft-session": wrong}).status_code == 401


def test_a_session_ends_by_itself(
    served: tuple[str, Workspace], browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, workspace = served
    secret = workspace.sessions.sign_in(
        "tim@example.org", subject="x#9", role="reader", groups=[], verified=True, hours=0
    )
    assert workspace.sessions.caller(secret) is None
    assert httpx.get(f"{root}/auth/me", cookies={"graft-session": secret}).status_code == 401


def test_behind_tls_cookies_go_no_other_way(issuer: str, tmp_path: Path, models: Path) -> None:
    oidc = OidcSettings(
        issuer=issuer, client_id=CLIENT, default_role="reader", public_url="https://graft.example.org/"
    )
    with (
        Workspace(tmp_path / "home", settings=Settings(oidc=oidc)) as workspace,
        in_background(workspace, ServingSettings(port=0)) as (url, _),
    ):
        begun = httpx.get(url.replace("/v1", "/auth/login"))
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("__Host-graft-attempt=") and "Secure" in cookie and "Path=/" in cookie
        sent = parse_qs(urlsplit(begun.headers["location"]).query)
        assert sent["redirect_uri"] == ["https://graft.example.org/auth/callback"]
        origin = {"Origin": "https://graft.example.org"}
        assert httpx.post(url.replace("/v1", "/auth/logout"), headers=origin).status_code == 204


def test_without_a_provider_there_is_no_door(tmp_path: Path, models: Path) -> None:
    with Workspace(tmp_path / "home") as workspace, in_background(workspace, ServingSettings(port=0)) as (url, _):
        for path in ("login", "callback?code=x&state=x"):
            refused = httpx.get(url.replace("/v1", f"/auth/{path}"))
            assert refused.status_code == 404 and "[oidc] issuer" in refused.json()["error"]["message"]
        assert httpx.get(url.replace("/v1", "/auth/me")).json()["name"] == "owner"


def test_a_provider_that_is_away_or_somebody_else_is_told_without_details(tmp_path: Path, models: Path) -> None:
    oidc = OidcSettings(issuer="http://127.0.0.1:9", client_id=CLIENT, default_role="reader")
    with (
        Workspace(tmp_path / "home", settings=Settings(oidc=oidc)) as workspace,
        in_background(workspace, ServingSettings(port=0)) as (url, _),
    ):
        away = httpx.get(url.replace("/v1", "/auth/login"))
        assert away.status_code >= 500 and "cannot be reached" in away.json()["error"]["message"]


@pytest.mark.parametrize(
    "wrong", [OidcSettings(issuer="https://x.example"), OidcSettings(issuer="x", client_id="x", default_role="admin")]
)
def test_settings_that_cannot_be_are_refused_at_the_start(wrong: OidcSettings) -> None:
    with pytest.raises(UsageError):
        OpenId(wrong, None)


def test_the_settings_that_the_documentation_gives_are_settings() -> None:
    text = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    block = re.search(r"^    \[oidc\]\n(?:    .+\n)+", text, re.MULTILINE)
    assert block is not None
    OpenId(OidcSettings(**tomllib.loads(textwrap.dedent(block[0]))["oidc"]), None)
    fields = {one.name for one in dataclasses.fields(OidcSettings)}
    assert {*re.findall(r"`([a-z]+_[a-z_]+)`", text)} <= fields
