"""/v1/fine_tuning in OpenAI's names: what is asked, and a job, its events and checkpoints as they are answered.

It does not know how jobs are kept or run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from graft.server.requests import Body, Name, WholeBody
from graft.server.vector_store_bodies import FileId, Metadata

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Auto = Literal["auto"]
Suffix = Annotated[str, StringConstraints(max_length=64)]


class Hyperparameters(Body):
    """Of the training; "auto" is the value of [tuning]."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Annotated[int, Field(ge=1, le=100)] | Auto = (
        "auto"
    )


class Supervised(Body):
    """Learning from examples of right answers."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Body):
    """How it learns; preferences and graders are not taken."""

    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class NewJob(WholeBody):
    """A tuning of a local model on an uploaded file."""

    model: Name
    training_file: FileId
    validation_file: FileId | None = None
    suffix: Suffix | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> NewJob:
        if self.hyperparameters is not None and self.method is not None:
            raise ValueError("hyperparameters stand either in `method` or beside it, not in both")
        return self

    @property
    def chosen(self) -> Hyperparameters:
        """Wherever they stand."""
        if self.method is not None:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()


class JobError(BaseModel):
    """Why it failed."""

    code: str
    message: str
    param: str | None = None


class FineTuningJob(BaseModel):
    """A tuning, as it stands."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobError | None
    estimated_finish: int | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    integrations: list[Any] = []
    metadata: dict[str, str]
    method: dict[str, Any]
    model: str
    organization_id: str = "graft"
    result_files: list[str]
    seed: int
    status: Status
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    user_provided_suffix: str | None


class JobEvent(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] | None = None


class Metrics(BaseModel):
    """At a checkpoint's step."""

    step: int
    train_loss: float
    valid_loss: float | None


class Checkpoint(BaseModel):
    """A state of the model that can be asked."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: Metrics
    step_number: int


class JobList(BaseModel):
    """Some jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class EventList(BaseModel):
    """Some events, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobEvent]
    has_more: bool


class CheckpointList(BaseModel):
    """The checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool
