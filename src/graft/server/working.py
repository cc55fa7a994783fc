"""Queued jobs -> a process of their own beside the server: a training must not slow down the answers' interpreter.

It is `graft worker --once`, started when a job waits and none is at work; told to end, it queues its job again. It
does not know what jobs do.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from graft.server.log import LOG
from graft.workspace import Workspace

_LOOK_S, _LOOK_ANYWAY_S = 0.5, 60.0
"""Between two looks whether a job was queued here, and whether one was queued elsewhere or left behind."""
_NICENESS = 10
"""Whoever asks a question waits for it; nobody sits before a training."""
_END_S = 20.0


class Worker:
    """The server's worker process.

    Args:
        enabled: False where `graft worker` is run by somebody else.
    """

    def __init__(self, workspace: Workspace, *, enabled: bool) -> None:
        self._workspace, self._enabled = workspace, enabled
        self._wanted = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def wanted(self) -> None:
        """A job waits. For any thread."""
        self._wanted.set()

    async def care(self) -> None:
        """Keep a process at work while jobs wait, until this is cancelled."""
        if not self._enabled:
            return
        since_look = _LOOK_ANYWAY_S
        while True:
            at_work = self._process is not None and self._process.poll() is None
            died = self._process is not None and self._process.poll() not in (None, 0)
            if not at_work and (died or self._wanted.is_set() or since_look >= _LOOK_ANYWAY_S):
                self._process = None
                self._wanted.clear()
                since_look = 0.0
                if await asyncio.to_thread(self._waits):
                    await asyncio.to_thread(self._start)
            await asyncio.sleep(_LOOK_S)
            since_look += _LOOK_S

    def close(self, seconds: float = _END_S) -> None:
        """End the process; its job is queued again, and goes on after its last checkpoint.

        Args:
            seconds: It has to end; after that it is killed, and its job is found and queued again by the next one.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _waits(self) -> bool:
        return self._workspace.jobs.some_wait()

    def _start(self) -> None:
        home: Path = self._workspace.home
        command = [sys.executable, "-m", "graft", "worker", "--once", "--json", "--home", str(home)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the server's to hand on
            )
        except OSError as error:
            LOG.error("no worker could be started: %s", error.strerror)
            return
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        LOG.info("worker=%s started", self._process.pid)
