"""/v1/fine_tuning/jobs: OpenAI's tuning on a machine of one's own; the model's name is a model id when it is done.

A job is one of `graft jobs`, done by a worker process; see `working`. Its events are read off the job and its curve,
so that they are the same whenever and wherever they are asked for. It does not know how a model is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from graft.errors import NotFound
from graft.jobs import Job, JobStatus
from graft.objects import MOST_A_PAGE
from graft.server.authorising import EditorSeat, Seat
from graft.server.files import Cursor, Deleted
from graft.server.fine_tuning_bodies import (
    Checkpoint,
    CheckpointList,
    EventList,
    FineTuningJob,
    Hyperparameters,
    JobError,
    JobEvent,
    JobList,
    Metrics,
    NewJob,
    Status,
)
from graft.server.paging import page_of
from graft.settings import TuningSettings
from graft.workspace import Workspace
from graft.workspace.fine_tuning import CurvePoint

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

Limit = Annotated[int, Query(ge=1, le=MOST_A_PAGE)]

_STATUS: dict[JobStatus, Status] = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.PAUSED: "paused",
    JobStatus.INTERRUPTED: "paused",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.DONE: "succeeded",
}


@router.post("", response_model=FineTuningJob)
def create_job(body: NewJob, seat: EditorSeat) -> FineTuningJob:
    """Queue a tuning. The examples are checked when it starts; what is wrong with them is the job's error."""
    tuning = seat.workspace.settings.tuning
    job = seat.workspace.fine_tune(
        body.training_file,
        body.model,
        validation_file=body.validation_file,
        suffix=body.suffix or "",
        overrides={**_overrides(body.chosen, tuning), **({} if body.seed is None else {"seed": body.seed})},
        told={"metadata": body.metadata or {}},
    )
    seat.worker.wanted()
    return _job(seat.workspace, job)


@router.get("", response_model=JobList)
def list_jobs(seat: Seat, limit: Limit = 20, after: Cursor = None) -> JobList:
    """The caller's tunings, the newest first."""
    jobs = seat.workspace.fine_tuning_jobs()
    page, more = page_of(jobs, [job.id for job in jobs], limit, after)
    return JobList(data=[_job(seat.workspace, job) for job in page], has_more=more)


@router.get("/{job_id}", response_model=FineTuningJob)
def retrieve_job(job_id: str, seat: Seat) -> FineTuningJob:
    """One tuning as it stands."""
    return _job(seat.workspace, seat.workspace.fine_tuning_job(job_id))


@router.post("/{job_id}/cancel", response_model=FineTuningJob)
def cancel_job(job_id: str, seat: EditorSeat) -> FineTuningJob:
    """End it for good: at once, or at its next step."""
    return _job(seat.workspace, seat.workspace.jobs.cancel(seat.workspace.fine_tuning_job(job_id).id))


@router.post("/{job_id}/pause", response_model=FineTuningJob)
def pause_job(job_id: str, seat: EditorSeat) -> FineTuningJob:
    """Stop it at its next step, so that it can go on."""
    return _job(seat.workspace, seat.workspace.jobs.pause(seat.workspace.fine_tuning_job(job_id).id))


@router.post("/{job_id}/resume", response_model=FineTuningJob)
def resume_job(job_id: str, seat: EditorSeat) -> FineTuningJob:
    """Go on after the last checkpoint."""
    job = seat.workspace.jobs.resume(seat.workspace.fine_tuning_job(job_id).id)
    seat.worker.wanted()
    return _job(seat.workspace, job)


@router.get("/{job_id}/events", response_model=EventList)
def list_events(job_id: str, seat: Seat, limit: Limit = 20, after: Cursor = None) -> EventList:
    """What happened, the newest first."""
    job = seat.workspace.fine_tuning_job(job_id)
    events = _events(job, seat.workspace.fine_tuning_curve(job))[::-1]
    page, more = page_of(events, [event.id for event in events], limit, after)
    return EventList(data=page, has_more=more)


@router.get("/{job_id}/checkpoints", response_model=CheckpointList)
def list_checkpoints(job_id: str, seat: Seat, limit: Limit = 10, after: Cursor = None) -> CheckpointList:
    """The state that was kept, which is the best on the validation file; others are not served."""
    job = seat.workspace.fine_tuning_job(job_id)
    made = _checkpoints(job, seat.workspace.fine_tuning_curve(job))
    page, more = page_of(made, [one.id for one in made], limit, after)
    ends = (page[0].id, page[-1].id) if page else (None, None)
    return CheckpointList(data=page, first_id=ends[0], last_id=ends[1], has_more=more)


models_router = APIRouter(prefix="/v1/models", tags=["models"])


