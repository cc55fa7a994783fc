"""URL -> bytes, or a file on disk: the one way Graft opens a URL.

Whom it may reach is decided by `dialling`, for the first address and for each redirect alike.
It does not know documents, models or registries.
"""

from __future__ import annotations

import hashlib
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpcore
import httpx

from graft.dialling import Guard, Resolve, connections, resolve_host
from graft.errors import ChecksumMismatch, FetchError

MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5
"""Times a download is taken up again after a broken connection that had brought something."""

IDLE_SECONDS = 60.0
"""A download's connection this long without a byte is broken."""

DOWNLOAD_SECONDS = 6 * 3600.0
"""All attempts of one download together, however they trickle: 1 GB at 50 kB/s. What came is kept."""

USER_AGENT = "graft-llm"
Progress = Callable[[int, int | None], None]
"""Called with bytes had so far and bytes expected, if the server said."""

_CHUNK = 1 << 16
_FIXES = {
    401: "it asks for a sign-in; save the page as a file and `graft add FILE`",
    403: "it may not be read from here; save the page as a file and `graft add FILE`",
    404: "check the address",
    410: "it was taken down; remove it from your sources",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One response.

    Attributes:
        url: Where the data came from, after redirects.
        content_type: As sent, with its parameters; "" if none.
        etag: The server's version mark, for `if_none_match` next time.
        last_modified: Its time of this version, for `if_modified_since`.
        not_modified: The version the caller has is the current one; `data` is empty.
    """

    data: bytes
    url: str
    content_type: str = ""
    etag: str | None = None
    last_modified: str | None = None
    not_modified: bool = False


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float,
    allow_private: bool = False,
    headers: Mapping[str, str] | None = None,
    if_none_match: str | None = None,
    if_modified_since: str | None = None,
    form: Mapping[str, str] | None = None,
    certificates: str | None = None,
    resolve: Resolve = resolve_host,
) -> Fetched:
    """Read a URL into memory.

    Args:
        max_bytes: Of the body, unpacked.
        timeout_seconds: For everything together.
        allow_private: Only for addresses that the operator configured, never for a user's or a document's.
        headers: Sent to the URL's own origin, not to where it redirects.
        if_none_match, if_modified_since: An earlier `etag` and `last_modified`.
        form: Sent by POST, and to nobody whom a redirect names.
        certificates: File of certificate authorities to trust besides the system's.
        resolve: Host and port to addresses.
    Raises:
        FetchError: It may not be opened, cannot be, is too large or too slow, or the server refuses.
    """
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    if if_none_match:
        sent["If-None-Match"] = if_none_match
    if if_modified_since:
        sent["If-Modified-Since"] = if_modified_since
    guard = Guard(allow_private, resolve, timeout_seconds, time.monotonic() + timeout_seconds, certificates)
    body = None
    if form is not None:
        sent["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(form).encode()
    with _get(url, sent, guard, body) as response:
        if response.status == 304 and (if_none_match or if_modified_since):
            return Fetched(
                data=b"", url=response.url, etag=if_none_match, last_modified=if_modified_since, not_modified=True
            )
        _refuse_status(response)
        data = b"".join(_unpacked(response, max_bytes))
        return Fetched(
            data=data,
            url=response.url,
            content_type=response.headers.get("content-type", ""),
            etag=response.headers.get("etag"),
            last_modified=response.headers.get("last-modified"),
        )


def download(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    timeout_seconds: float = DOWNLOAD_SECONDS,
    allow_private: bool = False,
    headers: Mapping[str, str] | None = None,
    certificates: str | None = None,
    resolve: Resolve = resolve_host,
) -> str:
    """Stream a URL into a file, which appears under its name only once it is whole and verified.

    What a broken connection or an earlier call left in `destination.part` is continued, if the server
    says that it is still the same file.

    Args:
        sha256: What the file must be; in hexadecimal.
        timeout_seconds: For all attempts together.
    Returns: The file's sha256.
    Raises:
        FetchError: As `fetch`; what was had stays in `destination.part`.
        ChecksumMismatch: Other bytes than `sha256`; nothing is kept.
    """
    part = destination.with_name(destination.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    attempt = 0
    until = time.monotonic() + timeout_seconds
    while True:
        before = _size(part)
        guard = _Patient(allow_private, resolve, IDLE_SECONDS, None, certificates, until)
        try:
            _continue(url, part, dict(headers or {}), guard, max_bytes, progress, known=sha256 is not None)
            break
        except _Broken as broken:
            if time.monotonic() >= until:
                raise FetchError(
                    f"{_shown(url)} brought {_size(part):,} bytes in {timeout_seconds:,.0f} s and was not done",
                    fix="run the same command again; it continues where it stopped",
                ) from broken
            attempt = 1 if _size(part) > before else attempt + 1
            if attempt >= MAX_ATTEMPTS or _size(part) == before:
                raise FetchError(
                    f"{_shown(url)} broke off after {_size(part):,} bytes: {broken}",
                    fix="run the same command again; it continues where it stopped",
                ) from broken
    with part.open("rb") as file:
        had = hashlib.file_digest(file, "sha256").hexdigest()
    _etag_file(part).unlink(missing_ok=True)
    if sha256 is not None and had != sha256.lower():
        part.unlink()
        raise ChecksumMismatch(
            f"{_shown(url)} has sha256 {had}, expected {sha256}; nothing was kept",
            fix="run the same command again; if it repeats, that server holds another file: use another source",
        )
    part.replace(destination)
    return had


def _continue(
    url: str,
    part: Path,
    headers: dict[str, str],
    guard: _Patient,
    max_bytes: int | None,
    progress: Progress | None,
    *,
    known: bool,
) -> None:
    """One attempt to bring `part` to its end; without a version mark or a checksum it starts afresh."""
    had = _size(part)
    etag = _etag_file(part).read_text() if _etag_file(part).exists() else ""
    headers |= {"Accept-Encoding": "identity"}
    if had and (etag or known):
        headers["Range"] = f"bytes={had}-"
        if etag:
            headers["If-Range"] = etag
    with _get(url, headers, guard) as response:
        if response.status == 416:  # what we have is longer than the file, or is the whole of it
            whole = response.headers.get("content-range", "") == f"bytes */{had}"
            if not whole:
                part.unlink()
                raise _Broken("the file there is shorter than what was kept; starting again")
            return
        _refuse_status(response)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError(
                f"{_shown(url)} is sent packed although it was asked for as it is", fix="use another source"
            )
        resumed = response.status == 206 and response.headers.get("content-range", "").startswith(f"bytes {had}-")
        had = had if resumed else 0
        mark = response.headers.get("etag", "")
        _etag_file(part).write_text(mark if not mark.startswith("W/") else "")
        length = response.headers.get("content-length")
        total = had + int(length) if length and length.isdecimal() else None
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.chunks:
                had += len(chunk)
                if max_bytes is not None and had > max_bytes:
                    raise FetchError(
                        f"{_shown(url)} is over {max_bytes:,} bytes, which is all it should have",
                        fix="check the address",
                    )
                file.write(chunk)
                if time.monotonic() >= guard.until:  # through a proxy, the connection is not the guard's
                    raise _Broken("the time of all attempts together is over")
                if progress is not None:
                    progress(had, total)


class _Broken(Exception):
    """The connection ended before the body did."""


@dataclass(slots=True)
class _Patient(Guard):
    """A download's guard: `seconds` for each operation, and none begins after `until` (of `time.monotonic()`)."""

    until: float = 0.0

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time of all attempts together is over")
        return min(self.seconds, left)


@dataclass(slots=True)
class _Response:
    status: int
    headers: httpx.Headers
    url: str
    chunks: Iterator[bytes]


@contextmanager
def _get(url: str, headers: dict[str, str], guard: Guard, body: bytes | None = None) -> Iterator[_Response]:
    """GET with redirects followed, each of them checked like the first; POST, where there is a body, without."""
    origin = None
    for _ in range(MAX_REDIRECTS + 1):
        target = _parsed(url)
        origin = origin or _origin(target)
        sent = {"User-Agent": USER_AGENT, "Accept": "*/*", **headers}
        if _origin(target) != origin:
            sent = {name: value for name, value in sent.items() if name.lower() not in ("authorization", "cookie")}
        with ExitStack() as held:
            with _mapped(target, guard):
                pool = held.enter_context(connections(target, guard))
                method = "GET" if body is None else "POST"
                raw = held.enter_context(pool.stream(method, str(target), headers=list(sent.items()), content=body))
            response = _Response(
                raw.status, httpx.Headers(raw.headers), str(target), _reading(raw.iter_stream(), target, guard)
            )
            location = response.headers.get("location")
            if raw.status not in (301, 302, 303, 307, 308) or not location:
                yield response
                return
            if body is not None:
                raise FetchError(f"{_shown(str(target))} redirects a form elsewhere", fix="check the address")
        try:
            url = str(target.join(location))
        except httpx.InvalidURL as error:
            raise FetchError(
                f"{_shown(str(target))} redirects to no URL: {error}", fix="check the address"
            ) from error
    raise FetchError(f"{_shown(url)} redirects more than {MAX_REDIRECTS} times", fix="give the final address")


def _parsed(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchError(f"{url[:200]!r} is not a URL: {error}", fix="give http://... or https://...") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise FetchError(
            f"{_shown(url)!r} is not opened; only http:// and https:// are",
            fix="give a web address, or a file's path",
        )
    if target.userinfo:
        raise FetchError(
            f"{_shown(url)} carries a user name or password, which would end up in logs and citations",
            fix="give the address without the part before @",
        )
    return target.copy_with(fragment=None)


@contextmanager
def _mapped(target: httpx.URL, guard: Guard) -> Iterator[None]:
    """httpcore's failures before the body as FetchError; those within it are `_reading`'s."""
    shown = _shown(str(target))
    try:
        yield
    except httpcore.TimeoutException as error:
        if isinstance(guard, _Patient) and time.monotonic() >= guard.until:
            raise _Broken(str(error)) from error
        raise _too_slow(guard, shown) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise FetchError(
                f"{shown}: its certificate is not trusted: {error}",
                fix="set SSL_CERT_FILE to your organisation's certificate authorities",
            ) from error
        raise FetchError(f"{shown} cannot be reached: {error}", fix="check the address and the network") from error


def _reading(chunks: Iterator[bytes], target: httpx.URL, guard: Guard) -> Iterator[bytes]:
    try:
        yield from chunks
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ReadTimeout) as error:
        if guard.deadline is None:
            raise _Broken(str(error) or type(error).__name__) from error
        if isinstance(error, httpcore.TimeoutException):
            raise _too_slow(guard, _shown(str(target))) from error
        raise FetchError(f"{_shown(str(target))} broke off: {error}", fix="try again") from error


def _too_slow(guard: Guard, shown: str) -> FetchError:
    return FetchError(
        f"{shown} took longer than {guard.seconds:g} s", fix="try again later, or save it as a file and add that"
    )


def _refuse_status(response: _Response) -> None:
    if response.status in (200, 206):
        return
    raise FetchError(
        f"{_shown(response.url)} answers {response.status}",
        fix=_FIXES.get(response.status, "try again later" if response.status >= 429 else "check the address"),
    )


def _unpacked(response: _Response, max_bytes: int) -> Iterator[bytes]:
    """The body, gzip undone, never more than `max_bytes` of it in memory: a small bomb stays small."""
    packing = response.headers.get("content-encoding", "identity").lower()
    if packing not in ("identity", "gzip", "x-gzip"):
        raise FetchError(
            f"{_shown(response.url)} is packed with {packing!r}, which was not asked for",
            fix="save the page as a file and `graft add FILE`",
        )
    unpacker = None if packing == "identity" else zlib.decompressobj(wbits=31)
    had = 0
    for raw in response.chunks:
        while raw:
            try:
                chunk = raw if unpacker is None else unpacker.decompress(raw, max_bytes - had + 1)
            except zlib.error as error:
                raise FetchError(f"{_shown(response.url)} is damaged: {error}", fix="try again") from error
            had += len(chunk)
            if had > max_bytes:
                raise FetchError(
                    f"{_shown(response.url)} is over the limit of {max_bytes:,} bytes",
                    fix="raise [reading] max_file_mb in graft.toml",
                )
            yield chunk
            raw = b""
            if unpacker is not None and unpacker.eof and unpacker.unused_data.startswith(b"\x1f\x8b"):
                raw, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=31)  # gzip may come in members
    if unpacker is not None and not unpacker.eof:
        raise FetchError(f"{_shown(response.url)} broke off: its gzip has no end", fix="try again")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _shown(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=None, query=None, fragment=None))
    except httpx.InvalidURL:
        return url.partition("?")[0][:200]


def _etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
