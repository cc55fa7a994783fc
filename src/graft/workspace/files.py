"""Files that clients upload: bytes below home/files, what they are in `objects`."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING

from graft.access import join_inside
from graft.errors import LimitExceeded, UsageError
from graft.workspace.documents import DocumentVerbs

if TYPE_CHECKING:
    from graft.objects import Stored

FILE = "file"
FILES = "files"
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_OURS = ("fine-tune-results",)
_CHUNK = 1 << 20
_LONGEST_NAME = 200
_DAY_S = 86_400


class FileVerbs(DocumentVerbs):
    """Take in, hand out, remove."""

    def put_file(
        self, name: str, content: IO[bytes], *, purpose: str, expires_after: int | None = None, most_bytes: int
    ) -> Stored:
        """Keep an uploaded file; it appears whole or not at all.

        Args:
            expires_after: Seconds from now, after which it is removed.
            most_bytes: The limit.
        Returns: Its object: filename, purpose, bytes, sha256, expires_at.
        Raises:
            UsageError: The name or the purpose is none, or the file is empty.
            LimitExceeded: It is over the limit; nothing of it stays.
        """
        from graft.objects import new_id

        if purpose not in (*PURPOSES, *_OURS):
            raise UsageError(f"no purpose {purpose!r}; have {', '.join(PURPOSES)}", fix='purpose="assistants"')
        plain = PureWindowsPath(name).name  # without a folder, whichever slash it was written with
        if not plain or plain in (".", "..") or len(plain) > _LONGEST_NAME or not plain.isprintable():
            raise UsageError(
                f"{plain[:50]!r} cannot name a file: 1 to {_LONGEST_NAME} printable characters",
                fix='file=("notes.md", content)',
            )
        id = new_id("file-")
        folder = join_inside(self.home / FILES, id)
        try:
            folder.mkdir(parents=True)
            size, digest = _written(content, join_inside(folder, plain), most_bytes)
            body = {
                "filename": plain,
                "purpose": purpose,
                "bytes": size,
                "sha256": digest,
                "expires_at": None if expires_after is None else int(time.time()) + expires_after,
            }
            return self.objects.put(FILE, body, id=id, owners=self.owns)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def file_path(self, id: str) -> Path:
        """Where a file's bytes lie.

        Raises:
            NotFound: It is not there, or not theirs.
        """
        found = self.objects.get(FILE, id, principals=self.principals)
        return join_inside(self.home / FILES, found.id, found.body["filename"])

    def forget_file(self, id: str) -> Stored:
        """Remove a file's bytes and its object; what was made of it elsewhere is the caller's to remove."""
        found = self.objects.remove(FILE, id, principals=self.principals)
        shutil.rmtree(join_inside(self.home / FILES, id), ignore_errors=True)
        return found

    def sweep_files(self) -> int:
        """Remove what uploads left behind whose server was killed; returns how many.

        A folder without an object is one under way, or one that will never be whole: it is given a day.
        """
        folder, known, removed = self.home / FILES, {one.id for one in self.objects.all(FILE)}, 0
        for one in folder.iterdir() if folder.is_dir() else ():
            if one.name not in known and one.stat().st_mtime < time.time() - _DAY_S:
                shutil.rmtree(one, ignore_errors=True)
                removed += 1
        return removed


def _written(content: IO[bytes], path: Path, most_bytes: int) -> tuple[int, str]:
    """Copy piece by piece; size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as out:
        while piece := content.read(_CHUNK):
            size += len(piece)
            if size > most_bytes:
                raise LimitExceeded(
                    f"the file is over the limit of {most_bytes:,} bytes",
                    fix="send a smaller one, or raise [serving] max_file_mb in graft.toml",
                )
            digest.update(piece)
            out.write(piece)
    if not size:
        raise UsageError("the file is empty", fix='file=open("notes.md", "rb")')
    return size, digest.hexdigest()
