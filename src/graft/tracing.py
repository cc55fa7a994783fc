"""steps of a question -> OpenTelemetry spans, where somebody asked for them; else nothing.

Spans hold counts, times and the names of models and collections; words are taken under `NAMES` alone, and an error
is told by its kind, so that no span can say what a document, a question or an answer says. Attributes have the
names of OpenTelemetry's conventions where there are such. It does not know where spans are sent to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

Value = int | float | str | tuple[str, ...]

NAMES = frozenset(
    {
        *("http.request.method", "http.route", "graft.request_id", "error.type"),
        *("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.response.finish_reasons"),
        *("graft.collections", "graft.mode"),
    }
)
"""Attributes that may hold words: none is a client's own but the name of a collection that was found."""

_tracer: Tracer | None = None


class Step(Protocol):
    """A step under way."""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Add what is known by now; words under other names than NAMES are left out."""
        ...

    def name(self, name: str) -> None:
        """Call it otherwise than at its beginning."""
        ...

    @property
    def trace_id(self) -> str:
        """Of all that belongs together, 32 hexadecimal digits; "" where nothing is traced."""
        ...


def use(tracer: Tracer | None) -> None:
    """Tell all steps of this process from now on to a tracer; None tells them to nobody."""
    global _tracer
    _tracer = tracer


def span(
    name: str, attributes: Mapping[str, Value] | None = None, *, holds: bool = True
) -> AbstractContextManager[Step]:
    """A step, for as long as the block runs.

    Args:
        holds: Steps that begin within are parts of it. Not for a generator that yields within: what its caller does
            in between is no part of the step.

    >>> with span("search") as step:
    ...     step.set({"graft.hits": 3})
    """
    return _NOTHING if _tracer is None else _recorded(_tracer, name, attributes or {}, holds)


def request_span(name: str, traceparent: list[str]) -> AbstractContextManager[Step]:
    """A client's request.

    Args:
        traceparent: Its headers of this name (W3C Trace Context); what is not exactly one that is well formed is
            ignored, as the specification asks. `tracestate` and `baggage` are a client's own words, and not taken.
    """
    return _NOTHING if _tracer is None else _requested(_tracer, name, traceparent)


class _Nothing:
    """A step that nobody wants to know of."""

    trace_id = ""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Nothing."""

    def name(self, name: str) -> None:
        """Nothing."""


_NOTHING = _Nothing()


class _Recorded:
    def __init__(self, span: Span) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Value]) -> None:
        """See `Step.set`."""
        for name, value in attributes.items():
            if name in NAMES or isinstance(value, int | float):
                self._span.set_attribute(name, value)

    def name(self, name: str) -> None:
        """See `Step.name`."""
        self._span.update_name(name)

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"


@contextmanager
def _recorded(tracer: Tracer, name: str, attributes: Mapping[str, Value], holds: bool) -> Iterator[Step]:
    from opentelemetry import trace

    span = tracer.start_span(name)
    step = _Recorded(span)
    step.set(attributes)
    try:
        if holds:  # neither the error's words nor its stack are told, for they may hold a document's
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield step
        else:
            yield step
    except GeneratorExit:
        step.set({"graft.given_up": True})  # by whom it was for
        raise
    except BaseException as error:
        step.set({"error.type": type(error).__name__})
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()


@contextmanager
def _requested(tracer: Tracer, name: str, traceparent: list[str]) -> Iterator[Step]:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    given = {"traceparent": traceparent[0]} if len(traceparent) == 1 else {}
    token = context.attach(TraceContextTextMapPropagator().extract(given, context.Context()))
    span = tracer.start_span(name, kind=trace.SpanKind.SERVER)
    try:
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield _Recorded(span)
    finally:
        context.detach(token)
