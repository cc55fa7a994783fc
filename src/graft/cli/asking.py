"""search, ask, chat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from graft.cli.options import as_option, collection_option, open_workspace, shared
from graft.cli.output import console, counted, emit_json, note, safe, say, show_answer, show_error, show_hits

if TYPE_CHECKING:
    from graft.answering import Answer
    from graft.models import Message
    from graft.workspace import Workspace


@click.command()
@click.argument("question", metavar="QUERY")
@click.option("-k", "k", type=int, help="Most hits.  [default: 10]")
@collection_option
@as_option
@shared
def search(
    question: str, k: int | None, collection: str | None, who: tuple[str, ...], home: str | None, as_json: bool
) -> None:
    """Find the passages that bear on a question."""
    with open_workspace(home, who) as workspace:
        result = workspace.search(question, k=k, collection=collection)
        any_documents = bool(result.hits) or any(c.documents for c in workspace.collections())
        folder = workspace.home
    if as_json:
        emit_json({"hits": result.hits, "latency_ms": result.latency_ms})
        return
    if not result.hits:
        say("nothing found" if any_documents else f"no documents yet in {folder}; add some: graft add FOLDER")
        return
    show_hits(result.hits, question)
    note(
        f"{counted(len(result.hits), 'passage')}, best first (score from 0 to 1), in {result.latency_ms.total:.0f} ms"
    )


@click.command()
@click.argument("question")
@click.option("--model", "-m", metavar="M", help="Name from `graft models list`, or litellm/PROVIDER/MODEL.")
@click.option("--no-retrieval", is_flag=True, help="Ask the model alone; nothing is cited.")
@click.option("--strict", is_flag=True, help="Leave out every statement that is not supported.")
@collection_option
@as_option
@shared
def ask(
    question: str,
    model: str | None,
    no_retrieval: bool,
    strict: bool,
    collection: str | None,
    who: tuple[str, ...],
    home: str | None,
    as_json: bool,
) -> None:
    """Answer a question from the documents, with checked citations."""
    with open_workspace(home, who) as workspace:
        answer = _answer(
            workspace,
            question,
            live=not as_json,
            model=model,
            retrieval=not no_retrieval,
            strict=strict,
            collection=collection,
        )
    if as_json:
        emit_json(answer_json(answer))
    else:
        show_answer(answer)


@click.command()
@click.option("--model", "-m", metavar="M", help="Name from `graft models list`, or litellm/PROVIDER/MODEL.")
@click.option("--strict", is_flag=True, help="Leave out every statement that is not supported.")
@collection_option
@as_option
@shared
def chat(
    model: str | None, strict: bool, collection: str | None, who: tuple[str, ...], home: str | None, as_json: bool
) -> int:
    """Ask in turns: a follow-up is understood from what went before.

    One question a line; /new forgets the conversation, /quit or Ctrl-D ends it.
    """
    from graft.errors import GraftError
    from graft.models import Message

    history: list[Message] = []
    turns: list[dict[str, Any]] = []
    failed = False
    with open_workspace(home, who) as workspace:
        if not as_json and sys.stdin.isatty():
            note("one question a line; /new forgets the conversation, /quit ends it")
        while (question := _next_question(prompt=not as_json)) not in (None, "/quit"):
            if question == "/new":
                history.clear()
            if not question or question == "/new":
                continue
            options = {"model": model, "strict": strict, "collection": collection, "history": tuple(history)}
            try:
                answer = _answer(workspace, question, live=not as_json, **options)
            except GraftError as error:  # the conversation goes on: what was said before is not lost
                failed = True
                turns.append({"question": question, "error": error.message, "fix": error.fix})
                show_error(error.message, error.fix, as_json=False)
                continue
            history += [Message("user", answer.question), Message("assistant", answer.text)]
            turns.append(answer_json(answer))
            if not as_json:
                if answer.question != question:
                    note(f"understood as: {answer.question}")
                show_answer(answer)
                say("")
    if as_json:
        emit_json({"turns": turns})
    return 1 if failed else 0


def _next_question(*, prompt: bool) -> str | None:
    """The next line of standard input, or None at its end."""
    if prompt and sys.stdin.isatty():
        try:
            return input("> ").strip()
        except EOFError:
            return None
    line = sys.stdin.readline()
    return line.strip() if line else None


def _answer(workspace: Workspace, question: str, *, live: bool, **options: Any) -> Answer:
    """Show the draft while it is written, if somebody looks; it gives way to the checked answer."""
    from graft.models import drain

    stream = workspace.ask_stream(question, **options)
    if not live or not sys.stdout.isatty():
        return drain(stream)
    from rich.live import Live
    from rich.text import Text

    draft: list[str] = []
    with Live(Text("…", style="dim"), console=console(), transient=True, refresh_per_second=8) as shown:

        def tell(piece: str) -> None:
            draft.append(piece)
            shown.update(Text(safe("".join(draft)), style="dim"))

        return drain(stream, tell)


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer in the form that the command line promises."""
    return {
        "answer": answer.text,
        "abstained": answer.abstained,
        "mode": answer.mode,
        "reason": answer.reason,
        "question": answer.question,
        "draft": answer.draft,
        "citations": answer.citations,
        "hits": answer.hits,
        "model": answer.model,
        "usage": answer.usage,
        "latency_ms": answer.latency_ms,
        "cost_usd": answer.cost_usd,
    }


COMMANDS = (search, ask, chat)
