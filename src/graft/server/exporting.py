"""OpenTelemetry's own environment variables -> spans sent to a collector by OTLP over HTTP, while the server runs.

The provider is Graft's alone and never the process's: what other libraries would say of a request, its path and
query for instance, goes nowhere. It does not know which spans there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

from graft import tracing
from graft.errors import GraftError, UsageError
from graft.extras import install

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_LAST_SECONDS = 5.0
"""For what is still to be sent at the end; a collector that is silent must not keep the server from ending."""


@contextmanager
def spans_exported() -> Iterator[bool]:
    """Send spans while the block runs, where an endpoint is set.

    Yields: Whether they are sent.
    Raises:
        UsageError: The endpoint is no HTTP address, or another protocol is asked for.
        GraftError: The extra `tracing` is not installed.
    """
    if not _wanted(os.environ):
        yield False
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise GraftError(
            f"{_ENDPOINTS[1]} is set, and {error.name} is not installed", fix=f"{install('tracing')}; or unset it"
        ) from error
    about = Resource({"service.name": "graft", "service.version": version("graft-llm")})
    provider = TracerProvider(resource=about.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracing.use(provider.get_tracer("graft", version("graft-llm")))
    try:
        yield True
    finally:
        tracing.use(None)
        last = threading.Thread(target=provider.shutdown, name="graft-last-spans", daemon=True)
        last.start()
        last.join(_LAST_SECONDS)


def _wanted(variables: Mapping[str, str]) -> bool:
    """Whether an endpoint is set, and can be used.

    >>> _wanted({}), _wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    (False, True)
    """
    name = next((name for name in _ENDPOINTS if variables.get(name)), None)
    off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or variables.get("OTEL_TRACES_EXPORTER") == "none"
    if name is None or off:
        return False
    protocol = next((variables[name] for name in _PROTOCOLS if variables.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise UsageError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; spans are sent by {_PROTOCOL} alone",
            fix=f"export OTEL_EXPORTER_OTLP_PROTOCOL={_PROTOCOL}, and the collector's port for it, 4318 as a rule",
        )
    try:
        parts = urlsplit(variables[name])
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{name} is no HTTP address", fix=f"export {name}=http://127.0.0.1:4318, or unset {name}")
    return True
