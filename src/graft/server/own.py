"""What OpenAI's API has no route for: jobs of every kind, comparisons, advice, collections, sources, citations.

Bodies and answers are those of the verbs, as `--json` prints them. It does not know how any of it is done.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from graft.access import join_inside
from graft.errors import AccessDenied, NotFound, UsageError
from graft.jobs import Job, JobStatus
from graft.objects import MOST_A_PAGE, new_id
from graft.server.answers import chat_model
from graft.server.authorising import EditorSeat, Seat, Serving
from graft.server.files import Cursor
from graft.server.lanes import finished
from graft.server.paging import page_of
from graft.server.requests import Name, WholeBody
from graft.server.vector_store_bodies import FileId

if TYPE_CHECKING:
    from graft.comparing.request import CompareRequest

router = APIRouter(prefix="/v1")

Limit = Annotated[int, Query(ge=1, le=MOST_A_PAGE)]
JobState = Literal["queued", "running", "paused", "interrupted", "failed", "cancelled", "done"]
COMPARE = "compare"
_PNG: dict[str, Any] = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
_RESULT, _PAGE = "compare.json", "report.html"


class Failed(BaseModel):
    """An item of a job that failed."""

    item: str
    error: str
    fix: str


class JobObject(BaseModel):
    """Long work: adding, generating, tuning, comparing."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    title: str
    status: JobState
    created: str
    started: str | None
    ended: str | None
    done: float
    total: float
    unit: str
    note: str
    seconds_left: float | None
    failed: int
    failures: list[Failed]
    error: str | None
    fix: str | None


class JobObjects(BaseModel):
    """Some jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobObject]
    has_more: bool


class NewComparison(WholeBody):
    """As `graft compare`; files are uploaded before."""

    questions: FileId | None = Field(default=None, description="A question file; without one, some are made.")
    train: FileId | None = None
    model: Name | None = None
    tuned: Name | None = None
    retrieval_aware: Name | None = None
    arms: list[Name] = Field(default_factory=list, max_length=20)
    collection: Name | None = None
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    judge: Name | None = None
    budget_usd: Annotated[float, Field(ge=0)] | Annotated[int, Field(ge=0)] | None = None
    seeds: Annotated[int, Field(ge=1, le=10)] = 1


class NewAdvice(WholeBody):
    """Answers by key, as `graft advise --example` lists them; what is left out keeps its usual value."""

    answers: dict[Annotated[str, Field(max_length=100)], Any] = Field(default_factory=dict, max_length=100)
    comparison: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Id of a finished comparison, which outranks the rules."
    )


class Collection(BaseModel):
    """A set of documents, counted as the caller sees it."""

    name: str
    documents: int
    passages: int
    created_at: str


class Source(BaseModel):
    """Where documents come from."""

    collection: str
    kind: str
    uri: str
    created_at: str
    last_sync: str | None


class Range(WholeBody):
    """A range of a document's version, as a citation gives it."""

    document_id: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[int, Field(ge=1, le=2**31)]
    start: Annotated[int, Field(ge=0, le=2**53)]
    end: Annotated[int, Field(ge=0, le=2**53)]


class PlacedOn(BaseModel):
    """Where on a page it stands: boxes of left, bottom, right, top in points from the lower left corner."""

    page: int
    width: float
    height: float
    boxes: list[tuple[float, float, float, float]]


class Resolved(BaseModel):
    """What a citation points at, and what became of that version."""

    document: str
    document_id: str
    version: int
    start: int
    end: int
    state: Literal["current", "superseded", "removed"]
    text: str
    places: list[PlacedOn] = Field(description="Page by page; empty for formats without pages.")


class Collections(BaseModel):
    """All that the caller may read from."""

    object: Literal["list"] = "list"
    data: list[Collection]


class Sources(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Source]


# Jobs


