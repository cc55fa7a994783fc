"""Durable work: queued, run, followed, paused, and resumed after a crash.

A kind of job is a function `(JobRun, payload) -> result`, JSON in and JSON out. `Jobs` queues and runs them;
`JobRun` is what the function gets: durable steps, progress, safe points, retries. What a killed process had
completed is not done again. DBOS keeps the steps; it is imported where a job runs, and nowhere else.

It does not know what any kind of job does.
"""

from __future__ import annotations

from graft.jobs.carrying import Kind
from graft.jobs.jobs import Jobs
from graft.jobs.running import ItemFailed, JobRun, JobStopped
from graft.jobs.values import ItemTrouble, Job, JobStatus

__all__ = ["ItemFailed", "ItemTrouble", "Job", "JobRun", "JobStatus", "JobStopped", "Jobs", "Kind"]
