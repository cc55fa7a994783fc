"""Hostile files: each is refused with its own message, and the next good file is read by the same reader."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docx
import openpyxl
import pytest

from graft.errors import GraftError, LimitExceeded, ReadError
from graft.readers import SandboxedReader, check_size
from graft.readers.wire import Frame, Garbled, document_of, receive
from graft.settings import ReadingSettings

# Small limits, so that the bombs stay small too; the mechanisms are those of the defaults.
SETTINGS = ReadingSettings(
    max_seconds=5, max_memory_mb=1000, max_archive_mb=100, max_archive_entries=500, max_pages=20
)


@pytest.fixture(scope="module")
def reader() -> Iterator[SandboxedReader]:
    with SandboxedReader(SETTINGS) as opened:
        yield opened


def refuse(reader: SandboxedReader, data: bytes, name: str, message: str, kind: type[GraftError]) -> GraftError:
    """Assert how a file is refused, within the time limit, and that the same reader reads on."""
    began = time.monotonic()
    with pytest.raises(kind, match=message) as caught:
        reader.read(data, name=name)
    assert time.monotonic() - began < SETTINGS.max_seconds + 5
    assert caught.value.fix
    assert reader.read(b"The next file.", name="next.txt").text == "The next file."
    return caught.value


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def word(body: bytes, prologue: bytes = b"", **others: bytes) -> bytes:
    namespace = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    document = prologue + b"<w:document " + namespace + b"><w:body>" + body + b"</w:body></w:document>"
    return zip_of({"word/document.xml": document, **others})


def workbook() -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active["A1"] = "value"
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def with_member(archive: bytes, name: str, change: tuple[bytes, bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        members = {entry: source.read(entry) for entry in source.namelist()}
    assert change[0] in members[name]
    members[name] = members[name].replace(*change)
    return zip_of(members)


def pdf_with_stream(content: bytes) -> bytes:
    """A PDF of one page whose drawing commands unpack to `content`."""
    packed = zlib.compress(content, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed),
    ]
    out = b"%PDF-1.4\n"
    for number, content in enumerate(objects, start=1):
        out += b"%d 0 obj%b\nendobj\n" % (number, content)
    return out + b"trailer<</Root 1 0 R/Size 5>>\n%%EOF"


# ---- archives


def test_a_zip_bomb_is_refused_by_its_unpacked_size(reader: SandboxedReader) -> None:
    bomb = word(b"", **{"word/media.bin": bytes(150_000_000)})
    assert len(bomb) < 200_000
    refuse(reader, bomb, "bomb.docx", r"bomb\.docx unpacks to 150 MB, the limit is 100 MB", LimitExceeded)


def test_a_zip_bomb_is_refused_by_its_ratio(reader: SandboxedReader) -> None:
    bomb = word(b"", **{"word/media.bin": bytes(50_000_000)})
    refuse(reader, bomb, "bomb.docx", r"bomb\.docx is packed 1,0\d\d : 1, the limit is 200 : 1", LimitExceeded)


def test_an_archive_of_very_many_members_is_refused(reader: SandboxedReader) -> None:
    many = word(b"", **{f"word/{i}": b"" for i in range(600)})
    refuse(reader, many, "many.docx", r"many\.docx holds 601 packed members, the limit is 500", LimitExceeded)


def test_an_archive_that_lies_about_its_sizes_is_damaged_not_unpacked(reader: SandboxedReader) -> None:
    honest = word(b"<w:p><w:r><w:t>text</w:t></w:r></w:p>" + b" " * 90_000_000)
    size = zipfile.ZipFile(io.BytesIO(honest)).getinfo("word/document.xml").file_size
    lying = honest.replace(struct.pack("<I", size), struct.pack("<I", 1000))
    assert lying != honest
    refuse(reader, lying, "lying.docx", r"lying\.docx", ReadError)


def test_archives_inside_an_archive_are_never_opened(reader: SandboxedReader) -> None:
    inner = zip_of({"zeros": bytes(90_000_000)})
    nested = word(b"<w:p><w:r><w:t>Only this.</w:t></w:r></w:p>", **{"word/embeddings/inner.zip": inner})
    assert reader.read(nested, name="nested.docx").text == "Only this."
    refuse(reader, zip_of({"inner.zip": inner}), "nested.zip", r"nested\.zip is a zip archive", ReadError)


def test_an_encrypted_office_file_says_so(reader: SandboxedReader) -> None:
    compound = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    refuse(reader, compound, "secret.docx", r"secret\.docx is encrypted with a password", ReadError)


# ---- XML

LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%b">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]>"
)
EXTERNAL = b'<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>'
TEXT = b"<w:p><w:r><w:t>%b</w:t></w:r></w:p>"


@pytest.mark.parametrize(
    "document",
    [
        word(TEXT % b"&j;", LAUGHS),
        word(TEXT % b"&file;", EXTERNAL),
        word(TEXT % b"text", b"<!-- " + b"x" * 200_000 + b" -->" + EXTERNAL),
        word(TEXT % b"text", **{"word/styles.xml": EXTERNAL + b"<x/>"}),
        zip_of({"word/document.xml": (EXTERNAL + b"<x>&file;</x>").decode().encode("utf-16")}),
    ],
    ids=["laughs", "external", "after a long comment", "in the styles", "in UTF-16"],
)
def test_a_word_file_that_declares_entities_is_refused(reader: SandboxedReader, document: bytes) -> None:
    refuse(reader, document, "a.docx", r"a\.docx \(word/.*\.xml\) declares an XML document type", ReadError)


def test_a_workbook_that_declares_entities_is_refused(reader: SandboxedReader) -> None:
    sheet = "xl/worksheets/sheet1.xml"
    hostile = with_member(workbook(), sheet, (b"<worksheet", EXTERNAL + b"<worksheet"))
    refuse(reader, hostile, "a.xlsx", r"a\.xlsx \(xl/worksheets/sheet1\.xml\) declares", ReadError)


def test_a_workbook_with_cells_in_far_corners_is_refused(reader: SandboxedReader) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active["A1"], book.active["XFD1048576"] = 1, 2
    file = io.BytesIO()
    book.save(file)
    refuse(reader, file.getvalue(), "far.xlsx", r"far\.xlsx", GraftError)


# ---- nesting, memory, time


def test_deeply_nested_html_does_not_end_the_program(reader: SandboxedReader) -> None:
    deep = b"<div>" * 300_000 + b"the bottom"
    try:
        assert reader.read(deep, name="deep.html").text == "the bottom"
    except (LimitExceeded, ReadError) as error:
        assert "deep.html" in error.message
    assert reader.read(b"The next file.", name="next.txt").text == "The next file."


def test_deeply_nested_xml_is_refused(reader: SandboxedReader) -> None:
    deep = word(b"<w:sdt>" * 100_000 + b"</w:sdt>" * 100_000)
    refuse(reader, deep, "deep.docx", r"deep\.docx is nested too deeply", ReadError)


def test_deeply_nested_markdown_is_read_or_refused(reader: SandboxedReader) -> None:
    refused_or_read = b"> " * 50_000 + b"text"
    try:
        assert "text" in reader.read(refused_or_read, name="deep.md").text
    except GraftError as error:
        assert "deep.md" in error.message
    assert reader.read(b"The next file.", name="next.txt").text == "The next file."


def test_a_pdf_that_unpacks_to_very_much_is_stopped_by_memory_or_time(reader: SandboxedReader) -> None:
    bomb = pdf_with_stream(b"BT /F 12 Tf (" + b"A" * 700_000_000 + b") Tj ET")
    assert len(bomb) < 1_000_000
    error = refuse(reader, bomb, "bomb.pdf", r"bomb\.pdf", GraftError)
    assert any(words in error.message for words in ("1000 MB of memory", "takes more than 5 s", "holds no text"))


def test_a_file_that_takes_too_long_is_stopped() -> None:
    slow = pdf_with_stream(b"BT /F 12 Tf (a) Tj ET\n" + b"q 1 0 0 1 0 0 cm BT /F 9 Tf (a) Tj ET Q\n" * 1_500_000)
    with SandboxedReader(replace(SETTINGS, max_seconds=1)) as reader:
        with pytest.raises(LimitExceeded, match=r"reading slow\.pdf takes more than 1 s") as caught:
            reader.read(slow, name="slow.pdf")
        assert "max_seconds" in caught.value.fix
        assert reader.read(b"The next file.", name="next.txt").text == "The next file."


def test_too_many_pages_and_characters_are_refused(reader: SandboxedReader) -> None:
    from reportlab.pdfgen.canvas import Canvas

    file = io.BytesIO()
    canvas = Canvas(file)
    for _ in range(21):
        canvas.drawString(72, 700, "page")
        canvas.showPage()
    canvas.save()
    refuse(reader, file.getvalue(), "long.pdf", r"long\.pdf has 21 pages, the limit is 20", LimitExceeded)
    with SandboxedReader(replace(SETTINGS, max_characters=100)) as strict:
        for name in ("a.txt", "a.md", "a.html", "a.csv"):
            with pytest.raises(LimitExceeded, match=f"{name} has more than 100 characters"):
                strict.read(b"word " * 100, name=name)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, reader: SandboxedReader) -> None:
    large = tmp_path / "large.pdf"
    with large.open("wb") as file:
        file.truncate(300_000_000)  # sparse: takes no disk
    with pytest.raises(LimitExceeded, match=r"large\.pdf has 300 MB, the limit is 200 MB") as caught:
        check_size(large, SETTINGS)
    assert "max_file_mb" in caught.value.fix
    with pytest.raises(ReadError, match="cannot be opened"):
        check_size(tmp_path / "missing.pdf", SETTINGS)
    with pytest.raises(ReadError, match="not a regular file"):
        check_size(tmp_path, SETTINGS)
    with (
        pytest.raises(LimitExceeded, match="has 2 MB, the limit is 1 MB"),
        SandboxedReader(ReadingSettings(max_file_mb=1)) as small,
    ):
        small.read(bytes(2_000_000), name="a.txt")


# ---- the process


def test_one_process_reads_many_files_and_is_replaced_when_it_dies(reader: SandboxedReader) -> None:
    reader.read(b"one", name="a.txt")
    worker = reader._worker
    reader.read(b"two", name="b.txt")
    assert worker is not None and reader._worker is worker
    worker._process.kill()
    with pytest.raises(GraftError, match=r"c\.txt"):
        reader.read(b"three", name="c.txt")
    assert reader.read(b"four", name="d.txt").text == "four"


def test_a_crash_of_the_process_names_the_file_and_the_signal(reader: SandboxedReader) -> None:
    reader.read(b"one", name="a.txt")
    assert reader._worker is not None
    os.kill(reader._worker._process.pid, 11)
    with pytest.raises(ReadError, match=r"reading b\.txt crashed the reading process \(SIGSEGV\)"):
        reader.read(b"two", name="b.txt")
    assert reader.read(b"three", name="c.txt").text == "three"


def test_the_worker_gets_no_secrets_and_may_write_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with SandboxedReader(SETTINGS) as reader:
        reader.read(b"one", name="a.txt")
        assert reader._worker is not None
        process = Path(f"/proc/{reader._worker._process.pid}")
        if not process.is_dir():
            pytest.skip("no /proc on this system")
        assert b"sk-secret" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
    rows = {line[:25].strip(): line[25:].split()[:2] for line in limits.splitlines()}
    assert rows["Max file size"] == ["0", "0"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max address space"] == ["1000000000", "1000000000"]


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, reader: SandboxedReader) -> None:
    with SandboxedReader(SETTINGS) as broken:
        monkeypatch.setenv("PYTHONHOME", "/nowhere")
        with pytest.raises(ReadError, match=r"the reading process cannot be started: .*encodings") as caught:
            broken.read(b"one", name="a.txt")
        assert "reinstall" in caught.value.fix
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ReadError, match=r"the reading process cannot be started: .*No such file"):
            broken.read(b"one", name="a.txt")
        monkeypatch.undo()
        assert broken.read(b"one", name="a.txt").text == "one"


def test_several_threads_may_share_a_reader(reader: SandboxedReader) -> None:
    texts: dict[int, str] = {}

    def read(number: int) -> None:
        texts[number] = reader.read(f"text {number}".encode(), name=f"{number}.txt").text

    threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: f"text {number}" for number in range(20)}


def test_the_worker_ends_with_the_program_even_if_that_is_killed() -> None:
    script = (
        "import os, signal; from graft.readers import SandboxedReader; r = SandboxedReader();"
        "r.read(b'x', name='a.txt'); print(r._worker._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    worker = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"worker {worker} outlived its program")


def test_a_worker_that_is_killed_takes_along_what_it_started(tmp_path: Path) -> None:
    """A third-party reader may start a program, and be stuck with it."""
    package = tmp_path / "stuck"
    package.mkdir()
    (package / "stuck.py").write_text(
        "import subprocess, sys, time\n"
        "def read(data, *, name, limits):\n"
        "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    time.sleep(60)\n"
    )
    info = package / "stuck-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graft.readers]\nstuck = stuck\n")
    script = (
        "import os, sys; from graft.errors import GraftError; from graft.readers import SandboxedReader\n"
        "from graft.settings import ReadingSettings\n"
        "with SandboxedReader(ReadingSettings(max_seconds=2)) as r:\n"
        "    r.read(b'x', name='a.txt'); print(r._worker._process.pid, flush=True)\n"
        "    try:\n"
        "        r.read(b'x', name='a.stuck')\n"
        "    except GraftError as error:\n"
        "        print(error.message)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path[1:]])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    group, message = done.stdout.splitlines()
    assert message == "reading a.stuck takes more than 2 s"
    for _ in range(100):
        try:
            os.killpg(int(group), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("what the worker started outlived it")


def test_the_worker_is_in_a_network_of_its_own(reader: SandboxedReader) -> None:
    reader.read(b"one", name="a.txt")
    assert reader._worker is not None
    try:
        theirs, ours = (Path(f"/proc/{p}/ns/net").readlink() for p in (reader._worker._process.pid, "self"))
    except OSError:
        pytest.skip("no /proc on this system, or another user's")
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody give up its network")
    assert theirs != ours


def test_ctrl_c_prints_nothing_from_the_worker() -> None:
    script = (
        "import os, signal, time; from graft.readers import SandboxedReader\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it\n"
        "with SandboxedReader() as r:\n"
        "    r.read(b'x', name='a.txt')\n"
        "    try:\n"
        "        os.killpg(0, signal.SIGINT); time.sleep(5)\n"
        "    except KeyboardInterrupt:\n"
        "        print(r.read(b'still here', name='b.txt').text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert (done.stdout, done.stderr) == ("still here\n", "")


# ---- what comes back is not trusted


def frame_bytes(header: dict[str, object], *blobs: bytes) -> io.BytesIO:
    encoded = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    return io.BytesIO(struct.pack(">I", len(encoded)) + encoded + b"".join(blobs))


@pytest.mark.parametrize(
    "stream",
    [
        io.BytesIO(struct.pack(">I", 2_000_000_000)),
        io.BytesIO(struct.pack(">I", 2) + b"[]"),
        io.BytesIO(struct.pack(">I", 9) + b"not JSON!"),
        frame_bytes({}, b"more than ten bytes"),
        io.BytesIO(struct.pack(">I", 200_000) + b"[" * 200_000),
    ],
    ids=["huge header", "a list", "no JSON", "too long", "nested deeply"],
)
def test_a_garbled_frame_is_refused(stream: io.BytesIO) -> None:
    with pytest.raises(Garbled):
        receive(stream, max_bytes=10)


def int64(*values: int) -> bytes:
    return struct.pack(f"{len(values)}q", *values)


@pytest.mark.parametrize(
    "blobs",
    [
        (b"\xff", b"", b""),
        (b"text", int64(0, 9, 0, 0), b""),
        (b"text", int64(0, 4, 99, 0), b""),
        (b"text", int64(0, 4), b""),
        (b"text", b"", b"", bytes(16 * 3)),
        (b"  ", b"", b""),
        (b"text" * 30, b"", b""),
        (b"text",),
    ],
    ids=[
        "no UTF-8",
        "block beyond the text",
        "unknown kind",
        "odd blocks",
        "boxes of another text",
        "blank",
        "long",
        "few",
    ],
)
def test_an_impossible_document_is_refused(blobs: tuple[bytes, ...]) -> None:
    with pytest.raises(Garbled):
        document_of(Frame({"format": "text", "metadata": {}}, blobs), max_characters=100)


def test_a_word_file_made_by_a_real_program_passes_every_check(reader: SandboxedReader) -> None:
    document = docx.Document()
    document.add_paragraph("An honest file.")
    file = io.BytesIO()
    document.save(file)
    assert reader.read(file.getvalue(), name="honest.docx").text == "An honest file."
