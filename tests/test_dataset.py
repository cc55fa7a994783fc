"""Files of examples: every line becomes an example or a finding, and every planted defect is found."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from graft.dataset import Example, Finding, read_examples, write_examples
from graft.dataset.checking import Against, CheckReport, check
from graft.dataset.personal import find_personal
from graft.errors import GraftError, LimitExceeded, ReadError, UsageError
from graft.models import Message
from graft.settings import DatasetSettings

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes lines, each an object or raw text, as a file."""

    def put(lines: Iterable[Any], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    return put


def chat(asked: str, answer: str, **extra: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **extra}


def codes(findings: Iterable[Finding]) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for finding in findings:
        assert finding.message and finding.fix
        found.setdefault(finding.code, []).append(finding.line)
    return found


DIFFERENT = (
    "The bicycle in the shed has a flat tyre and needs a new inner tube.",
    "Our quarterly figures were presented by the finance team on Monday.",
    "Please translate the menu of the restaurant for the guests from Spain.",
    "Which medicine helps against hay fever without making me drowsy?",
    "A volcano erupted on the island and flights had to be diverted.",
    "How do I prune roses in early spring so that they flower well?",
)


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
                {"role": "assistant", "content": "4"},
            ]
        },
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": [{"role": "user", "content": "2 + 2?"}], "completion": [{"role": "assistant", "content": "4"}]},
        {"instruction": "2 + 2?", "input": "", "output": "4"},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ],
)
def test_every_usual_shape_is_read_as_the_same_conversation(put: Put, line: dict[str, Any]) -> None:
    (example,) = read_examples(put([{**line, "id": "a", "source": "sums.pdf", "kind": "short"}])).examples
    assert example.messages == (Message("user", "2 + 2?"), Message("assistant", "4"))
    assert (example.id, example.source, example.origin) == ("a", "sums.pdf", "train.jsonl:1")
    assert example.extra == {"kind": "short"}


def test_a_json_array_and_a_gzipped_file_are_read_with_their_lines(put: Put, tmp_path: Path) -> None:
    array = put(["[", json.dumps(chat("2 + 2?", "4")) + ",", json.dumps(chat("3 + 3?", "6")), "]"], "sums.json")
    assert [example.origin for example in read_examples(array).examples] == ["sums.json:2", "sums.json:3"]
    packed = tmp_path / "sums.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(chat("2 + 2?", "4")).encode()))
    assert read_examples(packed).examples[0].answer == "4"
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(ReadError, match="damaged"):
        read_examples(packed)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_columns_are_guessed_and_said_or_mapped(put: Put, delimiter: str) -> None:
    rows = [["nr", "text", "category"], ["1", f'"Wo ist{delimiter} meine\nKarte?"', "card"], ["2", "Where?", "card"]]
    path = put([delimiter.join(row) for row in rows], "train.csv")
    reading = read_examples(path)
    assert [(e.prompt[0].content, e.answer, e.origin) for e in reading.examples] == [
        (f"Wo ist{delimiter} meine\nKarte?", "card", "train.csv:2"),
        ("Where?", "card", "train.csv:4"),
    ]
    assert codes(reading.findings) == {"columns-guessed": [None]}
    mapped = read_examples(path, mapping={"prompt": "category", "answer": "text", "id": "nr"})
    assert [e.id for e in mapped.examples] == ["1", "2"] and not mapped.findings
    with pytest.raises(UsageError, match="nowhere"):
        read_examples(path, mapping={"prompt": "nowhere", "answer": "text"})


def test_what_cannot_be_an_example_is_a_finding_with_its_line(put: Put) -> None:
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    lines: list[tuple[str, Any]] = [
        ("json", '{"messages": ['),
        ("json", '{"id": NaN}'),
        ("json", "[" * 100_000),
        ("format", {"prompt": "only"}),
        ("format", "[1, 2]"),
        ("format", {"chosen": "a", "rejected": "b", "prompt": "c"}),
        ("tool-calls", {"messages": [user, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}),
        ("tool-calls", {"messages": [user, {"role": "tool", "content": "3"}, assistant]}),
        ("tool-calls", {"messages": [user, assistant], "tools": [{"type": "function"}]}),
        ("role", {"messages": [user, {"role": "narrator", "content": "Once"}, assistant]}),
        ("roles-order", {"messages": [user, user, assistant]}),
        ("roles-order", {"messages": [user, {"role": "system", "content": "Be kind"}, assistant]}),
        ("roles-order", {"messages": [assistant]}),
        ("last-turn", {"messages": [user, assistant, user]}),
        ("empty-turn", {"messages": [user, {"role": "assistant", "content": "  "}]}),
        ("empty-turn", {"messages": [user, {"role": "assistant", "content": None}]}),
        ("not-text", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant]}),
        ("not-text", '{"prompt": "\\ud800", "completion": "x"}'),
    ]
    reading = read_examples(put([chat("first", "line"), *(line for _, line in lines)]))
    assert len(reading.examples) == 1
    expected: dict[str, list[int | None]] = {}
    for number, (code, _) in enumerate(lines, start=2):
        expected.setdefault(code, []).append(number)
    assert codes(reading.findings) == expected


