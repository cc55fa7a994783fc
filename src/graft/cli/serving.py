"""serve."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
from typing import Any

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import emit_json, note, say
from graft.errors import GraftError
from graft.extras import install

_EXTRA = {"fastapi", "starlette", "pydantic", "uvicorn"}


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes any that is free.  [default: 8642]")
@shared
def serve(host: str | None, port: int | None, home: str | None, as_json: bool) -> None:
    """Answer OpenAI's API from the documents, on this machine: change a client's base_url and ask.

    Once there is a key (graft keys create), every client needs one, and with an administrator's others than this
    machine may reach it (--host 0.0.0.0). GRAFT_API_KEY, where it is set, is the owner's key.
    Ctrl-C stops it, once what is under way is finished.
    """
    server = _server()
    with open_workspace(home) as workspace:
        settings = workspace.settings.serving
        settings = dataclasses.replace(
            settings, host=host or settings.host, port=settings.port if port is None else port
        )
        key = os.environ.get("GRAFT_API_KEY")
        listening = server.listen(settings, guarded=key is not None or workspace.identities.has_admin())
        url = server.url_of(listening)
        _log(as_json=as_json)
        asks = key is not None or workspace.identities.guarded()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped by either, it closes what it opened
        all_ended = server.serve(
            workspace,
            settings,
            listening,
            api_key=key,
            ready=lambda: _show(url, workspace.settings.model.default, asks, as_json=as_json),
        )
    note("stopped" if all_ended else "stopped; a model that did not end in time was dropped")
    if not all_ended:  # Python would wait for its thread
        sys.stdout.flush()
        os._exit(0)


def _server() -> Any:
    """The server's package, which needs more than Graft itself does."""
    try:
        from graft import server
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in _EXTRA:
            raise
        raise GraftError(f"graft serve needs {error.name}, which is not installed", fix=install("serve")) from error
    return server


def _log(*, as_json: bool) -> None:
    """Requests to stderr, a line each; with --json only what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("graft.server")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING if as_json else logging.INFO)


def _show(url: str, model: str, has_key: bool, *, as_json: bool) -> None:
    if as_json:
        emit_json({"url": url, "model": model, "key_required": has_key})
        sys.stdout.flush()
        return
    key = 'os.environ["GRAFT_API_KEY"]' if has_key else '"none"'
    messages = '[{"role": "user", "content": "Your question"}]'
    say(url, "bold")
    say(f'OpenAI(base_url="{url}", api_key={key}).chat.completions.create(model="{model}", messages={messages})')
    note("Ctrl-C stops it")
    sys.stdout.flush()


COMMANDS = (serve,)
