"""A claimed job + its kind -> the job run to its end, and the end written down.

It does not know who may run a job, nor how one is claimed.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graft import interrupts
from graft.errors import GraftError
from graft.extras import install
from graft.jobs.ownership import Claim
from graft.jobs.records import Records, now
from graft.jobs.running import JobLost, JobRun, JobStopped, Progress, describe
from graft.jobs.values import ItemTrouble, Job, JobStatus

Kind = Callable[[JobRun, Mapping[str, Any]], Mapping[str, Any]]
"""A kind of job: what it works with, and JSON for it -> JSON. It may be run again from its start: see JobRun.step."""

TRACEBACK = "traceback.txt"
"""In the folder of a job that failed."""
_STOPPED = {"pause": JobStatus.PAUSED, "cancel": JobStatus.CANCELLED}


@contextmanager
def engine(records: Records) -> Iterator[None]:
    """DBOS at work on the database of the jobs; used again by what runs within.

    Raises:
        GraftError: It is not installed, or cannot use the database.
    """
    try:
        from graft.jobs import durable
    except ImportError as error:
        if (error.name or "").split(".")[0] != "dbos":
            raise
        raise GraftError("jobs need dbos, which is not installed", fix=install("jobs")) from error
    if records.is_sqlite:
        records.engine.connect().close()  # makes the file, in WAL mode
    with durable.launched(records.url):
        yield


def carry(
    job: Job,
    kind: Kind,
    *,
    records: Records,
    claim: Claim,
    folder: Path,
    progress: Callable[[Job], object],
    ctrl_c: JobStatus,
) -> None:
    """Run a job in this thread and write down how it ended; nothing, where it is no longer this process's.

    Args:
        ctrl_c: What the job is after Ctrl-C.
    Raises:
        KeyboardInterrupt: Ctrl-C, once that is written down.
    """

    def end(status: JobStatus, **values: Any) -> None:
        records.change(job.id, status=status, wanted="", ended=now(), seconds_left=None, **values)

    def interrupted() -> None:
        run.flush()
        end(ctrl_c, starts=0)  # stopped in good order: not one of the crashes in a row

    def body() -> None:
        result = _checked(kind(run, job.payload), job.kind)
        run.flush()
        # Written before DBOS hears of it: what this row calls done is never run again.
        end(JobStatus.DONE, result=result, note="")

    def run_to_its_end(run_durably: Callable[[str, Callable[[], None]], None]) -> None:
        try:
            run_durably(job.id, body)
        except JobStopped as stopped:
            run.flush()
            end(_STOPPED[stopped.why])
        except KeyboardInterrupt:
            interrupted()
            raise
        except Exception as error:
            if interrupts.came():  # within a native module, say: what it raised instead is not how the job failed
                interrupted()
                raise KeyboardInterrupt from error
            run.flush()
            with suppress(OSError):  # a full disk, perhaps what it failed by: that is told all the same
                text = "".join(traceback.format_exception(error))
                (run.folder / TRACEBACK).write_text(text, encoding="utf-8", errors="backslashreplace")
            message, fix = describe(error)
            end(JobStatus.FAILED, error=message, fix=fix)

    if job.wanted:  # of a job that was not running yet
        end(_STOPPED[job.wanted])
        return
    with engine(records):
        from graft.jobs import durable

        records.begin(job.id)
        behind = _Behind(job.id, records, claim, progress, durable.step)
        run = JobRun(job.id, folder, behind, [t for t in records.troubles(job.id) if not t.recovered])
        with suppress(JobLost):
            run_to_its_end(durable.run)


class _Behind:
    """What a JobRun reports to."""

    def __init__(
        self,
        job_id: str,
        records: Records,
        claim: Claim,
        progress: Callable[[Job], object],
        step: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        self._job_id, self._records, self._claim, self._tell, self.step = job_id, records, claim, progress, step

    def beat(self, progress: Progress, troubles: Sequence[ItemTrouble]) -> str:
        """Keep what is new, tell who watches, and learn what is wanted."""
        if not self._claim.holds():
            raise JobLost
        wanted = self._records.progress(
            self._job_id,
            {
                "done": progress.done,
                "total": progress.total,
                "unit": progress.unit,
                "note": progress.note,
                "seconds_left": progress.seconds_left,
            },
            troubles,
        )
        self._tell(self._records.get(self._job_id, None))
        return wanted


def _checked(result: object, kind: str) -> Mapping[str, Any]:
    try:
        if isinstance(result, Mapping):
            json.dumps(result, allow_nan=False)
            return result
        cause = f"a {type(result).__name__}"
    except (TypeError, ValueError) as error:
        cause = str(error)
    raise GraftError(f"a job of kind {kind!r} returned what is not a JSON object: {cause}", fix="return a mapping")
