"""Options that many verbs share, and the workspace they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graft.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])


def shared(function: F) -> F:
    """`--json` and `--home` on a verb; both may stand before the verb too."""
    return click.option("--home", metavar="DIR", help="The workspace's folder.")(as_json_option(function))


def as_json_option(function: F) -> F:
    """`--json` alone, on a verb that needs no workspace."""
    return click.option(
        "--json", "as_json", is_flag=True, callback=_or_before_the_verb, help="Print exactly one JSON object."
    )(function)


def _or_before_the_verb(context: click.Context, _: click.Parameter, given: bool) -> bool:
    return given or bool((context.find_root().obj or {}).get("as_json"))


def as_option(function: F) -> F:
    """`--as PRINCIPAL`, repeatable: who asks."""
    return click.option(
        "--as", "who", multiple=True, metavar="PRINCIPAL", help="Ask as user:NAME or group:NAME; repeatable."
    )(function)


def collection_option(function: F) -> F:
    """`--collection NAME`."""
    return click.option("--collection", "-c", metavar="NAME", help="Only this collection.")(function)


@contextmanager
def open_workspace(home: str | None, who: Sequence[str] = ()) -> Iterator[Workspace]:
    """The workspace of this command line, closed afterwards."""
    from graft.workspace import Workspace

    chosen = home or (click.get_current_context().find_root().obj or {}).get("home")
    with Workspace(Path(chosen) if chosen else None, principals=who or None) as workspace:
        yield workspace
