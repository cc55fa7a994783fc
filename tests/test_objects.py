"""What clients make: whose it is, and that those who change it at once lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graft.access import principals
from graft.errors import NotFound
from graft.objects import Objects
from graft.store.database import Database

ANA, BEN = principals(["user:ana"]), principals(["user:ben"])


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[Objects]:
    opened = Objects(Database("", home=tmp_path))
    yield opened
    opened.close()


def test_edits_at_once_are_made_one_after_another(objects: Objects) -> None:
    objects.put("count", {"value": 0}, id="one", owners=ANA)

    def add(_: int) -> None:
        objects.edit("count", "one", lambda body: {"value": body["value"] + 1}, principals=ANA)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(100)))
    assert objects.get("count", "one", principals=ANA).body == {"value": 100}


def test_others_neither_edit_nor_append(objects: Objects) -> None:
    objects.put("list", {}, id="mine", owners=ANA)
    told = []
    for id in ("mine", "missing"):
        with pytest.raises(NotFound) as caught:
            objects.edit("list", id, lambda body: {"stolen": True}, principals=BEN)
        told.append(str(caught.value).replace(id, "ID"))
        with pytest.raises(NotFound) as caught:
            objects.append("item", {"x": {}}, to=("list", id), principals=BEN)
        told.append(str(caught.value).replace(id, "ID"))
    assert len(set(told)) == 1
    assert objects.get("list", "mine", principals=ANA).body == {} and objects.all("item") == []


def test_what_is_appended_comes_whole_or_not_at_all_and_goes_with_what_it_is_in(objects: Objects) -> None:
    objects.put("list", {}, id="mine", owners=ANA)
    objects.append("item", {"a": {"n": 1}, "b": {"n": 2}}, to=("list", "mine"), principals=ANA)

    def unwritable() -> None:
        objects.append("item", {"c": {"n": 3}, "d": {"n": object()}}, to=("list", "mine"), principals=ANA)

    with pytest.raises(TypeError):
        unwritable()
    assert [one.id for one in objects.all("item", parent="mine")] == ["a", "b"]
    assert {one.principals for one in objects.all("item")} == {ANA}
    objects.remove("list", "mine", principals=ANA)
    assert objects.all("item") == []
