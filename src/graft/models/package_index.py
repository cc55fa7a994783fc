"""A package's name and version -> its wheel's address, from the registry that the user's installer is set to.

Read are, as pip does: PIP_* and UV_* variables, pip's configuration files, indexes at http(s):// and file://,
folders of `find-links`; the index page as JSON (PEP 691) or HTML (PEP 503).
It does not download the wheel and never runs anything of it.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from graft.errors import FetchError
from graft.fetching import fetch

DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_PAGE_BYTES = 50_000_000
_PAGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Where packages come from, in the order asked.

    Attributes:
        folders: Folders of wheels.
        indexes: Roots of simple indexes.
        certificates: File of certificate authorities, or None for the system's.
    """

    folders: tuple[Path, ...] = ()
    indexes: tuple[str, ...] = (DEFAULT_INDEX,)
    certificates: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel to download from `url`, or one that lies at `path` already."""

    filename: str
    url: str = ""
    path: Path | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def configured_registry(environment: Mapping[str, str] | None = None) -> Registry:
    """What the environment and pip's configuration files say; later wins: system, user, interpreter, environment."""
    env = os.environ if environment is None else environment
    found = _pip_files(env)
    for key in ("index-url", "extra-index-url", "find-links", "cert", "no-index"):
        if value := env.get("PIP_" + key.upper().replace("-", "_")):
            found[key] = value
    main = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or found.get("index-url") or DEFAULT_INDEX
    extra = (
        f"{found.get('extra-index-url', '')} {env.get('UV_EXTRA_INDEX_URL', '')} {env.get('UV_INDEX', '')}".split()
    )
    # uv writes NAME=URL; pip writes the URL alone.
    indexes = [main, *(re.sub(r"^[\w-]+=(?=\w+://)", "", index) for index in extra)]
    links = f"{found.get('find-links', '')} {env.get('UV_FIND_LINKS', '').replace(',', ' ')}".split()
    folders = [_local(link) or Path(link) for link in links if not link.startswith("http")]
    offline = found.get("no-index", "").lower() in ("1", "true", "yes", "on")
    return Registry(
        folders=tuple(folders),
        indexes=() if offline else tuple(dict.fromkeys(index.rstrip("/") for index in indexes)),
        certificates=found.get("cert"),
    )


def _pip_files(env: Mapping[str, str]) -> dict[str, str]:
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    home = Path.home()
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc") / name,
        Path("/Library/Application Support/pip") / name,
        Path(env.get("APPDATA", str(home))) / "pip" / name,
        home / "Library/Application Support/pip" / name,
        home / ".pip" / name,
        config / "pip" / name,
        Path(sys.prefix) / name,
    ]
    if chosen := env.get("PIP_CONFIG_FILE"):
        files = [] if chosen == os.devnull else [*files, Path(chosen)]
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself will complain about it; the other files still count
        for section in ("global", "download", "install"):
            if parser.has_section(section):
                found.update(parser.items(section))
    return found


def find_wheel(name: str, version: str, registry: Registry) -> Wheel:
    """The wheel of that version that runs anywhere.

    Raises:
        FetchError: No index or folder has it; says what each answered.
    """
    normal = re.sub(r"[-_.]+", "-", name).lower()
    said = []
    for folder in registry.folders:
        for path in sorted(folder.glob("*.whl")) if folder.is_dir() else []:
            if _fits(path.name, normal, version):
                return Wheel(filename=path.name, path=path)
        said.append(f"{folder}: no such wheel")
    for index in registry.indexes:
        try:
            for wheel in _index_page(index, normal, registry.certificates):
                if _fits(wheel.filename, normal, version):
                    return wheel
            said.append(f"{_without_login(index)[0]}: no wheel of {name} {version}")
        except FetchError as error:
            said.append(error.message)
    raise FetchError(
        f"package {name} {version}: {'; '.join(said) or 'no index is configured'}",
        fix=f"check the index with `pip download --no-deps {name}=={version}`",
    )


def _fits(filename: str, normal: str, version: str) -> bool:
    parts = filename.removesuffix(".whl").split("-")
    return (
        filename.endswith("-none-any.whl")
        and len(parts) >= 5
        and re.sub(r"[-_.]+", "-", parts[0]).lower() == normal
        and parts[1] == version
    )


def _index_page(index: str, normal: str, certificates: str | None) -> Iterator[Wheel]:
    root, headers = _without_login(index)
    page = f"{root}/{normal}/"
    folder = _local(page)
    if folder is not None:
        file = folder / "index.html"
        if file.is_file():
            yield from _from_html(file.read_text(encoding="utf-8"), page, {})
        return
    answer = fetch(
        page,
        max_bytes=_PAGE_BYTES,
        timeout_seconds=_PAGE_SECONDS,
        allow_private=True,  # the operator's own registry
        headers={"Accept": _ACCEPT, **headers},
        certificates=certificates,
    )
    # Credentials go on to files only where the index keeps them itself.
    if "json" in answer.content_type:
        yield from _from_json(answer.data, answer.url, headers)
    else:
        yield from _from_html(answer.data.decode("utf-8", "replace"), answer.url, headers)


def _from_json(data: bytes, page: str, headers: Mapping[str, str]) -> Iterator[Wheel]:
    try:
        files: Sequence[Mapping[str, object]] = json.loads(data)["files"]
        for file in files:
            hashes = file.get("hashes")
            sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
            yield _wheel(str(file["url"]), page, str(file["filename"]), sha256, headers)
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{page} is no index page: {error}", fix="check the index URL") from error


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.found.append(href)


def _from_html(text: str, page: str, headers: Mapping[str, str]) -> Iterator[Wheel]:
    links = _Links()
    links.feed(text)
    for href in links.found:
        url, fragment = urldefrag(href)
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        yield _wheel(url, page, unquote(urlsplit(url).path.rpartition("/")[2]), sha256, headers)


def _wheel(url: str, page: str, filename: str, sha256: str | None, headers: Mapping[str, str]) -> Wheel:
    target = urljoin(page, url)
    path = _local(target)
    if path is not None:
        return Wheel(filename=filename, path=path, sha256=sha256)
    same_host = urlsplit(target).netloc == urlsplit(page).netloc
    return Wheel(filename=filename, url=target, sha256=sha256, headers=headers if same_host else {})


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _without_login(index: str) -> tuple[str, dict[str, str]]:
    """`https://user:password@host/simple` as its address and a header, so that no message shows the password."""
    parts = urlsplit(index)
    if parts.username is None:
        return index, {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