@models_router.delete("/{model:path}", response_model=Deleted)
def delete_model(model: str, seat: EditorSeat) -> Deleted:
    """Forget a model that a tuning job of the caller made; the weights of other models are not removed from here."""
    made = {name for job in seat.workspace.fine_tuning_jobs() if (name := _made(job)) is not None}
    known = {listed.name for listed in seat.workspace.models()}
    if model not in made & known:
        raise NotFound(f"no tuned model {model!r} of yours", fix="GET /v1/fine_tuning/jobs lists them")
    for name in [listed for listed in known if listed == model or listed.startswith(f"{model}@")]:
        seat.workspace.remove_model(name)
    return Deleted(id=model, object="model")


def _overrides(chosen: Hyperparameters, tuning: TuningSettings) -> dict[str, object]:
    found: dict[str, object] = {}
    if chosen.n_epochs != "auto":
        found["epochs"] = float(chosen.n_epochs)
    if chosen.batch_size != "auto":
        found["batch_size"] = chosen.batch_size
    if chosen.learning_rate_multiplier != "auto":
        found["learning_rate"] = tuning.learning_rate * chosen.learning_rate_multiplier
    return found


def _job(workspace: Workspace, job: Job) -> FineTuningJob:
    """A job in OpenAI's words."""
    request, overrides = job.payload["request"], job.payload["overrides"]
    files = job.payload.get("files", {})
    tuning = workspace.settings.tuning
    rate = overrides.get("learning_rate", tuning.learning_rate)
    hyperparameters = {
        "n_epochs": round(overrides.get("epochs", tuning.epochs)),
        "batch_size": overrides.get("batch_size", tuning.batch_size),
        "learning_rate_multiplier": round(rate / tuning.learning_rate, 6),
    }
    over = job.status in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)
    curve = workspace.fine_tuning_curve(job) if job.status is JobStatus.DONE else []
    told = f"{job.error} / fix: {job.fix}" if job.error is not None else ""
    left = job.seconds_left if job.status is JobStatus.RUNNING else None
    return FineTuningJob(
        id=job.id,
        created_at=_seconds(job.created),
        error=JobError(code="job_failed", message=told) if job.status is JobStatus.FAILED else None,
        estimated_finish=None if left is None else round(datetime.now().timestamp() + left),
        fine_tuned_model=_made(job),
        finished_at=_seconds(job.ended) if over and job.ended is not None else None,
        hyperparameters=hyperparameters,
        metadata=files.get("metadata", {}),
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        model=request["model"],
        result_files=list((job.result or {}).get("result_files", [])),
        seed=overrides.get("seed", tuning.seed),
        status=_status(job),
        trained_tokens=curve[-1].tokens if curve else None,
        training_file=files.get("training", request["train"]),
        validation_file=files.get("validation", request["dev"]),
        user_provided_suffix=files.get("suffix") or None,
    )


def _status(job: Job) -> Status:
    """In OpenAI's words; one whose process died, and which the next worker goes on with, waits."""
    left_behind = job.status is JobStatus.INTERRUPTED and job.ended is None
    return "queued" if left_behind else _STATUS[job.status]


def _made(job: Job) -> str | None:
    return str(job.result["name"]) if job.status is JobStatus.DONE and job.result is not None else None


def _events(job: Job, curve: Sequence[CurvePoint]) -> list[JobEvent]:
    """In the order in which it happened; a step has the time of the job's start, for its own is not kept."""
    made: list[JobEvent] = []

    def tell(at: str, message: str, **more: Any) -> None:
        made.append(JobEvent(id=f"ftevent-{job.id}-{len(made)}", created_at=_seconds(at), message=message, **more))

    tell(job.created, f"Created fine-tuning job: {job.id}")
    if job.started is not None:
        tell(job.started, "Fine-tuning job started")
        for point in curve:
            dev = "" if point.dev_loss is None else f", validation loss={point.dev_loss:.4f}"
            data = {"step": point.step, "train_loss": point.loss, "valid_loss": point.dev_loss}
            tell(job.started, f"Step {point.step}: training loss={point.loss:.4f}{dev}", type="metrics", data=data)
    ended = job.ended or job.created
    if job.status is JobStatus.DONE:
        tell(ended, f"New fine-tuned model created: {_made(job)}")
        tell(ended, "The job has successfully completed")
    elif job.status is JobStatus.FAILED:
        tell(ended, f"The job failed: {job.error} / fix: {job.fix}", level="error")
    elif job.status in (JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.INTERRUPTED):
        tell(ended, f"The job is {_STATUS[job.status]}")
    return made


def _checkpoints(job: Job, curve: Sequence[CurvePoint]) -> list[Checkpoint]:
    made, ended = _made(job), job.ended
    if made is None or ended is None or not curve:
        return []
    measured = [point for point in curve if point.dev_loss is not None]
    kept = min(measured, key=lambda point: point.dev_loss or 0.0) if measured else curve[-1]
    return [
        Checkpoint(
            id=f"ftckpt-{job.id}-{kept.step}",
            created_at=_seconds(ended),
            fine_tuned_model_checkpoint=made,
            fine_tuning_job_id=job.id,
            metrics=Metrics(step=kept.step, train_loss=kept.loss, valid_loss=kept.dev_loss),
            step_number=kept.step,
        )
    ]


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())
