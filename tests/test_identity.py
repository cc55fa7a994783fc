"""Users, groups and keys: what a key may do, when it ends, and that nothing of it is kept but its digest."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from graft.cli import main
from graft.errors import NotFound, UsageError
from graft.identity import Identities
from graft.server import in_background
from graft.settings import ServingSettings
from graft.store.database import Database
from graft.workspace import Workspace


@pytest.fixture
def people(tmp_path: Path) -> Iterator[Identities]:
    made = Identities(Database("", home=tmp_path))
    yield made
    made.close()


def test_a_key_has_the_rights_of_its_user_but_never_more_than_its_own(people: Identities) -> None:
    people.create_user("ana", role="editor", groups=["hr", "group:it"])
    _, reads = people.create_key("phone", user="ana", role="reader")
    _, most = people.create_key("laptop", user="ana", role="admin")
    caller = people.caller(reads)
    assert caller is not None and (caller.name, caller.role) == ("ana", "reader")
    assert caller.principals == {"user:ana", "group:hr", "group:it", "group:everyone"}
    caller = people.caller(most)
    assert caller is not None and caller.role == "editor" and caller.may("reader") and not caller.may("admin")
    people.change_user("ana", role="reader", groups=[])
    caller = people.caller(most)
    assert caller is not None and caller.role == "reader" and caller.principals == {"user:ana", "group:everyone"}


def test_a_service_has_its_own_principals_and_the_owner_s_key_the_owner_s(people: Identities) -> None:
    _, service = people.create_key("bot", acts_as=["group:hr"], role="reader")
    _, owner = people.create_key("own", role="admin")
    bot, own = people.caller(service), people.caller(owner)
    assert bot is not None and bot.principals == {"group:hr"} and bot.role == "reader"
    assert own is not None and own.principals == {"owner"} and own.role == "admin"


def test_an_administrator_sees_the_workspace_s_own_documents(people: Identities) -> None:
    people.create_user("zoe", role="admin")
    caller = people.caller(people.create_key("k", user="zoe", role="admin")[1])
    assert caller is not None and "owner" in caller.principals


def test_a_revoked_key_is_unknown_at_once_in_another_process_too(people: Identities, tmp_path: Path) -> None:
    _, secret = people.create_key("laptop")
    other = Identities(Database("", home=tmp_path))
    with closing(other):
        assert other.caller(secret) is not None
        people.revoke_key("laptop")
        assert people.caller(secret) is None and other.caller(secret) is None
        with pytest.raises(NotFound, match="have none"):
            people.revoke_key("laptop")


def test_a_removed_user_s_keys_go_with_them(people: Identities) -> None:
    people.create_user("ana")
    _, secret = people.create_key("laptop", user="ana")
    assert people.remove_user("ana") == ("laptop",)
    assert people.caller(secret) is None and not people.keys() and not people.users()


def test_a_key_ends_on_its_day(people: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = people.create_key("guest", days=1, role="admin")
    assert people.caller(secret) is not None and people.has_admin() and key.expires_at is not None
    monkeypatch.setattr("graft.identity._now", lambda days=0: key.expires_at)
    assert people.caller(secret) is None and not people.has_admin() and people.guarded()


def test_the_database_holds_no_key(people: Identities, tmp_path: Path) -> None:
    _, secret = people.create_key("laptop")
    people.close()
    with closing(sqlite3.connect(tmp_path / "graft.db")) as plain:
        dump = "\n".join(plain.iterdump())
    assert "laptop" in dump and secret not in dump and secret.removeprefix("graft-") not in dump
    assert len(secret) > 40


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.create_user("a b"), "is no name"),
        (lambda p: p.create_user("../x"), "is no name"),
        (lambda p: p.create_user("owner"), "already"),
        (lambda p: p.create_user("ana", role="root"), "no role 'root'; have reader, editor, admin"),
        (lambda p: p.create_user("ana", groups=["x y"]), "is no name"),
        (lambda p: p.create_key("k", user="nobody"), "no user named 'nobody'"),
        (lambda p: p.create_key("k", days=0), "from 1 to"),
        (lambda p: p.create_key("k", acts_as=["everyone; drop"]), "is not a principal"),
        (lambda p: p.create_key("k", user="ana", acts_as=["group:hr"]), "not both"),
        (lambda p: (p.create_key("k"), p.create_key("k")), "a key 'k' already"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(people: Identities, make: Any, said: str) -> None:
    with pytest.raises((UsageError, NotFound), match=said) as caught:
        make(people)
    assert caught.value.fix


def graft(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), *words, "--json"])
    assert ended.value.code == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A note of the owner's, one of the group hr, and one that everyone may read."""
    folder = tmp_path_factory.mktemp("shared")
    with Workspace(folder / "home") as workspace:
        for name, access in (("own", None), ("hr", ["group:hr"]), ("all", ["group:everyone"])):
            (folder / f"{name}.md").write_text(f"# Vault\n\nThe vault code of the {name} note is {name}-4711.\n")
            workspace.add([str(folder / f"{name}.md")], collection=name, access=access)
    return folder / "home"


