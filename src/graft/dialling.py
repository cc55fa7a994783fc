"""Host -> a connection to an address that was checked: never to this machine or its private network.

Who may be reached is decided where the connection is made: a host is resolved once, every address is
checked, and the socket goes to the very address that was checked, so neither a redirect, nor an odd
spelling (`http://2130706433/`), nor a name that resolves differently the second time leads inside.
That, and one deadline over connection, TLS, headers and body, is why this sits on httpcore, the
transport beneath httpx. Behind a proxy set in the environment (`HTTPS_PROXY`, `NO_PROXY`) the proxy
resolves names, so only addresses and local names written in the URL can be refused here.
It does not know what is asked for over the connection: `fetching` does.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import httpcore
import httpx

from graft.errors import FetchError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to addresses."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CONNECT_SECONDS = 20.0


def resolve_host(host: str, port: int) -> list[str]:
    """The system's resolver, which also reads `127.1`, `2130706433` and `0x7f.0.0.1` as addresses."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_addresses(host: str, port: int, *, resolve: Resolve, allow_private: bool) -> list[str]:
    """Resolve once; one forbidden address among them forbids the host.

    Raises:
        FetchError: The host has no address, or one that is not public.
    """
    try:
        found = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host} has no address: {error}", fix="check the address and the network") from error
    for address in found:
        if not allow_private and not is_public(ipaddress.ip_address(address)):
            raise FetchError(
                f"{host} is at {address}, a local or private address, which is not opened: a document or a "
                "redirect could otherwise read services inside your network",
                fix="save the page as a file and `graft add FILE`",
            )
    return found


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, also when it is wrapped in another.

    >>> [is_public(ipaddress.ip_address(a)) for a in ("93.184.215.14", "10.1.2.3", "::ffff:127.0.0.1", "fd00::1")]
    [True, False, False, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo[1] if address.teredo else None
        inner = address.ipv4_mapped or address.sixtofour or teredo
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def is_local_name(host: str) -> bool:
    """Whether a name or address is local as written, without asking a resolver.

    >>> [is_local_name(h) for h in ("localhost", "127.1", "[::1]", "db.internal", "example.org")]
    [True, True, True, True, False]
    """
    bare = host.strip("[]").rstrip(".").lower()
    if bare == "localhost" or bare.endswith((".localhost", ".local", ".internal", ".home.arpa")):
        return True
    try:
        return not is_public(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return not is_public(ipaddress.IPv4Address(socket.inet_aton(bare)))
    except OSError:
        return False


@dataclass(slots=True)
class Guard(httpcore.NetworkBackend):
    """Dials only addresses it has checked, and reads only until the deadline.

    Attributes:
        seconds: That each operation may take, or that were given for everything, for the message.
        deadline: Of `time.monotonic()`, for everything together; None: `seconds` for each operation.
        certificates: File of certificate authorities to trust besides the system's.
    """

    allow_private: bool
    resolve: Resolve
    seconds: float
    deadline: float | None = None
    certificates: str | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in checked_addresses(host, port, resolve=self.resolve, allow_private=self.allow_private):
            try:
                return _Stream(self.dial(address, port, min(self.left(), _CONNECT_SECONDS)), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def dial(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        """Connect to an address that was checked."""
        return httpcore.SyncBackend().connect_tcp(address, port, timeout=seconds)

    def left(self) -> float:
        """Seconds that the next operation may take."""
        if self.deadline is None:
            return self.seconds
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"more than {self.seconds:g} s")
        return left


@dataclass(slots=True)
class _Stream(httpcore.NetworkStream):
    inner: httpcore.NetworkStream
    guard: Guard

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, timeout=self.guard.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, timeout=self.guard.left())

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, timeout=self.guard.left()), self.guard)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


def connections(target: httpx.URL, guard: Guard) -> httpcore.ConnectionPool:
    """Where to ask for `target`: straight through `guard`, or the environment's proxy for it.

    Raises:
        FetchError: `target` is a local name or address, a proxy is set, and the guard forbids it.
    """
    trust = _trust(guard.certificates)
    proxy = _proxy_for(target)
    if proxy is None:
        return httpcore.ConnectionPool(trust, network_backend=guard)
    if not guard.allow_private and is_local_name(target.host):
        raise FetchError(
            f"{target.host} is a local or private address, which is not opened", fix="add the file itself"
        )
    address = httpx.URL(proxy)
    return httpcore.HTTPProxy(
        str(address.copy_with(userinfo=b"")),
        proxy_auth=(address.username, address.password) if address.userinfo else None,
        ssl_context=trust,
        # The proxy itself is the operator's, and usually inside.
        network_backend=Guard(True, guard.resolve, guard.seconds, guard.deadline),
    )


def _proxy_for(target: httpx.URL) -> str | None:
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass_environment(target.netloc.decode(), proxies):  # type: ignore[attr-defined]
        return None
    found = proxies.get(target.scheme) or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


def _trust(certificates: str | None) -> ssl.SSLContext:
    """The system's certificate authorities, Mozilla's, and the operator's."""
    trust = ssl.create_default_context()
    trust.load_verify_locations(certifi.where())
    for file in (certificates, os.environ.get("SSL_CERT_FILE")):
        if file and Path(file).is_file():
            trust.load_verify_locations(file)
    return trust
