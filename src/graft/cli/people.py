"""users, keys: who may call the server, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from graft.cli.options import open_workspace, shared
from graft.cli.output import emit_json, note, say, show_table

_ROLE = click.option(
    "--role", metavar="ROLE", default="reader", show_default=True, help="reader, editor (adds documents) or admin."
)
_GROUPS = click.option("--group", "groups", multiple=True, metavar="NAME", help="A group; repeatable.")

_BUDGET = click.option(
    "--budget", type=float, metavar="USD", help="What their answers may cost in a month; inf ends a limit."
)


@click.group()
def users() -> None:
    """People whom the server knows, with their role and groups."""


@users.command("add")
@click.argument("name")
@_ROLE
@_GROUPS
@_BUDGET
@shared
def add_user(
    name: str, role: str, groups: tuple[str, ...], budget: float | None, home: str | None, as_json: bool
) -> None:
    """Let somebody in; a key for them makes it possible: graft keys create."""
    with open_workspace(home) as workspace:
        made = workspace.identities.create_user(name, role=role, groups=groups, budget_usd=budget)
        workspace.audit.record("users add", subject=name, role=made.role)
    _told(made, f"{name} is {made.role}; next: graft keys create {name}-laptop --user {name}", as_json)


@users.command("set")
@click.argument("name")
@click.option("--role", metavar="ROLE", help="reader, editor or admin.")
@_GROUPS
@click.option("--no-groups", is_flag=True, help="Take the user out of all groups.")
@_BUDGET
@shared
def set_user(
    name: str,
    role: str | None,
    groups: tuple[str, ...],
    no_groups: bool,
    budget: float | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Change a user's role, groups or budget; it holds at once."""
    with open_workspace(home) as workspace:
        chosen = groups if groups or no_groups else None
        made = workspace.identities.change_user(name, role=role, groups=chosen, budget_usd=budget)
        workspace.audit.record("users set", subject=name, role=made.role)
    _told(made, f"{name} is {made.role} in {', '.join(made.groups) or 'no group'}", as_json)


@users.command("remove")
@click.argument("name")
@shared
def remove_user(name: str, home: str | None, as_json: bool) -> None:
    """Remove a user with their keys."""
    with open_workspace(home) as workspace:
        keys_gone = workspace.identities.remove_user(name)
        workspace.audit.record("users remove", subject=name)
    if as_json:
        emit_json({"removed": name, "keys": keys_gone})
    else:
        say(f"removed {name} and {len(keys_gone)} keys")


@users.command("list")
@shared
def list_users(home: str | None, as_json: bool) -> None:
    """List the users."""
    with open_workspace(home) as workspace:
        found = workspace.identities.users()
        spent = {one.name: workspace.spending.spent(f"user:{one.name}") for one in found}
    if as_json:
        emit_json({"users": found})
    elif not found:
        say("no users; whoever reaches this machine's loopback address is the owner: graft users add NAME")
    else:
        rows = [(u.name, u.role, ", ".join(u.groups), _money(spent[u.name].cost_usd, u.budget_usd)) for u in found]
        show_table(["user", "role", "groups", "this month"], rows)


@click.group()
def keys() -> None:
    """Keys by which programs call the server."""


@keys.command("create")
@click.argument("name")
@click.option("--user", metavar="NAME", help="Whose rights it has.  [default: the workspace's owner]")
@click.option("--as", "acts_as", multiple=True, metavar="PRINCIPAL", help="Instead, of a service: group:NAME.")
@click.option("--role", metavar="ROLE", default="editor", show_default=True, help="The most that it may do.")
@click.option("--days", type=int, metavar="N", help="Until it expires.  [default: never]")
@click.option("--requests-per-minute", type=int, metavar="N", help="At most.  [default: no limit]")
@click.option("--tokens-per-day", type=int, metavar="N", help="At most, read and written.  [default: no limit]")
@shared
def create_key(
    name: str,
    user: str | None,
    acts_as: tuple[str, ...],
    role: str,
    days: int | None,
    requests_per_minute: int | None,
    tokens_per_day: int | None,
    home: str | None,
    as_json: bool,
) -> None:
    """Make a key and show it, once; from then on the server asks everybody for one."""
    with open_workspace(home) as workspace:
        made, secret = workspace.identities.create_key(
            name,
            user=user,
            acts_as=acts_as,
            role=role,
            days=days,
            requests_per_minute=requests_per_minute,
            tokens_per_day=tokens_per_day,
        )
        workspace.audit.record("keys create", subject=name, role=made.role)
    if as_json:
        emit_json({"key": secret, "name": made.name, "role": made.role, "expires_at": made.expires_at})
        return
    say(secret, "bold")
    note("it is shown this once; a program takes it as its api_key")


@keys.command("revoke")
@click.argument("name")
@shared
def revoke_key(name: str, home: str | None, as_json: bool) -> None:
    """Make a key unknown, at once."""
    with open_workspace(home) as workspace:
        workspace.identities.revoke_key(name)
        workspace.audit.record("keys revoke", subject=name)
    if as_json:
        emit_json({"revoked": name})
    else:
        say(f"revoked {name}")


@keys.command("list")
@shared
def list_keys(home: str | None, as_json: bool) -> None:
    """List the keys; none of them is shown."""
    with open_workspace(home) as workspace:
        found = workspace.identities.keys()
    if as_json:
        emit_json({"keys": found})
    elif not found:
        say("no keys; the server asks nobody for one: graft keys create NAME")
    else:
        rows = [
            (k.name, k.user or ", ".join(sorted(k.principals or ())), k.role, k.expires_at or "never") for k in found
        ]
        show_table(["key", "acts as", "role", "expires"], rows)


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The last N.")
@shared
def audit(limit: int, home: str | None, as_json: bool) -> None:
    """Show who changed what: users, keys, files, jobs; the newest last."""
    with open_workspace(home) as workspace:
        found = workspace.audit.last(limit)
    if as_json:
        emit_json({"events": found})
    elif not found:
        say("nothing was changed through the server, and no user or key was made")
    else:
        rows = [(str(e["at"]), str(e["caller"]), str(e["what"]), _details(e)) for e in found]
        show_table(["at (UTC)", "who", "what", "on"], rows)


def _details(event: Mapping[str, Any]) -> str:
    told = {name: value for name, value in event.items() if name not in ("at", "caller", "what")}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _money(spent: float, budget: float | None) -> str:
    return f"${spent:.2f}" if budget is None else f"${spent:.2f} of ${budget:.2f}"


def _told(made: Any, words: str, as_json: bool) -> None:
    if as_json:
        emit_json({"user": made})
    else:
        say(words)


COMMANDS = (users, keys, audit)
