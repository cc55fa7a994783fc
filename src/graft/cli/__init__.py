"""`graft`: words on a command line -> a Workspace's methods. A thin door; no logic.

It does not know how anything works below the Workspace.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import NoReturn

import click

from graft import interrupts
from graft.cli import (
    advise,
    asking,
    collections,
    compare,
    dataset,
    documents,
    evaluating,
    export,
    jobs,
    models,
    people,
    serving,
    setup,
    tuning,
)
from graft.cli.output import show_error
from graft.errors import GraftError, UsageError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.option(
    "--home", metavar="DIR", help="The workspace's folder (default: GRAFT_HOME, .graft here, or your data folder)."
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object.")
@click.version_option(package_name="graft-llm", prog_name="graft")
@click.pass_context
def graft(context: click.Context, home: str | None, as_json: bool) -> None:
    """Answers from your own documents, with citations that a machine has checked.

    \b
    Exit status: 0 success (some files of an add may have failed: see its list), 1 failure, 2 usage,
    130 interrupted.
    """
    context.ensure_object(dict).update(home=home, as_json=as_json)


for module in (
    documents, asking, collections, models, dataset, tuning, evaluating, compare, export, advise,
    jobs, people, serving, setup,
):  # fmt: skip
    for command in module.COMMANDS:
        graft.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command line; the only place where a failure becomes an exit status.

    0 success, 1 failure, 2 usage, 130 interrupted.
    """
    _bear_any_text()
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    try:
        with interrupts.heeded(signal.SIGINT):
            status = graft.main(words, prog_name="graft", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Abort:
        _interrupted(as_json)
    except KeyboardInterrupt:
        _interrupted(as_json)
    except click.ClickException as error:
        _click_failure(error, as_json)
    except Exception as error:
        _failure(error, as_json)


def _failure(error: Exception, as_json: bool) -> NoReturn:
    """Show a person what happened, never a traceback."""
    if interrupts.came():  # and a native module, say, made another failure of it
        _interrupted(as_json)
    if isinstance(error, GraftError):
        show_error(error.message, error.fix, as_json=as_json)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    if isinstance(error, BrokenPipeError):  # the reader of our output, `head` perhaps, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if os.environ.get("GRAFT_DEBUG"):
        raise error
    show_error(
        f"unexpected {type(error).__name__}: {error}",
        "run the same command with GRAFT_DEBUG=1 and report what it prints",
        as_json=as_json,
    )
    sys.exit(1)


def _bear_any_text() -> None:
    """Show "?" for what a terminal's encoding lacks, and take bytes that are no text, to refuse them by name."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stdin, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _interrupted(as_json: bool) -> NoReturn:
    show_error("interrupted; what was finished is kept", "run the same command again to go on", as_json=as_json)
    sys.exit(130)


def _click_failure(error: click.ClickException, as_json: bool) -> NoReturn:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "graft"
    show_error(error.format_message(), f"{path} --help", as_json=as_json)
    sys.exit(2)