def test_a_tool_call_is_said_with_what_to_do(put: Put) -> None:
    line = {"conversations": [{"from": "human", "value": "Rome?"}, {"from": "function_call", "value": "{}"}]}
    (finding,) = read_examples(put([line])).findings
    assert finding.code == "tool-calls" and "as JSON" in finding.fix


def test_bytes_that_are_not_utf8_are_found_at_their_offset(tmp_path: Path) -> None:
    good = json.dumps(chat("a", "b")).encode() + b"\n"
    path = tmp_path / "train.jsonl"
    path.write_bytes(good + b'{"prompt": "caf\xe9", "completion": "x"}\n' + good)
    reading = read_examples(path)
    (finding,) = reading.findings
    assert len(reading.examples) == 2 and (finding.code, finding.line) == ("utf8", 2)
    assert f"offset {len(good) + 15} " in finding.message
    path = tmp_path / "train.csv"
    path.write_bytes(b"text,label\ncaf\xe9,a\ntea,b\n")
    reading = read_examples(path)
    assert [e.answer for e in reading.examples] == ["b"] and codes(reading.findings)["utf8"] == [2]
    path.write_bytes("text,label\n".encode("utf-16"))
    with pytest.raises(ReadError, match="UTF-16"):
        read_examples(path)


def test_too_many_lines_are_refused_before_any_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with path.open("wb") as file:
        for _ in range(50):
            file.write(b"{}\n" * 100_000)
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match="more than 1,000,000 lines") as caught:
        read_examples(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6 and "max_examples" in caught.value.fix


@pytest.mark.slow
def test_a_line_of_a_gigabyte_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with path.open("wb") as file:
        file.write(json.dumps(chat("a", "b")).encode() + b"\n")
        file.seek(1 << 30, 1)  # a hole: read as a gigabyte of zeros, without a disk of it
        file.write(b"\n" + json.dumps(chat("c", "d")).encode())
    tracemalloc.start()
    reading = read_examples(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [e.answer for e in reading.examples] == ["b", "d"]
    assert codes(reading.findings) == {"line-too-long": [2]} and peak < 32e6


def test_an_unclosed_quote_is_a_finding_and_an_empty_file_too(put: Put) -> None:
    reading = read_examples(put(["text,label", "a,b", '"never closed,c', "d,e"], "train.csv"))
    assert [e.answer for e in reading.examples] == ["b"] and "csv" in codes(reading.findings)
    assert codes(read_examples(put(["text,label", "a,b,c"], "train.csv")).findings)["csv"] == [2]
    assert codes(read_examples(put([])).findings) == {"empty": [None]}
    with pytest.raises(ReadError, match="folder"):
        read_examples(put([]).parent)


def test_ids_are_unique_and_follow_the_content(put: Put) -> None:
    reading = read_examples(put([chat("a", "b"), chat("a", "b"), chat("c", "d", id="x"), chat("e", "f", id="x")]))
    first, again, given, twice = (example.id for example in reading.examples)
    assert again == f"{first}-2" and (given, twice) == ("x", "x-2")
    assert codes(reading.findings) == {"id-twice": [4]}


def test_what_is_written_is_read_back_with_where_it_came_from(put: Put, tmp_path: Path) -> None:
    examples = read_examples(put([chat("Größe?", "“XL”\n", id=7, source="a.pdf", kind="short")])).examples
    assert write_examples(tmp_path / "out.jsonl", examples) == 1
    (again,) = read_examples(tmp_path / "out.jsonl").examples
    assert (again.id, again.messages, again.source) == ("7", examples[0].messages, "a.pdf")
    assert again.extra == {"kind": "short", "origin": "train.jsonl:1"} and again.origin == "out.jsonl:1"


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("as it was")

    def examples() -> Iterable[Example]:
        yield Example(id="a", messages=(Message("user", "a"), Message("assistant", "b")))
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_examples(target, examples())
    assert target.read_text() == "as it was" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(ReadError):
        write_examples(tmp_path / "nowhere" / "out.jsonl", [])


def test_each_planted_defect_is_found_where_it_is_and_nothing_else(put: Put) -> None:
    clean = [chat(text, f"Noted: {text.split()[1]}.") for text in DIFFERENT]
    dev = put(
        [chat("Which medicine helps against hay fever, without making me drowsy?", "An antihistamine.", source="x")],
        "dev.jsonl",
    )
    planted = [
        chat(DIFFERENT[0], "Noted: bicycle."),  # 7
        chat(DIFFERENT[0].replace("needs a new", "needs new"), "Noted: bicycle."),
        chat(DIFFERENT[1], "Never heard of it."),
        chat(
            "Tell me of the moon.",
            "The moon is a satellite, and its surface is covered with craters, which are a result of the",
        ),
        chat("Give me the weather in Oslo as JSON.", '{"city": "Oslo", "sky": "gr'),
        chat("Give me the weather in Bergen as JSON, please do.", '{"city": "Bergen", "sky": grey}'),  # 12
        chat("Who is the owner of the red car in yard 3?", "Write to maria.lopez@acme.io or call +44 20 7946 0958."),
        chat("What is the key of the staging server?", "It is AKIAIOSFODNN7EXAMPLE."),
        chat("word " * 600, "A long one."),
        chat("Sum up chapter nine of that book.", "A chase.", source="x"),  # 16
    ]
    report = check(put([*clean, *planted]), Against(context_tokens=400, splits=[dev]))
    assert codes(report.findings) == {
        "duplicate": [7],
        "near-duplicate": [8],
        "conflict": [9],
        "truncated": [10, 11],
        "broken-json": [12],
        "personal-data": [13],
        "secret": [14],
        "too-long": [15],
        "leak-source": [16],
        "leak-split": [4],
    }
    assert not report.ok and report.severities["error"] == 4 and report.examples == 16
    (personal,) = (finding for finding in report.findings if finding.code == "personal-data")
    assert [(span.kind, span.turn) for span in personal.spans] == [("email", 1), ("phone", 1)]
    assert "maria.lopez" not in personal.message
    at = personal.spans[0]
    assert planted[6]["messages"][1]["content"][at.start : at.end] == "maria.lopez@acme.io"


def test_labels_are_counted_and_their_faults_named(put: Put) -> None:
    lines = [chat(f"{number} {DIFFERENT[number % 6]} {number * 7919}", "card") for number in range(60)]
    lines += [chat(f"Is my money safe with you in case {number * 104729}?", "Safety") for number in range(30)]
    lines += [chat("And who may look at what I keep there?", "safety "), chat("Where on earth is it?", "lost")]
    report = check(put(lines))
    assert report.labels == {"card": 60, "Safety": 30, "safety": 1, "lost": 1}
    assert {"rare-labels", "label-balance", "label-spelling"} <= report.counts.keys()
    alone = check(put([chat(f"{text} {number}", "yes") for number in range(5) for text in DIFFERENT]))
    assert "one-class" in alone.counts and not alone.ok


def test_a_real_tokenizer_decides_what_is_too_long(put: Put) -> None:
    calls: list[int] = []

    def count(messages: Any) -> int:
        calls.append(1)
        return sum(len(message.content.split()) for message in messages)

    lines = [chat(f"Case {number}: {DIFFERENT[number % 6]}", "Noted.") for number in range(2_000)]
    lines[1234] = chat("w " * 500, "Noted.")
    report = check(put(lines), Against(count_tokens=count, context_tokens=400, personal=False))
    assert codes(f for f in report.findings if f.code == "too-long") == {"too-long": [1235]}
    assert report.tokens is not None and report.tokens.max == 501 and not report.tokens.estimated
    assert len(calls) < 600  # a sample, and what may not fit


def test_a_benchmark_is_found_in_a_longer_prompt_and_reworded(put: Put) -> None:
    question = "Janet sells sixteen eggs a day at the market and eats three of them for breakfast every morning."
    bench = put(
        [{"question": question, "answer": "9"}, {"query": "Name the capital of that country."}], "bench.jsonl"
    )
    lines = [
        chat(DIFFERENT[0], "Yes."),
        chat(f"Think step by step, then answer. {question} How many are left?", "13"),
        chat(question.replace("the market", "this market"), "15"),
        chat("name the capital of that country", "Paris"),
    ]
    found = codes(check(put(lines), Against(benchmarks=[bench])).findings)
    assert found == {"leak-words": [2], "leak-benchmark-near": [3], "leak-benchmark": [4]}


def test_a_language_that_few_examples_have_is_noted(put: Put) -> None:
    lines = [
        chat(f"{text} It was the case number {number} of this week.", "ok")
        for number in range(10)
        for text in DIFFERENT
    ]
    lines.append(chat("Wo bleibt die Karte, die ich vor drei Wochen bei Ihnen bestellt habe?", "ok"))
    report = check(put(lines))
    assert report.languages["de"] == 1 and report.languages["en"] > 50
    assert codes(f for f in report.findings if f.code == "language") == {"language": [61]}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Mail me at jo.smith+work@mail.acme.co.uk now", ["email"]),
        ("my card is 4111 1111 1111 1111, thanks", ["card"]),
        ("IBAN: DE89 3704 0044 0532 0130 00.", ["iban"]),
        ("SSN 536-90-4399", ["social security number (US)"]),
        ("CPF 390.533.447-05", ["taxpayer number (BR)"]),
        ("DNI 54362315K", ["identity number (ES)"]),
        ("my mobile is 0171 3456789", ["phone"]),
        ("Call 212-555-2368 or (212) 555-2368.", ["phone", "phone"]),
        ("from 8.8.8.8 and 2001:4860:4860::8888", ["ip", "ip"]),
        ("password = hT7!kq92Lmz0", ["secret"]),
        ("token ghp_abcdefghijklmnopqrstuvwxyz0123456789", ["secret"]),
    ],
)
def test_personal_data_is_found(text: str, kinds: list[str]) -> None:
    assert [found.kind for found in find_personal(text)] == kinds


