"""Fetching against real servers on loopback: what must come, what must be refused, what must survive."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import ipaddress
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.dialling import Guard, is_local_name, is_public
from graft.errors import ChecksumMismatch, FetchError
from graft.fetching import MAX_REDIRECTS, _get, download, fetch
from tests.web_server import Web, answer, page

BODY = bytes(range(256)) * 2000
SUM = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.server.shutdown()
    server.server.server_close()


def get(url: str, **options: object) -> bytes:
    given: dict[str, object] = {"max_bytes": 10**6, "timeout_seconds": 10, "allow_private": True, **options}
    return fetch(url, **given).data  # type: ignore[arg-type]


# What comes.


def test_a_page_comes_with_its_type_mark_and_final_address(web: Web) -> None:
    web.paths["/old"] = page(b"", status=301, Location="/new?x=1#part")
    web.paths["/new?x=1"] = page(b"hello", Content_Type="text/plain; charset=utf-8", ETag='"7"')
    found = fetch(f"{web.url}/old", max_bytes=10, timeout_seconds=10, allow_private=True)
    assert (found.data, found.url, found.content_type, found.etag) == (
        b"hello",
        f"{web.url}/new?x=1",
        "text/plain; charset=utf-8",
        '"7"',
    )


def test_an_unchanged_page_is_not_sent_again(web: Web) -> None:
    web.paths["/p"] = lambda request: answer(
        request, b"", status=304 if request.headers["If-None-Match"] == '"7"' else 200
    )
    found = fetch(f"{web.url}/p", max_bytes=10, timeout_seconds=10, allow_private=True, if_none_match='"7"')
    assert found.not_modified and found.etag == '"7"'


def test_a_page_unchanged_since_a_time_is_not_sent_again(web: Web) -> None:
    time_of_it = "Mon, 02 Nov 2026 10:00:00 GMT"
    web.paths["/p"] = lambda request: (
        answer(request, b"", status=304)
        if request.headers["If-Modified-Since"] == time_of_it
        else answer(request, b"text", Last_Modified=time_of_it)
    )
    first = fetch(f"{web.url}/p", max_bytes=10, timeout_seconds=10, allow_private=True)
    assert (first.data, first.last_modified, first.not_modified) == (b"text", time_of_it, False)
    again = fetch(
        f"{web.url}/p",
        max_bytes=10,
        timeout_seconds=10,
        allow_private=True,
        if_modified_since=first.last_modified,
    )
    assert (again.data, again.last_modified, again.not_modified) == (b"", time_of_it, True)


def test_a_server_that_says_unchanged_without_being_asked_is_refused(web: Web) -> None:
    web.paths["/p"] = page(b"", status=304)
    with pytest.raises(FetchError, match="answers 304"):
        get(f"{web.url}/p")


def test_a_packed_page_is_unpacked(web: Web) -> None:
    web.paths["/z"] = page(gzip.compress(b"plain" * 100), Content_Encoding="gzip")
    assert get(f"{web.url}/z") == b"plain" * 100


def test_a_page_packed_in_several_parts_comes_whole(web: Web) -> None:
    parts = gzip.compress(b"one " * 50) + gzip.compress(b"two " * 50)
    web.paths["/z"] = page(parts, Content_Encoding="gzip")
    assert get(f"{web.url}/z") == b"one " * 50 + b"two " * 50


def test_a_packed_page_that_was_cut_off_is_no_page(web: Web) -> None:
    web.paths["/z"] = page(gzip.compress(BODY)[:-200], Content_Encoding="gzip")
    with pytest.raises(FetchError, match="its gzip has no end"):
        get(f"{web.url}/z")


def test_the_host_is_asked_for_by_its_name_at_the_address_that_was_checked(web: Web) -> None:
    web.paths["/"] = page(b"ok")
    assert get(f"http://docs.example:{web.port}/", resolve=lambda host, port: ["127.0.0.1"]) == b"ok"
    assert web.asked[0][1]["host"] == f"docs.example:{web.port}"


def test_a_second_address_is_tried_when_the_first_is_dead(web: Web) -> None:
    web.paths["/"] = page(b"ok")
    assert get(f"http://docs.example:{web.port}/", resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"]) == b"ok"


# What is refused: addresses.

INSIDE = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://2130706433/",
    "http://0x7f.0.0.1/",
    "http://017700000001/",
    "http://127.1/",
    "http://0.0.0.0/",
    "http://10.0.0.8/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:a00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[ff02::1]/",
]


@pytest.mark.parametrize("url", INSIDE)
def test_no_spelling_of_an_inside_address_is_opened(url: str) -> None:
    with pytest.raises(FetchError, match="local or private") as caught:
        get(url, allow_private=False)
    assert "graft add FILE" in caught.value.fix


@pytest.mark.parametrize("url", INSIDE)
def test_behind_a_proxy_inside_addresses_are_refused_as_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(FetchError, match="local or private"):
        get(url, allow_private=False)


def test_a_proxy_of_the_environment_is_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web.paths["http://docs.example/a"] = page(b"by proxy")
    assert get("http://docs.example/a", allow_private=False) == b"by proxy"


def test_one_inside_address_among_several_forbids_the_host(web: Web) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        get("http://mixed.example/", allow_private=False, resolve=lambda host, port: ["93.184.215.14", "127.0.0.1"])


PUBLIC = "93.184.215.14"


class Elsewhere(Guard):
    """Checks as always, then finds the public address of these tests served on loopback."""

    def dial(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        return Guard.dial(self, "127.0.0.1" if address == PUBLIC else address, port, seconds)


@pytest.mark.parametrize("inside", ["http://127.0.0.1:{port}/secret", "http://inside.example:{port}/secret"])
def test_a_redirect_inside_is_refused_after_a_public_start(web: Web, inside: str) -> None:
    web.paths["/go"] = page(b"", status=302, Location=inside.format(port=web.port))
    web.paths["/secret"] = page(b"inside")
    names = {"start.example": [PUBLIC], "inside.example": ["127.0.0.1"]}
    guard = Elsewhere(False, lambda host, port: names.get(host, [host]), 5.0)
    with (
        pytest.raises(FetchError, match=r"127\.0\.0\.1, a local or private"),
        _get(f"http://start.example:{web.port}/go", {}, guard),
    ):
        pass
    assert [path for path, _ in web.asked] == ["/go"]


def test_a_name_that_moves_inside_between_two_hops_is_refused(web: Web) -> None:
    """DNS rebinding: the same name is public when first resolved and inside the next time."""
    web.paths["/go"] = page(b"", status=302, Location="/secret")
    web.paths["/secret"] = page(b"inside")
    turns = iter([[PUBLIC], ["127.0.0.1"]])
    guard = Elsewhere(False, lambda host, port: next(turns), 5.0)
    with pytest.raises(FetchError, match="local or private"), _get(f"http://re.example:{web.port}/go", {}, guard):
        pass
    assert [path for path, _ in web.asked] == ["/go"]


def test_a_name_is_resolved_once_for_each_hop_and_that_answer_is_dialled(web: Web) -> None:
    web.paths["/"] = page(b"ok")
    turns = iter([["127.0.0.1"]])  # a second question would raise StopIteration
    assert get(f"http://rebind.example:{web.port}/", resolve=lambda host, port: next(turns)) == b"ok"


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_all_its_wrappings(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))
    assert is_public(mapped) == is_public(nat64) == is_public(address)
    assert is_local_name(str(int(address))) != is_public(address)


# What is refused: the rest.


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "only http"),
        ("ftp://example.org/x", "only http"),
        ("gopher://example.org/", "only http"),
        ("example.org", "only http"),
        ("http://", "only http"),
        ("http://ana:hunter2@example.org/", "user name or password"),
    ],
)
def test_other_schemes_and_logins_are_refused(url: str, says: str) -> None:
    with pytest.raises(FetchError, match=says) as caught:
        get(url)
    assert "hunter2" not in str(caught.value)


def test_redirects_end_after_five(web: Web) -> None:
    web.paths["/loop"] = page(b"", status=302, Location="/loop")
    with pytest.raises(FetchError, match="redirects more than 5"):
        get(f"{web.url}/loop")
    assert len(web.asked) == MAX_REDIRECTS + 1


def test_a_redirect_to_a_file_is_refused(web: Web) -> None:
    web.paths["/f"] = page(b"", status=302, Location="file:///etc/passwd")
    with pytest.raises(FetchError, match="only http"):
        get(f"{web.url}/f")


def test_a_key_does_not_follow_a_redirect_to_another_host(web: Web) -> None:
    web.paths["/a"] = page(b"", status=302, Location=f"http://other.example:{web.port}/b")
    web.paths["/b"] = page(b"ok")
    get(f"{web.url}/a", headers={"Authorization": "Bearer s"}, resolve=lambda host, port: ["127.0.0.1"])
    assert [("authorization" in headers) for _, headers in web.asked] == [True, False]


def test_a_body_over_the_limit_is_not_read_to_its_end(web: Web) -> None:
    sent = 0

    def endless(request: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        try:
            while sent < 500 * len(BODY):
                sent += request.wfile.write(BODY)
        except OSError:
            pass

    web.paths["/big"] = endless
    with pytest.raises(FetchError, match="over the limit of 1,000,000 bytes"):
        get(f"{web.url}/big")
    assert sent < 100 * len(BODY)


def test_a_packed_bomb_stops_at_the_limit(web: Web) -> None:
    web.paths["/bomb"] = page(gzip.compress(b"\0" * 50_000_000), Content_Encoding="gzip")
    with pytest.raises(FetchError, match="over the limit"):
        get(f"{web.url}/bomb")
    web.paths["/odd"] = page(b"x", Content_Encoding="br")
    with pytest.raises(FetchError, match="not asked for"):
        get(f"{web.url}/odd")


@pytest.mark.parametrize("slow_part", ["headers", "body"])
def test_a_drip_of_bytes_ends_at_the_deadline(web: Web, slow_part: str) -> None:
    def drip(request: http.server.BaseHTTPRequestHandler) -> None:
        if slow_part == "body":
            request.send_response(200)
            request.end_headers()
        try:
            for letter in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 600:
                request.wfile.write(bytes([letter]))
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass

    web.paths["/slow"] = drip
    started = time.monotonic()
    with pytest.raises(FetchError, match=r"longer than 0\.5 s"):
        get(f"{web.url}/slow", timeout_seconds=0.5)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(("status", "says"), [(401, "sign-in"), (404, "check the address"), (503, "later")])
def test_a_refusal_has_its_remedy(web: Web, status: int, says: str) -> None:
    web.paths["/x?token=secret"] = page(b"", status=status)
    with pytest.raises(FetchError, match=str(status)) as caught:
        get(f"{web.url}/x?token=secret")
    assert says in caught.value.fix and "secret" not in str(caught.value)


def test_nobody_there_is_an_error_with_a_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="cannot be reached"):
        get(f"http://127.0.0.1:{port}/")
    with pytest.raises(FetchError, match="no address"):
        get("http://no-such-host.invalid/")


# Downloads.


def _file(web: Web, *, break_after: int | None = None, etag: str = '"1"') -> None:
    """Serve BODY with ranges; the first answer breaks off after some bytes."""
    breaks = [break_after]

    def serve(request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        whole = wanted is None or request.headers.get("If-Range", etag) != etag
        start = 0 if whole or wanted is None else int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(BODY):
            answer(request, b"", status=416, Content_Range=f"bytes */{len(BODY)}")
            return
        request.send_response(200 if whole else 206)
        request.send_header("Content-Length", str(len(BODY) - start))
        request.send_header("ETag", etag)
        if not whole:
            request.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        request.end_headers()
        end = breaks.pop() if breaks else None
        request.wfile.write(BODY[start : end or len(BODY)])

    web.paths["/file"] = serve


def test_a_download_is_whole_verified_and_counted(web: Web, tmp_path: Path) -> None:
    _file(web)
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "file.bin"
    had = download(
        f"{web.url}/file", target, sha256=SUM, progress=lambda a, b: seen.append((a, b)), allow_private=True
    )
    assert had == SUM and target.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY)) and seen == sorted(seen)
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_broken_connection_is_taken_up_where_it_broke(web: Web, tmp_path: Path) -> None:
    _file(web, break_after=200_000)
    download(f"{web.url}/file", tmp_path / "f", sha256=SUM, allow_private=True)
    assert (tmp_path / "f").read_bytes() == BODY
    assert [headers.get("range") for _, headers in web.asked] == [None, "bytes=200000-"]
    assert web.asked[1][1]["if-range"] == '"1"'


def test_a_later_call_continues_what_an_earlier_one_left(web: Web, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(BODY[:300_000])
    _file(web)
    download(f"{web.url}/file", tmp_path / "f", sha256=SUM, allow_private=True)
    assert (tmp_path / "f").read_bytes() == BODY
    assert web.asked[0][1]["range"] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_is_fetched_afresh(web: Web, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"old" * 100)
    (tmp_path / "f.part.etag").write_text('"0"')
    _file(web)
    download(f"{web.url}/file", tmp_path / "f", allow_private=True)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_part_that_is_already_the_whole_file_is_verified_and_kept(web: Web, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(BODY)
    _file(web)
    download(f"{web.url}/file", tmp_path / "f", sha256=SUM, allow_private=True)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_wrong_sum_leaves_no_file_and_says_what_to_do(web: Web, tmp_path: Path) -> None:
    _file(web)
    with pytest.raises(ChecksumMismatch, match="expected " + "0" * 64) as caught:
        download(f"{web.url}/file", tmp_path / "f", sha256="0" * 64, allow_private=True)
    assert "another source" in caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_server_that_only_breaks_is_given_up_and_what_came_is_kept(web: Web, tmp_path: Path) -> None:
    def never(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 10)

    web.paths["/file"] = never
    with pytest.raises(FetchError, match="broke off") as caught:
        download(f"{web.url}/file", tmp_path / "f", allow_private=True)
    assert "continues" in caught.value.fix and not (tmp_path / "f").exists()
    assert len(web.asked) < 10


@pytest.mark.parametrize("breaks", [True, False], ids=["in many connections", "in one connection"])
def test_a_download_that_trickles_ends_when_the_time_of_all_attempts_is_over(
    web: Web, tmp_path: Path, breaks: bool
) -> None:
    """Each attempt brings a little, so no single one is ever at fault."""

    def trickle(request: http.server.BaseHTTPRequestHandler) -> None:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(BODY) - start))
        request.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        request.end_headers()
        try:
            for place in range(start, start + 10 if breaks else len(BODY)):
                request.wfile.write(BODY[place : place + 1])
                request.wfile.flush()
                time.sleep(0.01)
        except OSError:
            pass

    web.paths["/file"] = trickle
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"brought \d+ bytes in 1 s and was not done") as caught:
        download(f"{web.url}/file", tmp_path / "f", sha256=SUM, timeout_seconds=1, allow_private=True)
    assert time.monotonic() - began < 5
    assert "continues" in caught.value.fix
    kept = (tmp_path / "f.part").read_bytes()
    assert kept and BODY.startswith(kept)
    assert (len(web.asked) > 1) == breaks


def test_a_download_over_its_limit_stops(web: Web, tmp_path: Path) -> None:
    _file(web)
    with pytest.raises(FetchError, match="over 1,000 bytes"):
        download(f"{web.url}/file", tmp_path / "f", max_bytes=1000, allow_private=True)
    assert not (tmp_path / "f").exists()


def test_a_download_from_an_inside_address_is_refused_unless_allowed(web: Web, tmp_path: Path) -> None:
    _file(web)
    with pytest.raises(FetchError, match="local or private"):
        download(f"{web.url}/file", tmp_path / "f")
    assert not web.asked
