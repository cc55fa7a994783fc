"""docs/operation.md names nothing that does not exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from graft.cli import graft
from graft.server.metrics import Metrics
from graft.settings import ServingSettings, Settings, describe
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8")


def test_every_command_and_option_of_it_exists() -> None:
    lines = re.findall(r"^    (.*\bgraft (?:keys|users|audit|backup|restore|serve|worker)\b.*)$", TEXT, re.MULTILINE)
    tried = 0
    for line in lines:
        words = re.split(r"\bgraft (?=keys|users|audit|backup|restore|serve|worker)", line)[1].split()
        command: click.Command = graft
        while isinstance(command, click.Group) and words:
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
        tried += 1
    assert tried >= 11


def test_every_setting_and_figure_of_it_exists() -> None:
    serving = describe(Settings())["serving"]
    named = set(re.findall(r"`([a-z_]+)`", TEXT)) & {*serving, "max_upload_mb"}
    assert named >= {"parallel", "waiting", "lookups", "max_body_mb", "max_file_mb", "grace_seconds", "log"}
    assert "`worker = false`" in TEXT and "worker" in serving
    figures = Metrics()
    for name in ("answers", "lookups", "files"):
        figures.watch_line(name, lambda: 0)
    figures.watch_jobs(list)
    told = figures.text().decode()
    for figure in re.findall(r"`(graft_[a-z_]+)`", TEXT):
        assert figure.removesuffix("_total") in told, figure
    assert int(re.findall(r"client_max_body_size (\d+)m", TEXT)[0]) > ServingSettings().max_file_mb


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = TEXT.split("```ini\n")[1].split("```")[0].replace("/opt/graft/bin/graft", "/bin/true")
    path = tmp_path / "graft.service"
    path.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "graft.service" in line]
    assert not ours, done.stderr