@router.get("/jobs", response_model=JobObjects, tags=["jobs"])
def list_jobs(seat: Seat, limit: Limit = 20, after: Cursor = None, kind: str | None = None) -> JobObjects:
    """The caller's jobs, the newest first."""
    jobs = [job for job in seat.workspace.jobs.list() if kind in (None, job.kind)]
    page, more = page_of(jobs, [job.id for job in jobs], limit, after)
    return JobObjects(data=[_job(job) for job in page], has_more=more)


@router.get("/jobs/{job_id}", response_model=JobObject, tags=["jobs"])
def retrieve_job(job_id: str, seat: Seat) -> JobObject:
    """One job as it is now."""
    return _job(seat.workspace.jobs.get(job_id))


@router.post("/jobs/{job_id}/cancel", response_model=JobObject, tags=["jobs"])
def cancel_job(job_id: str, seat: EditorSeat) -> JobObject:
    """End it for good: at once, or at its next safe point."""
    return _job(seat.workspace.jobs.cancel(job_id))


@router.post("/jobs/{job_id}/pause", response_model=JobObject, tags=["jobs"])
def pause_job(job_id: str, seat: EditorSeat) -> JobObject:
    """Stop it, so that it can go on."""
    return _job(seat.workspace.jobs.pause(job_id))


@router.post("/jobs/{job_id}/resume", response_model=JobObject, tags=["jobs"])
def resume_job(job_id: str, seat: EditorSeat) -> JobObject:
    """Go on with one that was paused, or that failed."""
    job = seat.workspace.jobs.resume(job_id)
    seat.worker.wanted()
    return _job(job)


# Comparing and advising


@router.post("/comparisons", response_model=JobObject, tags=["comparing"])
def create_comparison(body: NewComparison, seat: EditorSeat) -> JobObject:
    """Queue an experiment: which way of answering is best on these questions."""
    workspace = seat.workspace
    request = comparison_request(body, seat)
    job = workspace.queue_compare(request)
    seat.worker.wanted()
    return _job(job)


def comparison_request(body: NewComparison, seat: Serving) -> CompareRequest:
    """What is asked for, as the workspace takes it.

    Raises:
        AccessDenied: It would be paid for, by somebody with a budget.
        NotFound: A model or a file is not there, or not theirs.
    """
    from graft.comparing.request import CompareRequest

    workspace = seat.workspace
    model = body.model or workspace.settings.model.default
    for name in {model, body.tuned, body.retrieval_aware, body.judge} - {None}:
        chat_model(workspace, str(name))
        if seat.caller.budget_usd is not None and workspace.is_hosted(str(name)):
            raise AccessDenied(
                f"{name!r} is asked for money, and an experiment is not counted against a budget",
                fix="a local model, or ask an administrator to run it",
            )
    questions, train = (None if id is None else str(workspace.file_path(id)) for id in (body.questions, body.train))
    return CompareRequest(
        questions=questions,
        train=train,
        model=model,
        tuned=body.tuned,
        retrieval_aware=body.retrieval_aware,
        arms=tuple(body.arms),
        collection=body.collection,
        limit=body.limit,
        judge=body.judge,
        budget_usd=body.budget_usd,
        seeds=body.seeds,
        into=str(join_inside(workspace.home / "comparisons", new_id("api-"))),
    )


@router.get("/comparisons/{job_id}", tags=["comparing"])
def retrieve_comparison(job_id: str, seat: Seat) -> dict[str, Any]:
    """The whole result of a finished experiment: arms, pairs, replies, verdict."""
    return _comparison(seat, job_id)


@router.get("/comparisons/{job_id}/report", response_class=HTMLResponse, tags=["comparing"])
def retrieve_report(job_id: str, seat: Seat) -> HTMLResponse:
    """The same as one page that needs nothing else; its own policy forbids scripts and requests."""
    content = _result_file(seat, job_id, _PAGE).read_text(encoding="utf-8")
    return HTMLResponse(content, headers={"content-security-policy": "sandbox"})