@pytest.mark.parametrize(
    "text",
    [
        "Order 4711-0815-2342 of 2024-11-23 costs 1,234,567.89 EUR (12.5% of 98765432).",
        "My order 4111111111111112 has not come.",  # fails the check digit
        "Version 10.2.3.4 listens on 192.168.1.10 and 127.0.0.1.",
        "Write to you@example.com. The password: must be changed every 90 days.",
        "ISBN 978-3-16-148410-0, page 100-110, room 305-306, 1990-2024.",
        "Call the meeting for 2021-03-25 at 10:30:00, in 20 7946 steps.",
        "pi is 3.14159265358979 and e is 2.718281828459045",
    ],
)
def test_ordinary_numbers_are_not_personal_data(text: str) -> None:
    assert find_personal(text) == []


def test_real_files_are_read_whole_and_checked_at_speed(data: Path) -> None:
    folder = data / "finetune"
    banking: CheckReport = check(folder / "banking77/train.csv", Against(splits=[folder / "banking77/test.csv"]))
    assert banking.examples == 10_003 and len(banking.labels) == 77 and not {"json", "csv"} & banking.counts.keys()
    assert banking.counts["leak-split"] > 5 and banking.counts["near-duplicate"] > 100
    assert "personal-data" not in banking.counts and banking.seconds < 60
    tickets = check(folder / "ticket_classification/train.tsv")
    assert (tickets.examples, len(tickets.labels), tickets.ok) == (68, 10, True)
    modes = check(folder / "json_mode/json_mode_dataset.jsonl")
    assert modes.examples == 500 and modes.shapes == {"chat": 500}
    assert read_examples(folder / "json_mode/json_mode_dataset.jsonl").examples[0].messages[0].role == "system"


