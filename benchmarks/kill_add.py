"""`graft add` killed with -9 again and again -> nothing acknowledged is lost, nothing half is visible.

    python -m benchmarks.kill_add --rounds 100

Each round adds to the same workspace and is killed after a random time; then every visible document is
compared with its file, byte for byte, and searched for. A workspace that is complete is begun anew.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.figures import markdown_table
from graft import Workspace
from graft.access import OWNER

FILES = 600
WHO = frozenset({OWNER})


def write_files(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        text = f"Note number {number}.\n\n" + f"It tells of matter {number} and of nothing else. " * 25
        (folder / f"note{number:04}.txt").write_text(text, encoding="utf-8")


def check(home: Path, folder: Path, acknowledged: set[str]) -> set[str]:
    """The visible documents; exits when one is lost, half there or cannot be found."""
    with Workspace(home) as workspace:
        documents = workspace.documents()
        visible = {d.uri for d in documents}
        if lost := acknowledged - visible:
            raise SystemExit(f"lost: {sorted(lost)[:5]}")
        for document in documents:
            text = workspace.store.version(document.id, principals=WHO).text
            if text != (folder / document.uri).read_text(encoding="utf-8") or document.chunks == 0:
                raise SystemExit(f"half there: {document.uri}")
        if documents:
            sought = random.choice(documents)
            hits = workspace.search(f"matter {int(sought.uri[4:8])}", k=20).hits
            if sought.uri not in {hit.document for hit in hits}:
                raise SystemExit(f"not found: {sought.uri}")
    return visible


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    random.seed(0)
    outcome: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "documents"
        write_files(folder)
        home, acknowledged = Path(scratch) / "home0", set[str]()
        for number in range(given.rounds):
            command = [sys.executable, "-m", "graft", "--home", str(home), "add", str(folder), "--json"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                process.wait(timeout=random.uniform(0.3, 3.5))
                outcome["finished by itself"] += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                outcome["killed"] += 1
            acknowledged = check(home, folder, acknowledged)
            if len(acknowledged) == FILES:
                outcome["workspaces completed"] += 1
                home, acknowledged = Path(scratch) / f"home{number + 1}", set()
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "graft", "--home", str(home), "add", str(folder), "--json"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        if len(check(home, folder, acknowledged)) != FILES:
            raise SystemExit("the last add did not complete")
        outcome["seconds of the last add"] = round(time.perf_counter() - began)
    print(markdown_table(["rounds of kill -9", "count"], [["all", given.rounds], *outcome.items()]))


if __name__ == "__main__":
    main()
