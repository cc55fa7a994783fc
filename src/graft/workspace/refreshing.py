"""compare's freshness: the documents copied, facts changed in the copy, and every arm asked again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graft.evaluation.recording import KeptLines
from graft.workspace.contestants import ContestantVerbs
from graft.workspace.documents import DocumentVerbs

if TYPE_CHECKING:
    from graft.comparing.arms import Contestant
    from graft.comparing.freshness import Change
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import CompareProgress
    from graft.comparing.values import Freshness

SCRATCH, TIMED, REPLIES = "changed", "changed.json", "changed-replies.jsonl"


class FreshnessVerbs(DocumentVerbs, ContestantVerbs):
    """What arms answer once facts have changed; the workspace's own documents stay as they are."""

    def _changes(self, request: CompareRequest) -> tuple[Change, ...]:
        """What is to change, checked against the documents before anything is asked."""
        from graft.comparing.freshness import changed, read_changes

        if request.fresh is None:
            return ()
        changes = read_changes(Path(request.fresh))
        changed(self._texts(request.collection), changes)
        return changes

    def _texts(self, collection: str | None) -> dict[str, str]:
        """Name of each document that may be read -> its text, as it was read from its file."""
        listed = self.store.documents(collection, principals=self.principals)
        return {one.uri: self.store.version(one.id, principals=self.principals).text for one in listed}

    def _freshness(
        self,
        request: CompareRequest,
        changes: Sequence[Change],
        contestants: Sequence[Contestant],
        folder: Path,
        *,
        budget_usd: float | None,
        progress: Callable[[CompareProgress], object],
    ) -> dict[str, Freshness]:
        """Arm -> what it answers after the changes. A copy that was made, and its time, are taken up again."""
        from graft.comparing.freshness import afterwards, freshness, questions_of
        from graft.comparing.running import CompareProgress, ask_all

        own = replace(self.settings, store=replace(self.settings.store, url=""))
        scratch, timed = folder / SCRATCH, folder / TIMED
        if not timed.is_file():
            shutil.rmtree(scratch, ignore_errors=True)
        with type(self)(scratch / "home", settings=own, principals=self.principals) as copy:
            if not timed.is_file():
                progress(CompareProgress(stage="changing facts in a copy of the documents", done=0, total=0))
                after_ms = self._change(copy, self._texts(request.collection), changes, scratch / "documents")
                timed.write_text(json.dumps({"after_ms": after_ms}) + "\n", encoding="utf-8")
            replied = ask_all(
                afterwards(contestants, changes, copy.store),
                questions_of(changes),
                KeptLines(folder / REPLIES, field="reply"),
                budget_usd=budget_usd,
                progress=lambda seen: progress(replace(seen, stage="asking about changed facts")),
            )
        told = json.loads(timed.read_text(encoding="utf-8"))
        return freshness(contestants, changes, replied.rows, float(told["after_ms"]))

    def _change(self, copy: FreshnessVerbs, texts: dict[str, str], changes: Sequence[Change], folder: Path) -> float:
        """Take up the texts, change them, and take up what changed; milliseconds of the latter."""
        from graft.comparing.freshness import changed

        folder.mkdir(parents=True)
        suffix = {"markdown": ".md"}
        formats = {one.uri: one.format for one in self.store.documents(principals=self.principals)}
        files = {
            name: folder / f"{number:06d}{suffix.get(formats[name], '.txt')}"
            for number, name in enumerate(texts, start=1)
        }
        for name, text in texts.items():
            files[name].write_text(text, encoding="utf-8")
        copy.add([str(folder)])
        started = time.perf_counter()
        for name, text in changed(texts, changes).items():
            files[name].write_text(text, encoding="utf-8")
        copy.sync()
        return round(1000 * (time.perf_counter() - started), 1)
