"""advise: what is needed, asked or read -> retrieval, tuning, both or neither, with costs."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from graft.cli.options import as_json_option
from graft.cli.output import emit_json, note
from graft.errors import UsageError

if TYPE_CHECKING:
    from graft.advising import Needs, Question


@click.command()
@click.option("--answers", metavar="FILE", help="Answers (TOML or JSON) instead of being asked.")
@click.option("--report", metavar="FILE", help="What `graft compare --json` measured: it outranks the rules.")
@click.option("--prices", metavar="FILE", help="Your prices (TOML) over those that Graft ships.")
@click.option("--example", is_flag=True, help="Print an answers file to edit, and nothing else.")
@as_json_option
def advise(answers: str | None, report: str | None, prices: str | None, example: bool, as_json: bool) -> None:
    """Recommend retrieval, tuning, both or neither, with the reasons, the costs, and what would settle it."""
    from graft import advising
    from graft.advising.needs import example_answers

    if example:
        emit_json(advising.Needs().to_json()) if as_json else click.echo(example_answers(), nl=False)
        return
    measured = advising.read_report(report) if report else None
    priced = advising.read_prices(prices) if prices else None
    again = "".join(f" {option} {shlex.quote(f)}" for option, f in (("--report", report), ("--prices", prices)) if f)
    needs = advising.read_needs(answers) if answers else _asked(as_json, again)
    advice = advising.advise(needs, measured, priced)
    if as_json:
        emit_json(advice.to_json())
        return
    from graft.cli.advise_output import show_advice

    show_advice(advice)


def _asked(as_json: bool, again: str) -> Needs:
    """The answers of whoever sits at the terminal.

    Args:
        again: The other options of the command.
    Raises:
        UsageError: Nobody does.
    """
    from graft.advising import QUESTIONS, Needs, needs_from

    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nobody is here to be asked, and --answers names no file",
            fix=f"graft advise --example > answers.toml, edit it, and graft advise --answers answers.toml{again}",
        )
    usual = Needs()
    note("Enter keeps what stands in brackets; Ctrl-C ends.")
    deciding = [question for question in QUESTIONS if question.deciding]
    found = {question.key: _ask(question, getattr(usual, question.key)) for question in deciding}
    if click.confirm("Answer what only the estimate of costs needs, too?", default=False, err=True):
        others = (question for question in QUESTIONS if not question.deciding)
        found |= {question.key: _ask(question, getattr(usual, question.key)) for question in others}
    return needs_from(found)


def _ask(question: Question, usual: object) -> object:
    """One question, until its answer is one that exists."""
    from graft.advising.needs import checked

    def read(said: str) -> object:
        value: object = said
        if question.kind == "several":
            value = [] if said == "none" else [one.strip() for one in said.split(",") if one.strip()]
        elif question.kind == "number":
            plain = said.replace(",", "").replace("_", "").removeprefix("$")
            try:
                value = float(plain)
            except ValueError:
                raise click.BadParameter(f"{said!r} is not a number") from None
        try:
            return checked(question, value)
        except UsageError as error:
            raise click.BadParameter(error.message) from None

    shown = (
        ", ".join(usual) or "none"
        if isinstance(usual, tuple)
        else f"{usual:,}"
        if question.kind == "number"
        else usual
    )
    several = " (several, with commas between, or none)" if question.kind == "several" else ""
    choices = f" ({'/'.join(question.choices)})" if question.choices else ""
    text = question.asked + choices + several
    return click.prompt(text, default=shown, value_proc=read, err=True, show_default=bool(shown))


COMMANDS = (advise,)
