"""The general and the hosted trainer keep the contract; the hosted one against a real server on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from graft.errors import TrainingError, UsageError
from graft.testing.trainer import TrainerContract
from graft.training.checkpoint import load_tokenizer, open_checkpoint
from graft.training.encoding import encode
from graft.training.general import GeneralTrainer
from graft.training.hosted import HostedTrainer, unencoded
from graft.training.lean.trainer import LeanTrainer
from graft.training.opening import open_trainer
from graft.training.protocol import Trainer, TrainProgress, TrainRun
from graft.training.sharded import ShardedTrainer
from graft.training.states import CHECKPOINTS, CURVE
from tests.training_fixtures import examples, quick, small_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture
def run(base: Path, tmp_path: Path) -> TrainRun:
    made = encode(examples(12), load_tokenizer(open_checkpoint(base)), context_tokens=256).encoded
    settings = quick(evaluate_steps=1, epochs=1.5)
    return TrainRun(checkpoint=base, train=made[:8], dev=made[8:], settings=settings, folder=tmp_path / "run")


class TestGeneral(TrainerContract):
    @pytest.fixture
    def trainer(self) -> Trainer:
        return GeneralTrainer(device="cpu")

    def test_a_cancelled_run_goes_on_where_it_stopped(self, trainer: Trainer, run: TrainRun) -> None:
        seen: list[TrainProgress] = []
        stopped = trainer.train(run, progress=seen.append, cancelled=lambda: len(seen) == 2)
        assert stopped.stopped == "cancelled" and stopped.steps == 2
        result = trainer.train(run)
        assert result.resumed_from == 2 and result.steps == 3 and result.adapter is not None
        assert {path.name for path in result.adapter.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }

    def test_it_writes_nothing_to_stdout(
        self, trainer: Trainer, run: TrainRun, capfd: pytest.CaptureFixture[str]
    ) -> None:
        trainer.train(run)
        assert not capfd.readouterr().out

    def test_a_loss_that_is_no_number_stops_the_run(self, run: TrainRun) -> None:
        wild = dataclasses.replace(run.settings, learning_rate=1e30, max_grad_norm=0.0, warmup_share=0.0)
        with pytest.raises(TrainingError, match="no number"):
            GeneralTrainer(device="cpu").train(dataclasses.replace(run, settings=wild))

    def test_a_run_that_blows_up_keeps_no_spoilt_state(self, run: TrainRun) -> None:
        settings = dataclasses.replace(run.settings, learning_rate=1e30, max_grad_norm=0.0, checkpoint_steps=1)
        with pytest.raises(TrainingError, match=r"step 1 is kept") as caught:
            GeneralTrainer(device="cpu").train(dataclasses.replace(run, dev=(), settings=settings))
        assert "learning_rate" in caught.value.fix
        assert [path.name for path in (run.folder / CHECKPOINTS).glob("checkpoint-*")] == ["checkpoint-1"]

    def test_a_run_killed_in_the_middle_has_a_curve_without_repeats(self, base: Path, tmp_path: Path) -> None:
        done = in_a_process(
            base, tmp_path / "run", "GeneralTrainer(device='cpu')",
            "train(run, progress=lambda seen: os.kill(os.getpid(), 9) if seen.step == 5 else None)",
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
        run = run_in(base, tmp_path / "run")
        assert GeneralTrainer(device="cpu").train(run).resumed_from == 4
        lines = [json.loads(line) for line in (run.folder / CURVE).read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert [line["dev_loss"] is not None for line in lines] == [False, True] * 3

    def test_qlora_without_a_gpu_is_refused(self, run: TrainRun) -> None:
        wish = dataclasses.replace(run, settings=dataclasses.replace(run.settings, quantize=True))
        with pytest.raises(TrainingError, match="needs a GPU"):
            GeneralTrainer(device="cpu").train(wish)


class TestSharded(TrainerContract):
    @pytest.fixture
    def trainer(self) -> Trainer:
        return ShardedTrainer(2, device="cpu")

    def test_two_processes_reach_the_adapter_and_the_curve_of_one(
        self, trainer: Trainer, run: TrainRun, tmp_path: Path
    ) -> None:
        spread = ShardedTrainer(2, device="cpu", checkpointing=True).train(run)
        alone = dataclasses.replace(run, folder=tmp_path / "alone")
        single = GeneralTrainer(device="cpu").train(alone)
        assert spread.adapter is not None and single.adapter is not None
        assert (spread.step, spread.steps, spread.tokens) == (single.step, single.steps, single.tokens)
        ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (spread, single))
        assert ours.keys() == theirs.keys()
        assert all(np.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
        assert losses(run) == pytest.approx(losses(alone), abs=1e-5)
        assert {path.name for path in spread.adapter.iterdir()} == {path.name for path in single.adapter.iterdir()}

    def test_a_cancelled_run_goes_on_where_it_stopped(self, trainer: Trainer, run: TrainRun, tmp_path: Path) -> None:
        seen: list[TrainProgress] = []
        stopped = trainer.train(run, progress=seen.append, cancelled=lambda: len(seen) == 2)
        assert stopped.stopped == "cancelled" and stopped.steps == 2
        result = trainer.train(run)
        whole = GeneralTrainer(device="cpu").train(dataclasses.replace(run, folder=tmp_path / "whole"))
        assert result.resumed_from == 2 and result.dev_loss == pytest.approx(whole.dev_loss, abs=1e-5)

    def test_processes_end_with_their_caller(self, base: Path, tmp_path: Path) -> None:
        done = in_a_process(
            base, tmp_path / "run", "ShardedTrainer(2, device='cpu')",
            "train(run, progress=lambda seen: os.kill(os.getpid(), 9) if seen.step == 5 else None)",
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr[-500:]
        deadline = time.monotonic() + 20
        while left := workers():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        result = ShardedTrainer(2, device="cpu").train(run_in(base, tmp_path / "run"))
        assert result.resumed_from == 4 and result.steps == 6

    def test_one_process_that_dies_ends_the_others_with_an_error(self, trainer: Trainer, run: TrainRun) -> None:
        def kill_one(seen: TrainProgress) -> None:
            os.kill(workers()[-1], signal.SIGKILL)

        with pytest.raises(TrainingError, match=r"process \d of 2 ended with") as caught:
            trainer.train(run, progress=kill_one)
        assert "goes on from the last checkpoint" in caught.value.fix and not workers()

    def test_what_cannot_be_spread_is_refused(self, trainer: Trainer, run: TrainRun) -> None:
        for changed, said in (
            ({"quantize": True}, "one GPU"),
            ({"batch_size": 3}, "cannot be divided by shards = 2"),
        ):
            wish = dataclasses.replace(run, settings=dataclasses.replace(run.settings, **changed))
            with pytest.raises(TrainingError, match=said):
                trainer.train(wish)


def losses(run: TrainRun) -> list[float]:
    return [json.loads(line)["loss"] for line in (run.folder / CURVE).read_text().splitlines()]


def workers() -> list[int]:
    """Ids of the processes that train together."""
    mine = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if "graft.training.sharded_worker" in (process.info["cmdline"] or []):
            mine.append(process.info["pid"])
    return sorted(mine)


def run_in(base: Path, folder: Path) -> TrainRun:
    made = encode(examples(12), load_tokenizer(open_checkpoint(base)), context_tokens=256).encoded
    settings = quick(evaluate_steps=2, checkpoint_steps=2, epochs=3.0)
    return TrainRun(checkpoint=base, train=made[:8], dev=made[8:], settings=settings, folder=folder)


def in_a_process(base: Path, folder: Path, trainer: str, train: str) -> subprocess.CompletedProcess[str]:
    script = (
        "import os, resource, signal, sys; from pathlib import Path\n"
        "from tests.test_training_backends import GeneralTrainer, ShardedTrainer, run_in\n"
        "from graft.training.lean.trainer import LeanTrainer\n"
        "def limit(size):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        f"run = run_in(Path(sys.argv[1]), Path(sys.argv[2])); trainer = {trainer}\n"
        f"{train.replace('train(', 'trainer.train(')}\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(base), str(folder)],
        cwd=Path(__file__).parent.parent, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "bytes_left"),
    [("LeanTrainer()", 70_000), ("GeneralTrainer(device='cpu')", 40_000), ("GeneralTrainer(device='cpu')", 70_000)],
    ids=["lean, in the optimiser", "general, in the adapter", "general, in the optimiser"],
)
def test_a_disk_that_takes_no_more_is_told_and_a_later_call_finishes(
    base: Path, tmp_path: Path, trainer: str, bytes_left: int
) -> None:
    done = in_a_process(base, tmp_path / "run", trainer, f"limit({bytes_left}); train(run)")
    assert "graft.errors.TrainingError: " in done.stderr and "cannot be written" in done.stderr, done.stderr[-800:]
    assert "free space on that disk" in done.stderr
    result = (LeanTrainer() if trainer == "LeanTrainer()" else GeneralTrainer(device="cpu")).train(
        run_in(base, tmp_path / "run")
    )
    assert result.stopped == "finished" and result.resumed_from == 0 and result.steps == 6


@pytest.mark.parametrize("trainer", [LeanTrainer(), GeneralTrainer(device="cpu")])
def test_an_example_over_the_context_is_refused_by_every_trainer(run: TrainRun, trainer: Trainer) -> None:
    long = dataclasses.replace(run.train[0], tokens=list(run.train[0].tokens) * 12)
    with pytest.raises(TrainingError, match=r"context of 256 tokens; the longest, made\.jsonl:1") as caught:
        trainer.train(dataclasses.replace(run, train=(*run.train, long)))
    assert "--truncate" in caught.value.fix


def test_the_back_end_follows_the_settings(run: TrainRun) -> None:
    def named(**changes: Any) -> str:
        return open_trainer(dataclasses.replace(run, settings=dataclasses.replace(run.settings, **changes))).name

    assert named(backend="lean") == named(method="activated") == "lean"
    assert named(backend="general") == "general"
    with pytest.raises(UsageError, match="'fast' is not one of"):
        named(backend="fast")


class Provider(ThreadingHTTPServer):
    """Files, jobs and events as OpenAI's fine-tuning API has them; a job takes a step each time it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.fail = False

    def job(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        if job["status"] == "running":
            job["step"] += 1
            if job["step"] == 3:
                job["status"] = "failed" if self.fail else "succeeded"
                job["fine_tuned_model"] = None if self.fail else "ft:base:mine"
                job["error"] = {"code": "bad", "message": "no good", "param": None} if self.fail else None
        return {key: value for key, value in job.items() if key != "step"}

    def events(self, name: str) -> list[dict[str, Any]]:
        made = [
            {"id": f"e{step}", "object": "fine_tuning.job.event", "created_at": step, "level": "info",
             "message": f"Step {step}/3", "type": "metrics",
             "data": {"step": step, "train_loss": 3.0 - step, "total_steps": 3, "full_valid_loss": 2.5}}
            for step in range(1, self.jobs[name]["step"] + 1)
        ]  # fmt: skip
        return made[::-1]


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *_: Any) -> None:
        return

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != "Bearer secret":
            self._reply({"error": {"message": "wrong key"}}, status=401)
        elif self.path == "/v1/files":
            name = f"file-{len(self.server.files)}"
            self.server.files[name] = body
            self._reply({"id": name, "object": "file", "bytes": len(body), "created_at": 0, "filename": "x.jsonl",
                         "purpose": "fine-tune", "status": "processed"})  # fmt: skip
        elif self.path == "/v1/fine_tuning/jobs":
            asked = json.loads(body)
            self.server.bodies.append(asked)
            name = f"job-{len(self.server.jobs)}"
            self.server.jobs[name] = {
                "id": name, "object": "fine_tuning.job", "created_at": 0, "organization_id": "o", "result_files": [],
                "model": asked["model"], "training_file": asked["training_file"], "seed": asked["seed"],
                "status": "running", "hyperparameters": {}, "trained_tokens": 4711, "fine_tuned_model": None,
                "error": None, "step": 0,
            }  # fmt: skip
            self._reply(self.server.job(name) | {"status": "queued"})
        else:
            name = self.path.split("/")[-2]
            self.server.jobs[name]["status"] = "cancelled"
            self._reply(self.server.job(name))

    def do_GET(self) -> None:
        name = re.findall(r"job-\d+", self.path)[0]
        if "/events" in self.path:
            self._reply({"object": "list", "data": self.server.events(name), "has_more": False})
        else:
            self._reply(self.server.job(name))

    def _reply(self, value: dict[str, Any], *, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("PROVIDER_KEY", "secret")
    server = Provider()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class TestHosted(TrainerContract):
    @pytest.fixture
    def trainer(self, provider: Provider) -> Trainer:
        address = f"http://127.0.0.1:{provider.server_port}/v1"
        return HostedTrainer("base", base_url=address, key_env="PROVIDER_KEY", poll_seconds=0.01)

    @pytest.fixture
    def run(self, tmp_path: Path) -> TrainRun:
        made = unencoded(examples(12))
        return TrainRun(
            checkpoint=tmp_path, train=made[:8], dev=made[8:], settings=quick(epochs=2.0), folder=tmp_path / "run"
        )

    def test_the_provider_gets_the_examples_and_the_settings(
        self, trainer: Trainer, run: TrainRun, provider: Provider
    ) -> None:
        seen: list[TrainProgress] = []
        result = trainer.train(run, progress=seen.append)
        assert [one.loss for one in seen] == [2.0, 1.0, 0.0] and result.model == "ft:base:mine"
        assert result.tokens == 4711 and not result.mergeable
        assert provider.bodies[0]["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2, "batch_size": 4}
        sent = provider.files[provider.bodies[0]["training_file"]]
        for one in run.train:
            assert json.dumps(one.example.answer).encode() in sent
        assert provider.bodies[0]["validation_file"] == "file-1"

    def test_a_run_that_was_cut_off_follows_the_same_job(
        self, trainer: Trainer, run: TrainRun, provider: Provider
    ) -> None:
        def cut(seen: TrainProgress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trainer.train(run, progress=cut)
        assert trainer.train(run).model == "ft:base:mine" and len(provider.jobs) == 1

    def test_a_cancelled_job_is_followed_by_a_new_one(
        self, trainer: Trainer, run: TrainRun, provider: Provider
    ) -> None:
        assert trainer.train(run, cancelled=lambda: True).stopped == "cancelled"
        result = trainer.train(run)
        assert result.stopped == "finished" and result.model == "ft:base:mine" and len(provider.jobs) == 2

    def test_a_folder_that_takes_no_files_is_told_with_a_remedy(self, trainer: Trainer, run: TrainRun) -> None:
        (run.folder / "train.jsonl").mkdir(parents=True)
        with pytest.raises(TrainingError, match="cannot be written") as caught:
            trainer.train(run)
        assert "free space" in caught.value.fix

    def test_a_job_that_fails_says_why(self, trainer: Trainer, run: TrainRun, provider: Provider) -> None:
        provider.fail = True
        with pytest.raises(TrainingError, match="no good"):
            trainer.train(run)

    def test_a_refusal_of_the_provider_is_told_with_a_remedy(
        self, trainer: Trainer, run: TrainRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROVIDER_KEY", "another")
        with pytest.raises(TrainingError, match="wrong key") as caught:
            trainer.train(run)
        assert "key" in caught.value.fix
        monkeypatch.delenv("PROVIDER_KEY")
        with pytest.raises(TrainingError, match="PROVIDER_KEY holds no key"):
            trainer.train(run)
