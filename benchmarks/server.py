"""A server of its own for the scripts that attack or load it: a process, real documents, a home thrown away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SAMPLES = Path(__file__).parent.parent / "samples" / "handbook"


@dataclass(frozen=True, slots=True)
class Served:
    """Attributes:
    url: With /v1.
    keys: By user: "ana" is an editor, "admin" an administrator.
    """

    url: str
    keys: Mapping[str, str]
    pid: int

    def resident_mb(self) -> float:
        """Memory of the process that answers, without its helpers'."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _graft(home: Path, *words: str) -> dict[str, Any]:
    """Run a verb; in a process of its own, so that whoever loads the server need not load Graft."""
    command = [sys.executable, "-m", "graft", "--home", str(home), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@contextmanager
def served(settings: str = "", *, documents: Path = SAMPLES) -> Iterator[Served]:
    """Start it with documents in its default collection, which ana may read; ended when this is left."""
    with TemporaryDirectory(prefix="graft-server-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "graft.toml").write_text(settings)
        graft = partial(_graft, home)
        keys = {}
        for name, role in (("ana", "editor"), ("admin", "admin")):
            graft("users", "add", name, "--role", role)
            keys[name] = str(graft("keys", "create", name, "--user", name, "--role", role)["key"])
        graft("add", str(documents), "--access", "user:ana")
        log = (Path(folder) / "server.log").open("wb")
        command = [sys.executable, "-m", "graft", "serve", "--port", "0", "--json", "--home", str(home)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said:
                raise SystemExit((Path(folder) / "server.log").read_text())
            yield Served(json.loads(said)["url"], keys, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            log.close()
            trouble = [
                line for line in (Path(folder) / "server.log").read_text().splitlines() if "unexpected=" in line
            ]
            print("\n".join(trouble[:20]) or "the server's log has nothing unexpected")