def test_callers_find_what_is_theirs_and_nothing_shows_that_there_is_more(
    shared_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graft(capsys, shared_home, "users", "add", "ana", "--group", "hr")
    graft(capsys, shared_home, "users", "add", "ben")
    secrets = {
        "ana": graft(capsys, shared_home, "keys", "create", "ana-1", "--user", "ana")["key"],
        "ben": graft(capsys, shared_home, "keys", "create", "ben-1", "--user", "ben")["key"],
        "bot": graft(capsys, shared_home, "keys", "create", "bot", "--as", "group:hr", "--role", "reader")["key"],
        "owner": graft(capsys, shared_home, "keys", "create", "root", "--role", "admin")["key"],
    }
    wanted = {"ana": {"hr", "all"}, "ben": {"all"}, "bot": {"hr"}, "owner": {"own", "hr", "all"}}
    with Workspace(shared_home) as workspace, in_background(workspace, ServingSettings(port=0)) as (url, _):

        def ask(who: str | None, **body: Any) -> httpx.Response:
            headers = {} if who is None else {"Authorization": f"Bearer {secrets[who]}"}
            return httpx.post(f"{url}/search", json={"query": "vault code", **body}, headers=headers, timeout=60)

        assert ask(None).status_code == 401
        for who, theirs in wanted.items():
            found = ask(who).json()["hits"]
            assert {hit["collection"] for hit in found} == theirs
            for collection in ("own", "hr", "all", "missing"):
                answer = ask(who, collection=collection)
                assert answer.status_code == (200 if collection in theirs else 404), (who, collection)
                if collection not in theirs:  # foreign and missing are told in the same words
                    told = answer.json()["error"]["message"]
                    assert told.replace(collection, "X") == ask(who, collection="nil").json()["error"][
                        "message"
                    ].replace("nil", "X")
        workspace.share_collection("own", ["user:ben"])
        assert {hit["collection"] for hit in ask("ben").json()["hits"]} == {"own", "all"}
        workspace.identities.revoke_key("ben-1")
        assert ask("ben").status_code == 401


def test_others_reach_the_server_only_once_an_administrator_has_a_key(tmp_path: Path, models: Path) -> None:
    with Workspace(tmp_path / "home") as workspace:
        with (
            pytest.raises(UsageError, match="no administrator's key"),
            in_background(workspace, ServingSettings(host="0.0.0.0", port=0)),
        ):
            pass
        workspace.identities.create_key("reads", role="reader")
        _, secret = workspace.identities.create_key("root", role="admin")
        with in_background(workspace, ServingSettings(host="0.0.0.0", port=0)) as (url, _):
            near = url.replace("0.0.0.0", "127.0.0.1")
            assert httpx.get(f"{near}/models").status_code == 401
            headers = {"Authorization": f"Bearer {secret}", "Host": "graft.example.org"}
            assert httpx.get(f"{near}/models", headers=headers, timeout=60).status_code == 200
            workspace.identities.revoke_key("root")
            workspace.identities.revoke_key("reads")
            assert httpx.get(f"{near}/models").status_code == 401  # with no key left, still nobody is let in