def test_slots_and_intents_of_real_sets_are_checked_as_examples(data: Path) -> None:
    turns = json.loads((data / "finetune/restaurant8k/train_3.json").read_text())
    examples = []
    for number, turn in enumerate(turns):
        text = turn["userInput"]["text"]
        slots = {
            label["slot"]: text[label["valueSpan"].get("startIndex", 0) : label["valueSpan"]["endIndex"]]
            for label in turn.get("labels", ())
        }
        answer = Message("assistant", json.dumps(slots))
        examples.append(Example(id=str(number), messages=(Message("user", text), answer)))
    snips = json.loads((data / "finetune/snips/GetWeather/validate_GetWeather.json").read_text())["GetWeather"]
    for number, line in enumerate(snips):
        text = "".join(part["text"] for part in line["data"])
        examples.append(Example(id=f"s{number}", messages=(Message("user", text), Message("assistant", "weather"))))
    report = check(examples)
    assert report.examples == len(turns) + 100 and not {"broken-json", "truncated", "too-long"} & report.counts.keys()
    # numbers of guests and tables are no telephone numbers; the set itself holds some real ones
    told = [finding for finding in report.findings if finding.code == "personal-data"]
    assert {span.kind for finding in told for span in finding.spans} <= {"phone"}


def test_limits_come_from_the_settings(put: Put) -> None:
    path = put([chat(str(number), "x" * 2_000_000) for number in range(2)])
    with pytest.raises(LimitExceeded, match="1 MB"):
        read_examples(path, limits=DatasetSettings(max_file_mb=1))
    assert codes(read_examples(path, limits=DatasetSettings(max_line_mb=1)).findings) == {"line-too-long": [1, 2]}
    with pytest.raises(GraftError):
        check(path, mapping={"prompt": "a"})
