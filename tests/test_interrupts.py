"""Signals that must not be lost, whatever they meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from graft import interrupts
from graft.cli import main
from graft.errors import GraftError
from graft.jobs import Jobs, JobStatus
from graft.workspace import Workspace


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    with interrupts.heeded():  # what came is of this test alone
        pass


pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to oneself")


def test_a_signal_is_an_interrupt_and_is_remembered_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupts.heeded(signal.SIGTERM):
        assert not interrupts.came()
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.came() and signal.getsignal(signal.SIGTERM) is before
    with interrupts.heeded(signal.SIGTERM):
        assert not interrupts.came()
        interrupts.check()


def test_one_that_was_swallowed_is_raised_at_the_next_check() -> None:
    with interrupts.heeded(signal.SIGTERM):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_one_that_is_put_off_comes_once_what_was_built_stands() -> None:
    built = []
    with interrupts.heeded(signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt), interrupts.put_off():
            signal.raise_signal(signal.SIGTERM)
            built.append("whole")
        assert built == ["whole"]


def test_a_job_that_turned_the_interrupt_into_another_failure_waits_in_the_queue(tmp_path: Path) -> None:
    def imports_a_native_module(run: object, payload: object) -> dict[str, object]:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        raise AssertionError("the signal did not come")

    jobs = Jobs(tmp_path, "", {"imports": imports_a_native_module})
    job = jobs.submit("imports", {}, title="x")
    with pytest.raises(KeyboardInterrupt), interrupts.heeded(signal.SIGTERM):
        jobs.work()
    assert jobs.get(job.id).status is JobStatus.QUEUED
    jobs.close()


def test_the_command_line_says_interrupted_whatever_became_of_the_interrupt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def turned(self: Workspace) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise GraftError("no such thing", fix="none") from None

    monkeypatch.setattr(Workspace, "collections", turned)
    with pytest.raises(SystemExit) as left:
        main(["--home", str(tmp_path), "collections", "list"])
    assert left.value.code == 130 and "interrupted" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_that_is_interrupted_while_it_loads_ends_the_process(models: Path) -> None:
    """Torn down before it was up, llama.cpp's server waited for itself for ever."""
    weights = next(models.rglob("smollm2*/*.gguf"))
    script = (
        "import signal\n"
        "from pathlib import Path\n"
        "from graft import interrupts\n"
        "from graft.models.llama import LlamaModel\n"
        "import xllamacpp\n"
        "real = xllamacpp.Server\n"
        "def signalled(params):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    server = real(params)\n"
        "    print('up')\n"
        "    return server\n"
        "xllamacpp.Server = signalled\n"
        "with interrupts.heeded(signal.SIGTERM):\n"
        f"    LlamaModel(Path({str(weights)!r})).count_tokens([])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode and "KeyboardInterrupt" in done.stderr and done.stdout == "up\n", done
