"""compare's freshness: the documents copied, facts changed in the copy, and every arm asked again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graft.errors import GraftError, UsageError
from graft.evaluation.recording import KeptLines
from graft.workspace.contestants import ContestantVerbs
from graft.workspace.documents import DocumentVerbs

if TYPE_CHECKING:
    from graft.comparing.arms import Contestant
    from graft.comparing.freshness import Change
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import CompareProgress, Replied
    from graft.comparing.values import Freshness
    from graft.store import DocumentRecord
    from graft.sync import AddResult

SCRATCH, TIMED, REPLIES = "changed", "changed.json", "changed-replies.jsonl"


class FreshnessVerbs(DocumentVerbs, ContestantVerbs):
    """What arms answer once facts have changed; the workspace's own documents stay as they are."""

    def _changes(self, request: CompareRequest) -> tuple[Change, ...]:
        """What is to change, checked against the documents before anything is asked.

        Raises:
            UsageError: A change cannot be read, or made; or two documents have the name that it gives.
        """
        from graft.comparing.freshness import changed, read_changes

        if request.fresh is None:
            return ()
        changes = read_changes(Path(request.fresh))
        listed = self._documents_of(request.collection)
        for name in {change.document for change in changes}:
            if sum(one.uri == name for one in listed) > 1:
                raise UsageError(
                    f"{sum(one.uri == name for one in listed)} documents are named {name}",
                    fix="--collection NAME, of which only one is part",
                )
        changed({one.uri: self._text(one) for one in listed}, changes)
        return changes

    def _documents_of(self, collection: str | None) -> list[DocumentRecord]:
        return self.store.documents(collection, principals=self.principals)

    def _text(self, document: DocumentRecord) -> str:
        """As it was read from its file."""
        return self.store.version(document.id, principals=self.principals).text

    def _freshness(
        self,
        request: CompareRequest,
        changes: Sequence[Change],
        contestants: Sequence[Contestant],
        folder: Path,
        *,
        budget_usd: float | None,
        progress: Callable[[CompareProgress], object],
    ) -> tuple[dict[str, Freshness], Replied]:
        """Arm -> what it answers after the changes and before, and the replies. A copy of the same is taken up with
        its time."""
        from graft.comparing.freshness import afterwards, freshness, questions_of
        from graft.comparing.running import CompareProgress, ask_all

        scratch, timed = folder / SCRATCH, folder / TIMED
        told = [[asdict(change) for change in changes], self._documents_state(request)]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        after_ms = _time_of(timed, digest)
        if after_ms is None:
            timed.unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
        kept = KeptLines(folder / REPLIES, field="reply")
        own = replace(self.settings, store=replace(self.settings.store, url=""))
        with type(self)(scratch / "home", settings=own, principals=self.principals) as copy:
            if after_ms is None:
                progress(CompareProgress(stage="changing facts in a copy of the documents", done=0, total=0))
                after_ms = self._change(copy, self._documents_of(request.collection), changes, scratch / "documents")
                timed.write_text(json.dumps({"digest": digest, "after_ms": after_ms}) + "\n", encoding="utf-8")
            replied = ask_all(
                afterwards(contestants, changes, copy.store),
                questions_of(changes),
                kept,
                budget_usd=budget_usd,
                progress=lambda seen: progress(replace(seen, stage="asking about changed facts")),
            )
        earlier = ask_all(
            contestants,
            questions_of(changes),
            kept,
            budget_usd=None if budget_usd is None else max(0.0, budget_usd - replied.spent_usd),
            progress=lambda seen: progress(replace(seen, stage="asking about them as they were")),
        )
        both = replace(
            replied,
            spent_usd=replied.spent_usd + earlier.spent_usd,
            partial=replied.partial or earlier.partial,
        )
        return freshness(contestants, changes, replied.rows, earlier.rows, after_ms), both

    def _change(
        self,
        copy: FreshnessVerbs,
        documents: Sequence[DocumentRecord],
        changes: Sequence[Change],
        folder: Path,
    ) -> float:
        """Take up the texts, change them, and take up what changed; milliseconds of the latter."""
        from graft.comparing.freshness import changed

        folder.mkdir(parents=True)
        files, texts = {}, {}
        for number, one in enumerate(documents, start=1):
            path = folder / f"{number:06d}{'.md' if one.format == 'markdown' else '.txt'}"
            path.write_text(self._text(one), encoding="utf-8")
            files[one.uri], texts[one.uri] = path, self._text(one)
        _whole(copy.add([str(folder)]))
        started = time.perf_counter()
        for name, text in changed(texts, changes).items():
            files[name].write_text(text, encoding="utf-8")
        _whole(copy.sync())
        return round(1000 * (time.perf_counter() - started), 1)


def _time_of(timed: Path, digest: str) -> float | None:
    """Of a copy that was made of the same documents with the same changes; None where there is none."""
    try:
        told = json.loads(timed.read_text(encoding="utf-8"))
        return float(told["after_ms"]) if told["digest"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(taken: AddResult) -> None:
    if taken.failed:
        failure = taken.failed[0]
        raise GraftError(f"the copy of a document cannot be read: {failure.error}", fix=failure.fix)
