"""Durable jobs over the verbs: what `add`, `dataset generate`, `tune` and `compare` are when they are queued.

Each verb goes on by itself where it was cut off (documents that are in are unchanged, replies and checkpoints are
kept), so a job that is resumed simply calls its verb again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from graft.errors import GraftError
from graft.workspace.comparing import CompareVerbs
from graft.workspace.documents import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import CompareProgress
    from graft.dataset.questions import Price
    from graft.jobs import Job, JobRun, Jobs
    from graft.tuning import Prepared, TuneProgress, TuneRequest


class JobVerbs(CompareVerbs):
    """Long work that outlives its process."""

    _prepared: Prepared | None = None

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs of this workspace: list, follow, pause, resume, run; see `graft.jobs.Jobs`."""
        from graft.jobs import Jobs

        kinds = {
            "add": self._add_job,
            "generate": self._generate_job,
            "tune": self._tune_job,
            "compare": self._compare_job,
        }
        return Jobs(self.home, self.settings.store.url, kinds, principals=self.principals)

    def acting_as(self, principals: Iterable[str], *, owns: Iterable[str] | None = None) -> Self:
        """See `Opened.acting_as`; the jobs are shared, as these principals see them."""
        other = super().acting_as(principals, owns=owns)
        other.__dict__["jobs"] = self.jobs.acting_as(other.principals)
        return other

    def queue_add(
        self, locations: Sequence[str], *, collection: str = DEFAULT_COLLECTION, access: Sequence[str] | None = None
    ) -> Job:
        """Queue an `add` for a worker."""
        found = [location if "://" in location else _absolute(location) for location in locations]
        payload: dict[str, Any] = {
            "locations": found,
            "collection": collection,
            "access": None if access is None else list(access),
        }
        payload["principals"] = sorted(self.principals)
        return self.jobs.submit("add", payload, title=f"add {', '.join(locations)}"[:200])

    def queue_generate(self, path: Path | str, n: int, *, price: Price | None = None, **options: Any) -> Job:
        """Queue a `generate_dataset`, with its options, for a worker."""
        told = None if price is None else dataclasses.asdict(price)
        payload = {
            "path": _absolute(path),
            "n": n,
            "options": options,
            "price": told,
            "principals": sorted(self.principals),
        }
        return self.jobs.submit("generate", payload, title=f"generate {n} questions into {Path(path).name}")

    def tune_job(
        self,
        request: TuneRequest,
        *,
        prepared: Prepared | None = None,
        overrides: Mapping[str, object] | None = None,
        queue: bool = False,
        progress: Callable[[Job], object] = lambda job: None,
    ) -> Job:
        """Tune as a job: run here until it ends, or queued for a worker.

        Args:
            prepared: What `prepare_tuning` returned for this request, if it was asked.
        Returns: The job; its result is `TunedModel.to_json()`.
        """
        if queue or prepared is None:  # it may go on in a process of another folder
            request = _found_anywhere(request)
        payload = {
            "request": request.to_json(),
            "overrides": dict(overrides or {}),
            "principals": sorted(self.principals),
            "owns": sorted(self.owns),
        }
        title = f"tune {request.model} on {Path(request.train).name} as {request.name}"
        if queue:
            return self.jobs.submit("tune", payload, title=title)
        self._prepared = prepared
        return self.jobs.start("tune", payload, title=title, progress=progress)

    def queue_compare(self, request: CompareRequest) -> Job:
        """Queue a `compare` for a worker; the job's result names the folder of its report."""
        questions, train, database, fresh, into = (
            None if path is None else _absolute(path)
            for path in (request.questions, request.train, request.database, request.fresh, request.into)
        )
        found = dataclasses.replace(
            request, questions=questions, train=train, database=database, fresh=fresh, into=into
        )
        payload = {
            "request": found.to_json(),
            "principals": sorted(self.principals),
            "owns": sorted(self.owns),
        }
        what = "generated questions" if request.questions is None else Path(request.questions).name
        return self.jobs.submit("compare", payload, title=f"compare {', '.join(request.arms) or 'arms'} on {what}")

    @contextmanager
    def _acting(self, run: JobRun, payload: Mapping[str, Any]) -> Iterator[Self]:
        """This workspace as those who queued the job, whoever runs it: a worker may read more than they may."""
        who = frozenset(payload.get("principals", [self.jobs.get(run.id).owner]))
        if who == self.principals:
            yield self
            return
        with type(self)(self.home, settings=self.settings, principals=who) as theirs:
            theirs.owns = frozenset(payload.get("owns", who))
            yield theirs

    def _add_job(self, run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        def tell(seen: Any) -> None:
            run.report(seen.files, seen.total_files, "files", seen.path)
            run.check()

        with self._acting(run, payload) as workspace:
            result = workspace.add(
                payload["locations"], collection=payload["collection"], access=payload["access"], progress=tell
            )
        for failure in result.failed:
            run.fail_item(failure.path, failure.error, failure.fix)
        return dataclasses.asdict(result)

    def _generate_job(self, run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        from graft.dataset.questions import Price

        def tell(seen: Any) -> None:
            run.report(seen.kept, seen.wanted, "questions")
            run.check()

        told = payload.get("price")
        price = None if told is None else Price(**told)
        with self._acting(run, payload) as workspace:
            made = workspace.generate_dataset(
                payload["path"], payload["n"], **payload["options"], price=price, progress=tell
            )
        return {"path": payload["path"], "questions": len(made.questions)}

    def _tune_job(self, run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        from graft.jobs import JobStopped
        from graft.tuning import TuneRequest

        def tell(seen: TuneProgress) -> None:
            if seen.training is None:
                run.report(seen.done, seen.total, "parts", seen.stage)
                run.check()
            else:  # where to stop is asked below, so that the state of that very step is kept
                dev = "" if seen.training.dev_loss is None else f", dev {seen.training.dev_loss:.3f}"
                speed = f"{seen.training.tokens_per_second:.0f} tokens/s"
                run.report(seen.done, seen.total, "steps", f"loss {seen.training.loss:.3f}{dev}, {speed}")

        def stop_is_wanted() -> bool:
            try:
                run.check()
            except JobStopped:
                return True
            return False

        prepared, self._prepared = self._prepared, None
        try:
            with self._acting(run, payload) as workspace:
                tuned = workspace.tune(
                    TuneRequest(**payload["request"]),
                    prepared=prepared,
                    overrides=payload["overrides"],
                    progress=tell,
                    cancelled=stop_is_wanted,
                )
        except GraftError:
            run.check()  # stopped because that was wanted, not because it failed
            raise
        return tuned.to_json()

    def _compare_job(self, run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        from graft.comparing.request import CompareRequest

        def tell(seen: CompareProgress) -> None:
            run.report(seen.done, seen.total, "questions" if seen.stage == "asking" else "parts", seen.stage)
            run.check()

        request = CompareRequest.from_json(payload["request"])
        with self._acting(run, payload) as workspace:
            made = workspace.compare(request, progress=tell)
            folder = workspace.comparison_folder(request)
        return {"folder": str(folder), "verdict": made.verdict, "partial": made.partial}


def _absolute(path: Path | str) -> str:
    """A path that a job finds from any folder."""
    from graft.sync.sources import address_of

    return address_of(str(path))


def _found_anywhere(request: TuneRequest) -> TuneRequest:
    dev, held_out = (None if path is None else _absolute(path) for path in (request.dev, request.held_out))
    return dataclasses.replace(request, train=_absolute(request.train), dev=dev, held_out=held_out)