@router.post("/advice", tags=["comparing"])
def create_advice(body: NewAdvice, seat: Seat) -> dict[str, Any]:
    """Retrieve, tune, both or neither, with reasons and costs; by a comparison where one is named."""
    from graft import advising
    from graft.advising.needs import needs_from
    from graft.advising.report import report_from

    report = (
        None if body.comparison is None else report_from(_comparison(seat, body.comparison), name="the comparison")
    )
    return dict(advising.advise(needs_from(body.answers), report).to_json())


# Documents


@router.get("/collections", response_model=Collections, tags=["documents"])
def list_collections(seat: Seat) -> Collections:
    """The collections that the caller may read something of."""
    found = seat.workspace.collections()
    data = [
        Collection(name=one.name, documents=one.documents, passages=one.chunks, created_at=one.created_at)
        for one in found
    ]
    return Collections(data=data)


@router.get("/sources", response_model=Sources, tags=["documents"])
def list_sources(seat: EditorSeat, collection: str | None = None) -> Sources:
    """The folders, files and addresses that documents come from."""
    found = seat.workspace.sources(collection)
    data = [
        Source(
            collection=one.collection,
            kind=one.kind,
            uri=one.uri,
            created_at=one.created_at,
            last_sync=one.last_sync,
        )
        for one in found
    ]
    return Sources(data=data)


@router.post("/citations/resolve", response_model=Resolved, tags=["documents"])
async def resolve_citation(body: Range, request: Request, seat: Seat) -> Resolved:
    """The words that a citation points at, for as long as the document is there."""

    def find(_: object) -> Resolved:
        place = (body.document_id, body.version, body.start, body.end)
        found = seat.workspace.resolve(*place)
        places = [PlacedOn(**dataclasses.asdict(one)) for one in seat.workspace.places(*place)]
        return Resolved(**dataclasses.asdict(found), places=places)

    return await finished(request, seat.lookups.start(find))


@router.post("/citations/page", response_class=Response, responses={200: _PNG}, tags=["documents"])
async def show_page(body: Range, request: Request, seat: Seat) -> Response:
    """The page of a PDF that a citation points at, as a picture with the words marked."""
    place = (body.document_id, body.version, body.start, body.end)
    picture = await finished(request, seat.lookups.start(lambda _: seat.workspace.picture(*place)))
    return Response(picture, media_type="image/png")


def _job(job: Job) -> JobObject:
    return JobObject(
        id=job.id,
        kind=job.kind,
        title=job.title,
        status=job.status.value,
        created=job.created,
        started=job.started,
        ended=job.ended,
        done=job.done,
        total=job.total,
        unit=job.unit,
        note=job.note,
        seconds_left=job.seconds_left,
        failed=job.failed,
        failures=[Failed(item=one.item, error=one.error, fix=one.fix) for one in job.failures],
        error=job.error,
        fix=job.fix,
    )


def _comparison(seat: Serving, job_id: str) -> dict[str, Any]:
    made: Mapping[str, Any] = json.loads(_result_file(seat, job_id, _RESULT).read_text(encoding="utf-8"))
    return dict(made)


def _result_file(seat: Serving, job_id: str, name: str) -> Path:
    """A file of a finished experiment.

    Raises:
        NotFound: No such experiment, or its files are gone.
        UsageError: It is not finished.
    """
    with suppress(NotFound):
        job = seat.workspace.jobs.get(job_id)
        if job.kind == COMPARE and job.owner in seat.workspace.principals:  # an administrator sees that others' exist
            return _made_by(job, name)
    raise NotFound(f"no comparison {job_id!r}", fix="GET /v1/jobs?kind=compare lists them")


def _made_by(job: Job, name: str) -> Path:
    if job.status is not JobStatus.DONE or job.result is None:
        raise UsageError(f"{job.id} is {job.status}", fix=f"GET /v1/jobs/{job.id} until it is done")
    path = Path(str(job.result["folder"])) / name
    if not path.is_file():
        raise UsageError(f"the files of {job.id} are gone", fix="POST /v1/comparisons makes them anew")
    return path
