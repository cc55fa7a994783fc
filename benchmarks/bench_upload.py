"""A file of 2 GB uploaded to a live server: its memory while it comes.

python -m benchmarks.bench_upload --mb 2000
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time

import httpx

from benchmarks.server import Served, served


def main() -> None:
    """Upload, watch, remove."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=2000)
    given = parser.parse_args()
    settings = f"[serving]\nmax_file_mb = {given.mb + 1}\n"
    with served(settings) as server:
        before, most, seconds = upload(server, given.mb)
    print(f"{given.mb:,} MB in {seconds:.0f} s; the server's memory: {before:.0f} MB before, {most:.0f} MB at most")


def upload(server: Served, mb: int) -> tuple[float, float, float]:
    """Send a file and remove it again.

    Returns: The server's memory before and at most, in MB; the seconds that the upload took.
    """
    headers = {"Authorization": f"Bearer {server.keys['ana']}"}
    before, done = server.resident_mb(), threading.Event()
    seen = [before]

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(server.resident_mb())

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    with tempfile.TemporaryFile() as big:
        big.truncate(mb * 1_000_000)
        form = {"data": {"purpose": "assistants"}, "files": {"file": ("big.bin", big)}}
        reply = httpx.post(f"{server.url}/files", headers=headers, timeout=600, **form)
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    assert reply.json()["bytes"] == mb * 1_000_000
    httpx.delete(f"{server.url}/files/{reply.json()['id']}", headers=headers).raise_for_status()
    return before, max(seen), seconds


if __name__ == "__main__":
    main()
