"""a failure -> HTTP status and OpenAI's error object: {"error": {message, type, param, code}}.

The one place that decides what a client learns about a failure. It does not know routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from graft.errors import (
    AccessDenied,
    ContextOverflow,
    EmbedderMismatch,
    GraftError,
    LimitExceeded,
    ModelError,
    NotFound,
    QuotaExceeded,
    UsageError,
)

INVALID, API = "invalid_request_error", "api_error"


class ErrorObject(BaseModel):
    """What is wrong, in OpenAI's words."""

    message: str = Field(description="What is wrong, and how to mend it.")
    type: str
    param: str | None = Field(description="The parameter at fault, where there is one.")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorObject


class ParameterRefused(UsageError):
    """A parameter, or its value, that would change the answer and is not supported."""

    def __init__(self, message: str, *, param: str, fix: str, code: str = "unsupported_value") -> None:
        super().__init__(message, fix=fix)
        self.param = param
        self.code = code


class NoSuchModel(NotFound):
    """No model of that name can answer here."""


class Unauthorised(AccessDenied):
    """No key, or not the right one."""


class RoleRefused(AccessDenied):
    """The caller's role does not reach."""


class HostRefused(AccessDenied):
    """Asked for under another name, or by another site's page."""


class BodyTooLarge(LimitExceeded):
    """The request's body is over the limit."""


class Busy(LimitExceeded):
    """As much is under way and in line as the settings allow."""

    def __init__(self, message: str, *, fix: str, retry_after_s: int) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


class StillUnderWay(GraftError):
    """The same request is being carried out."""


class Stopping(GraftError):
    """The server is being stopped and takes on nothing more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is sent instead of an answer."""

    status: int
    error: ErrorObject
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        return ErrorBody(error=self.error).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, headers=dict(self.headers))


_KINDS: Sequence[tuple[type[GraftError], int, str, str | None, str | None]] = (
    # first match wins:          status, type, param, code
    (NoSuchModel, 404, INVALID, "model", "model_not_found"),
    (Unauthorised, 401, INVALID, None, "invalid_api_key"),
    (HostRefused, 403, INVALID, None, "host_not_allowed"),
    (AccessDenied, 403, INVALID, None, "permission_denied"),
    (NotFound, 404, INVALID, None, "not_found"),
    (BodyTooLarge, 413, INVALID, None, "body_too_large"),
    (Busy, 429, "rate_limit_error", None, "rate_limit_exceeded"),
    (QuotaExceeded, 429, "insufficient_quota", None, "insufficient_quota"),
    (StillUnderWay, 409, INVALID, None, "still_under_way"),
    (Stopping, 503, API, None, "stopping"),
    (ContextOverflow, 400, INVALID, "messages", "context_length_exceeded"),
    (ModelError, 502, API, None, "model_error"),
    (EmbedderMismatch, 409, INVALID, None, "embedder_mismatch"),
    (LimitExceeded, 400, INVALID, None, "limit_exceeded"),
    (UsageError, 400, INVALID, None, "invalid_value"),
    (GraftError, 500, API, None, "server_error"),
)


def failure_of(error: Exception) -> Failure:
    """What a client is told; of an unexpected error no more than that it happened.

    >>> failure_of(NoSuchModel("no model named 'x'", fix="graft models list")).body["error"]["code"]
    'model_not_found'
    >>> failure_of(ValueError("a secret")).body["error"]["message"]
    'unexpected ValueError / fix: look for this x-request-id in the log of `graft serve`'
    """
    if not isinstance(error, GraftError):
        told = f"unexpected {type(error).__name__} / fix: look for this x-request-id in the log of `graft serve`"
        return Failure(500, ErrorObject(message=told, type=API, param=None, code="server_error"))
    if isinstance(error, ParameterRefused):
        return Failure(400, ErrorObject(message=str(error), type=INVALID, param=error.param, code=error.code))
    status, kind, param, code = next(row[1:] for row in _KINDS if isinstance(error, row[0]))
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "Bearer"
    return Failure(status, ErrorObject(message=str(error), type=kind, param=param, code=code), headers)


def http_failure(status: int, detail: str) -> Failure:
    """FastAPI's own refusals: no such route, not this method, a body that is not JSON."""
    kind = INVALID if status < 500 else API
    code = {404: "unknown_url", 405: "method_not_allowed", 413: "body_too_large"}.get(status)
    return Failure(status, ErrorObject(message=detail, type=kind, param=None, code=code))


def validation_failure(errors: Sequence[Any]) -> Failure:
    """One thing that is wrong with a request's parameters; the values given are not repeated."""
    first = max(errors, key=lambda error: len(error["loc"]))  # of a union's members the one that came furthest
    param = parameter_path(first["loc"][1:])
    if first["type"] == "json_invalid":
        return http_failure(400, f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][1]}")
    if not param and first["type"] == "value_error":
        return http_failure(400, str(first["ctx"]["error"]))
    if not param:
        return http_failure(400, "the body must be a JSON object, sent as Content-Type: application/json")
    code, message = "invalid_value", f"{param}: {first['msg']}"
    if first["type"] == "missing":
        code, message = "missing_required_parameter", f"missing required parameter: {param}"
    elif first["type"] == "extra_forbidden":
        code, message = "unknown_parameter", f"unknown parameter: {param}"
    return Failure(400, ErrorObject(message=message, type=INVALID, param=param, code=code))


def parameter_path(location: Sequence[str | int]) -> str:
    """Where in a request a value stands, as OpenAI writes it.

    >>> parameter_path(("messages", 0, "content", "list[TextPart]", 2, "text"))
    'messages[0].content[2].text'
    >>> parameter_path(("items", 0, "InputMessage", "role"))
    'items[0].role'
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in ("str", "float", "int") or "[" in part or part[:1].isupper():
            continue  # a union's member, not a parameter
        else:
            path += f".{part}" if path else part
    return path
