"""serve, mcp."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from graft.cli.options import as_option, open_workspace, shared
from graft.cli.output import emit_json, note, say
from graft.errors import GraftError
from graft.extras import install

_EXTRA = {"fastapi", "starlette", "pydantic", "uvicorn", "mcp", "mcp_types", "limits", "prometheus_client"}


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
        lines = server.write_log(settings.log)
        asks = key is not None or workspace.identities.guarded()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped by either, it closes what it opened
        pages = _pages()
        page = None if pages is None else url.removesuffix("v1")
        with server.spans_exported():
            all_ended = server.serve(
                workspace,
                settings,
                listening,
                api_key=key,
                pages=pages,
                ready=lambda: _show(url, workspace.settings.model.default, asks, page, as_json=as_json),
            )
    if lines:
        server.LOG.info(server.Told("stopped", all_ended=str(all_ended).lower()))
    else:
        note("stopped" if all_ended else "stopped; a model that did not end in time was dropped")
    if not all_ended:  # Python would wait for its thread
        sys.stdout.flush()
        os._exit(0)


@click.command()
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that the client may add files from; repeatable. Without it: text and URLs only.",
)
@click.option("--read-only", is_flag=True, help="Offer search, ask and list, but not add.")
@as_option
@click.option("--home", metavar="DIR", help="The workspace's folder.")
def mcp(folders: tuple[Path, ...], read_only: bool, who: tuple[str, ...], home: str | None) -> None:
    """Give the documents to a program that speaks the Model Context Protocol, over standard input and output.

    The program starts this command itself, as its settings say: {"command": "graft", "args": ["mcp"]}. Over HTTP
    the same tools are at /mcp of `graft serve`.
    """
    server = _server()
    if sys.stdin.isatty():
        note("this waits for a Model Context Protocol client on standard input; Ctrl-C stops it")
    with open_workspace(home, who) as workspace:
        server.serve_stdio(workspace, folders=folders, may_add=not read_only)


def _server() -> Any:
    """The server's package, which needs more than Graft itself does."""
    try:
        from graft import server
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in _EXTRA:
            raise
        raise GraftError(f"this needs {error.name}, which is not installed", fix=install("serve")) from error
    return server


def _pages() -> Any:
    """The pages for people; None where what makes them is not installed."""
    try:
        from graft.web import mount
    except ImportError as error:
        if (error.name or "").split(".")[0] != "nicegui":
            raise
        return None
    return mount


def _show(url: str, model: str, has_key: bool, page: str | None, *, as_json: bool) -> None:
    if as_json:
        emit_json({"url": url, "model": model, "key_required": has_key, "page": page})
        sys.stdout.flush()
        return
    key = 'os.environ["GRAFT_API_KEY"]' if has_key else '"none"'
    messages = '[{"role": "user", "content": "Your question"}]'
    if page is not None:
        say(f"in a browser:  {page}", "bold")
    say(f"for programs:  {url}", "bold")
    say(f'OpenAI(base_url="{url}", api_key={key}).chat.completions.create(model="{model}", messages={messages})')
    if sys.stdin.isatty():
        note("Ctrl-C stops it")
    sys.stdout.flush()


COMMANDS = (serve, mcp)
