"""Users, keys and sharing over HTTP: administrators alone, and a key is told once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graft.server import in_background
from graft.settings import ServingSettings
from graft.workspace import Workspace


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Any]:
    """ask(key, method, path, JSON) -> the response; "root" is an administrator's key."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "travel.md").write_text("# Travel\n\nA hotel may cost at most 140 EUR a night.\n")
    with Workspace(folder / "home") as workspace:
        workspace.identities.create_user("adm", role="admin")
        root = workspace.identities.create_key("adm", user="adm", role="admin")[1]
        workspace.add([str(folder / "travel.md")])
        with in_background(workspace, ServingSettings(port=0)) as (url, _):
            yield lambda key, method, path, body=None: httpx.request(
                method, url + path, json=body, headers={"Authorization": f"Bearer {root if key == 'root' else key}"}
            )


def test_an_administrator_lets_somebody_in_and_puts_them_out(ask: Any) -> None:
    made = ask("root", "POST", "/users", {"name": "ana", "role": "editor", "groups": ["hr"], "budget_usd": 5})
    assert made.json() == {**made.json(), "name": "ana", "role": "editor", "groups": ["hr"], "budget_usd": 5.0}
    key = ask("root", "POST", "/keys", {"name": "ana-laptop", "user": "ana", "days": 30}).json()
    assert ask(key["key"], "GET", "/files").status_code == 200
    listed = ask("root", "GET", "/keys")
    assert key["key"] not in listed.text and "ana-laptop" in listed.text
    changed = ask("root", "POST", "/users/ana", {"role": "reader", "budget_usd": None}).json()
    assert changed["role"] == "reader" and changed["groups"] == ["hr"] and changed["budget_usd"] is None
    assert ask(key["key"], "POST", "/vector_stores", {}).status_code == 403
    assert ask("root", "DELETE", "/users/ana").json()["deleted"] is True
    assert ask(key["key"], "GET", "/files").status_code == 401
    assert "ana" not in {one["name"] for one in ask("root", "GET", "/users").json()["data"]}


def test_a_revoked_key_is_unknown_at_once(ask: Any) -> None:
    key = ask("root", "POST", "/keys", {"name": "service", "acts_as": ["group:service"], "role": "reader"}).json()[
        "key"
    ]
    assert ask(key, "GET", "/files").status_code == 200
    assert ask("root", "DELETE", "/keys/service").status_code == 200
    assert ask(key, "GET", "/files").status_code == 401
    assert ask("root", "DELETE", "/keys/service").status_code == 404


def test_others_than_administrators_see_neither_users_nor_keys(ask: Any) -> None:
    key = ask("root", "POST", "/keys", {"name": "editor", "acts_as": ["group:x"], "role": "editor"}).json()["key"]
    for method, path, body in (
        ("GET", "/users", None),
        ("POST", "/users", {"name": "mine", "role": "admin"}),
        ("POST", "/users/adm", {"role": "reader"}),
        ("DELETE", "/users/adm", None),
        ("GET", "/keys", None),
        ("POST", "/keys", {"name": "mine", "role": "admin"}),
        ("DELETE", "/keys/adm", None),
    ):
        assert ask(key, method, path, body).status_code == 403, path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users", {"name": "../x"}),
        ("/users", {"name": "owner"}),
        ("/users", {"name": "adm"}),
        ("/users", {"name": "x", "role": "root"}),
        ("/users", {"name": "x", "budget_usd": -1}),
        ("/keys", {"name": "x", "user": "nobody"}),
        ("/keys", {"name": "x", "user": "adm", "acts_as": ["group:x"]}),
        ("/keys", {"name": "x", "acts_as": ["everybody!"]}),
        ("/keys", {"name": "x", "days": 0}),
    ],
)
def test_what_cannot_be_is_refused(ask: Any, path: str, body: dict[str, Any]) -> None:
    assert ask("root", "POST", path, body).status_code in (400, 404)


def test_an_owner_shares_a_collection_and_nobody_else_does(ask: Any) -> None:
    keys = {
        name: ask("root", "POST", "/keys", {"name": name, "acts_as": [f"group:{name}"]}).json()["key"]
        for name in ("them", "others")
    }
    assert ask(keys["them"], "POST", "/collections/default/share", {"readers": ["group:them"]}).status_code == 404
    done = ask("root", "POST", "/collections/default/share", {"readers": ["group:them"]})
    assert done.json() == {"collection": "default", "documents": 1}
    assert len(ask(keys["them"], "POST", "/search", {"query": "hotel"}).json()["hits"]) == 1
    assert ask(keys["others"], "POST", "/search", {"query": "hotel"}).json()["hits"] == []
    passed_on = ask(keys["them"], "POST", "/collections/default/share", {"readers": ["group:others"]})
    assert passed_on.status_code in (403, 404), "a reader passed on what is not theirs"
    assert ask("root", "POST", "/collections/default/share", {"readers": ["everybody!"]}).status_code == 400
