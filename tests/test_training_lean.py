"""The lean trainer: gradients as peft's, curves as TRL's, states that survive what may happen to a run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graft.errors import TrainingError, UsageError
from graft.testing.trainer import TrainerContract
from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
from graft.training.encoding import encode
from graft.training.lean.decoder import Decoder, Row, packs
from graft.training.lean.lora import Adapter
from graft.training.lean.sharing import segments
from graft.training.lean.trainer import LeanTrainer, answer_loss_of
from graft.training.protocol import Trainer, TrainProgress, TrainRun
from graft.training.states import ADAPTER, CHECKPOINTS, CURVE
from tests.training_fixtures import examples, quick, small_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("base") / "small")


def run_of(checkpoint: Path, folder: Path, *, count: int = 24, dev: int = 8, **changes: object) -> TrainRun:
    tokenizer = load_tokenizer(open_checkpoint(checkpoint))
    made = encode(examples(count + dev), tokenizer, context_tokens=256).encoded
    return TrainRun(
        checkpoint=checkpoint, train=made[:count], dev=made[count:], settings=quick(**changes), folder=folder
    )


def curve(run: TrainRun) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.folder / CURVE).read_text().splitlines()]


class TestContract(TrainerContract):
    @pytest.fixture
    def trainer(self) -> Trainer:
        return LeanTrainer()

    @pytest.fixture
    def run(self, checkpoint: Path, tmp_path: Path) -> TrainRun:
        return run_of(checkpoint, tmp_path / "run")


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("qwen2", True)])
def test_gradients_equal_pefts(tmp_path: Path, kind: str, tied: bool) -> None:
    from peft import PeftModel

    opened = open_checkpoint(small_checkpoint(tmp_path / "base", kind=kind, tied=tied))
    decoder = Decoder(opened, rank=4, alpha=8.0, seed=0)
    random = torch.Generator().manual_seed(3)
    decoder.adapter.vector.normal_(0, 0.1, generator=random)
    decoder.merge()
    shapes = ((60, 40), (33, 5), (90, 89), (95, 91), (80, 40))
    rows = [Row(torch.randint(0, 400, (n,), generator=random), start) for n, start in shapes]
    for row, other, common in ((3, 2, 70), (4, 2, 30)):  # beginnings that two and three rows share, computed once
        rows[row].tokens[:common] = rows[other].tokens[:common]
    assert sum(
        part.stop - part.start for part in segments([r.tokens.tolist() for r in rows], [s for _, s in shapes])
    ) == (sum(n - 1 for n, _ in shapes) - 70 - 30)
    answers = sum(row.answer_tokens for row in rows)
    with torch.no_grad():
        loss = decoder.loss_and_gradient(rows, weight=1 / answers) / answers
        assert decoder.measure(rows)[0] / answers == pytest.approx(loss, rel=1e-6)

    decoder.adapter.save(tmp_path / "adapter", base=str(opened.folder))
    model = PeftModel.from_pretrained(
        load_model(opened, dtype=torch.float32), str(tmp_path / "adapter"), is_trainable=True
    )
    total = torch.zeros(())
    for row in rows:
        labels = row.tokens.clone()
        labels[: row.answer_start] = -100
        logits = model(input_ids=row.tokens[None]).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum") / answers
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    theirs = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    compared = 0
    for name, tensor in decoder.adapter.tensors().items():
        reference = theirs[name.replace(".weight", ".default.weight")]
        start = tensor.storage_offset()
        mine = decoder.adapter.gradient[start : start + tensor.numel()].view_as(tensor)
        assert (mine - reference).norm() <= 1e-5 * reference.norm(), name
        compared += 1
    assert compared == len(theirs) == 2 * 7 * 3


def test_how_rows_are_packed_does_not_change_the_gradient(checkpoint: Path) -> None:
    decoder = Decoder(open_checkpoint(checkpoint), rank=4, alpha=8.0, seed=0)
    random = torch.Generator().manual_seed(5)
    decoder.adapter.vector.normal_(0, 0.1, generator=random)
    decoder.merge()
    rows = [Row(torch.randint(0, 400, (n,), generator=random), n // 2) for n in (20, 50, 31, 44, 60)]
    rows[4].tokens[:24] = rows[1].tokens[:24]
    gradients = []
    with torch.no_grad():
        for tokens in (1, 80, 1000):
            decoder.adapter.gradient.zero_()
            for pack in packs(rows, tokens=tokens):
                decoder.loss_and_gradient(pack, weight=1.0)
            gradients.append(decoder.adapter.gradient.clone())
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() <= 1e-5 * gradients[0].norm()


def test_products_in_bfloat16_change_loss_and_gradient_by_rounding_only(checkpoint: Path) -> None:
    random = torch.Generator().manual_seed(7)
    rows = [Row(torch.randint(0, 400, (n,), generator=random), n // 2) for n in (40, 64)]
    vector, losses, gradients = None, [], []
    for products in (torch.float32, torch.bfloat16):
        decoder = Decoder(open_checkpoint(checkpoint), rank=4, alpha=8.0, seed=0, products=products)
        vector = (
            torch.empty_like(decoder.adapter.vector).normal_(0, 0.1, generator=random) if vector is None else vector
        )
        decoder.adapter.vector.copy_(vector)
        decoder.merge()
        with torch.no_grad():
            losses.append(decoder.loss_and_gradient(rows, weight=1.0))
        gradients.append(decoder.adapter.gradient.clone())
    exact, rounded = gradients
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and losses[1] != losses[0]
    assert 0 < (rounded - exact).norm() <= 0.05 * exact.norm()
    assert rounded.dtype == torch.float32


def test_the_first_adapter_changes_nothing(checkpoint: Path) -> None:
    adapter = Adapter(
        Decoder(open_checkpoint(checkpoint), rank=4, alpha=8.0, seed=0).shape, rank=4, alpha=8.0, seed=1
    )
    assert all(not tensor.any() for tensor in adapter.b.values())
    assert all(tensor.abs().max() <= tensor.shape[1] ** -0.5 for tensor in adapter.a.values())


def test_the_loss_curve_and_the_dev_loss_are_trls(checkpoint: Path, tmp_path: Path) -> None:
    from graft.training.general import GeneralTrainer

    run = run_of(checkpoint, tmp_path / "lean", evaluate_steps=4)
    lean = LeanTrainer().train(run)
    opened = open_checkpoint(checkpoint)
    Decoder(opened, rank=4, alpha=8.0, seed=run.settings.seed).adapter.save(tmp_path / "first", base=str(checkpoint))
    other = dataclasses.replace(run, folder=tmp_path / "trl")
    trl = GeneralTrainer(device="cpu", start=tmp_path / "first").train(other)
    ours, theirs = ([line["loss"] for line in curve(one)] for one in (run, other))
    assert len(ours) == len(theirs) == 12
    assert ours == pytest.approx(theirs, rel=5e-4)
    assert ours[-1] < ours[0]
    assert (lean.step, lean.steps) == (trl.step, trl.steps)
    assert lean.dev_loss == pytest.approx(trl.dev_loss, rel=5e-4)
    assert lean.dev_exact == trl.dev_exact is not None


def test_a_run_killed_in_the_middle_ends_as_an_uninterrupted_one(checkpoint: Path, tmp_path: Path) -> None:
    whole = run_of(checkpoint, tmp_path / "whole")
    LeanTrainer().train(whole)
    cut = dataclasses.replace(whole, folder=tmp_path / "cut")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.test_training_lean import run_of, LeanTrainer\n"
        "run = run_of(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "def tell(seen):\n"
        "    if seen.step == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "LeanTrainer().train(run, progress=tell)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint), str(cut.folder)],
        cwd=Path(__file__).parent.parent, env={**os.environ, "PYTHONPATH": "."}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert len(curve(cut)) == 7
    result = LeanTrainer().train(cut)
    assert result.resumed_from == 5  # the best dev loss of step 5 was saved beside those of every 4 steps
    assert curve(cut) == curve(whole)
    first, second = ((one.folder / "adapter/adapter_model.safetensors").read_bytes() for one in (whole, cut))
    assert first == second


def test_cancelling_keeps_the_state_and_the_next_call_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    run, seen = run_of(checkpoint, tmp_path / "run"), list[TrainProgress]()
    stopped = LeanTrainer().train(run, progress=seen.append, cancelled=lambda: len(seen) == 3)
    assert stopped.stopped == "cancelled" and stopped.adapter is None and stopped.steps == 3
    result = LeanTrainer().train(run)
    assert result.resumed_from == 3 and result.steps == 12 and result.adapter is not None


def test_a_full_disk_leaves_the_last_state_valid(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(checkpoint, tmp_path / "run")
    saved = Adapter.save

    def full(self: Adapter, folder: Path, **options: object) -> None:
        saved(self, folder, **options)  # type: ignore[arg-type]
        if folder.name.endswith("8"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Adapter, "save", full)
    with pytest.raises(TrainingError, match="the state of step 5 stays valid") as caught:
        LeanTrainer().train(run)
    assert "free space" in caught.value.fix
    assert sorted(path.name for path in (run.folder / CHECKPOINTS).iterdir()) == ["step-00000004", "step-00000005"]
    monkeypatch.setattr(Adapter, "save", saved)
    assert LeanTrainer().train(run).resumed_from == 5


def test_a_state_damaged_from_outside_is_passed_over(checkpoint: Path, tmp_path: Path) -> None:
    run, seen = run_of(checkpoint, tmp_path / "run"), list[TrainProgress]()
    LeanTrainer().train(run, progress=seen.append, cancelled=lambda: len(seen) == 9)
    damaged = run.folder / CHECKPOINTS / "step-00000009/adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:200])
    assert LeanTrainer().train(run).resumed_from == 8


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(checkpoint: Path, tmp_path: Path) -> None:
    run = run_of(checkpoint, tmp_path / "run", learning_rate=1e30, max_grad_norm=0.0, checkpoint_steps=1)
    with pytest.raises(TrainingError, match=r"no number at step \d+") as caught:
        LeanTrainer().train(run)
    assert "learning_rate" in caught.value.fix
    (kept,) = (run.folder / CHECKPOINTS).iterdir()  # of the two latest the last was spoilt already
    assert kept.name == "step-00000001" and "step 1 is kept" in caught.value.message
    assert math.isfinite(answer_loss_of(checkpoint, kept, run.dev, run.settings))


@pytest.mark.parametrize("dev", [0, 4])
def test_a_run_that_blows_up_in_its_last_step_is_no_result(checkpoint: Path, tmp_path: Path, dev: int) -> None:
    settings: dict[str, Any] = {"learning_rate": 1e30, "max_grad_norm": 0.0, "epochs": 1.0, "evaluate_steps": 0}
    run = run_of(checkpoint, tmp_path / "run", count=8, dev=dev, **settings)
    with pytest.raises(TrainingError, match="no number at step 2"):
        LeanTrainer().train(run)
    assert not (run.folder / ADAPTER).exists() and not list((run.folder / CHECKPOINTS).iterdir())


def test_one_step_alone_learns(checkpoint: Path, tmp_path: Path) -> None:
    run = run_of(checkpoint, tmp_path / "run", count=4, dev=0, epochs=1.0)
    result = LeanTrainer().train(run)
    assert result.steps == 1 and result.adapter is not None
    first = Adapter(Decoder(open_checkpoint(checkpoint), rank=4, alpha=8.0, seed=0).shape, rank=4, alpha=8.0, seed=0)
    first.load(result.adapter)
    assert all(tensor.any() for tensor in first.b.values())


def test_an_answer_counts_as_right_where_greedy_decoding_writes_it(tmp_path: Path) -> None:
    opened = open_checkpoint(small_checkpoint(tmp_path / "base"))
    model, rows = load_model(opened, dtype=torch.float32), []
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for number in range(3):
            tokens = torch.randint(0, 400, (20,), generator=random)
            for _ in range(6):
                tokens = torch.cat([tokens, model(tokens[None]).logits[0, -1].argmax()[None]])
            if number == 1:
                tokens[-3] += 1
            rows.append(Row(tokens, 20))
        assert Decoder(opened, rank=4, alpha=8.0, seed=0).measure(rows)[1] == 2


@pytest.mark.parametrize("spelling", ["rope_type", "type"])
def test_scaled_positions_are_those_of_transformers_in_either_spelling(tmp_path: Path, spelling: str) -> None:
    folder = small_checkpoint(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    config |= {"rope_theta": 10_000.0, "rope_scaling": {spelling: "linear", "factor": 4.0}}
    (folder / "config.json").write_text(json.dumps(config))
    opened = open_checkpoint(folder)
    row = Row(torch.randint(0, 400, (60,), generator=torch.Generator().manual_seed(1)), 10)
    with torch.no_grad():
        logits = load_model(opened, dtype=torch.float32)(row.tokens[None]).logits[0, 9:-1]
        loss = Decoder(opened, rank=4, alpha=8.0, seed=0).measure([row])[0]
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, row.tokens[10:]).item() * 50, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("precision", "float16"), ("weight_decay", -1.0), ("learning_rate", math.nan), ("warmup_share", -0.5),
     ("epochs", math.inf), ("alpha", 0.0), ("evaluate_steps", -1)],
)  # fmt: skip
def test_a_setting_that_no_run_can_have_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(UsageError, match=rf"\[tuning\] {name} = ") as caught:
        LeanTrainer().train(run_of(checkpoint, tmp_path / "run", **{name: value}))
    assert caught.value.fix.startswith(f"{name} = ")


def test_an_adapter_is_taken_whole_or_not_at_all(checkpoint: Path, tmp_path: Path) -> None:
    shape = Decoder(open_checkpoint(checkpoint), rank=4, alpha=8.0, seed=0).shape
    saved, other = (Adapter(shape, rank=4, alpha=8.0, seed=seed) for seed in (1, 2))
    saved.save(tmp_path, base="base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    before = other.vector.clone()
    with pytest.raises(KeyError):
        other.load(tmp_path)
    assert torch.equal(other.vector, before)


def test_another_run_in_the_folder_is_refused_by_what_differs(checkpoint: Path, tmp_path: Path) -> None:
    run = run_of(checkpoint, tmp_path / "run", epochs=0.2)
    LeanTrainer().train(run)
    with pytest.raises(TrainingError, match=r"settings \(rank\)"):
        LeanTrainer().train(dataclasses.replace(run, settings=dataclasses.replace(run.settings, rank=8)))
    with pytest.raises(TrainingError, match="its train is not"):
        LeanTrainer().train(dataclasses.replace(run, train=run.train[:-1]))


def test_training_stops_early_when_the_dev_loss_stays(checkpoint: Path, tmp_path: Path) -> None:
    run = run_of(checkpoint, tmp_path / "run", learning_rate=1.0, evaluate_steps=1, patience=2, epochs=20.0)
    result = LeanTrainer().train(run)
    assert result.stopped == "early" and result.steps < 120
    measured = [line["dev_loss"] for line in curve(run)]
    assert result.dev_loss == min(measured) == measured[result.step - 1]


def test_peft_loads_the_adapter_and_has_the_same_dev_loss(checkpoint: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    run = run_of(checkpoint, tmp_path / "run")
    result = LeanTrainer().train(run)
    model = PeftModel.from_pretrained(
        load_model(open_checkpoint(checkpoint), dtype=torch.float32), str(result.adapter)
    )
    total, count = 0.0, 0
    for one in run.dev:
        tokens = torch.tensor(list(one.tokens))
        logits = model(input_ids=tokens[None]).logits[0, one.answer_start - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, tokens[one.answer_start :], reduction="sum").item()
        count += len(tokens) - one.answer_start
    assert total / count == pytest.approx(result.dev_loss, rel=1e-5)


def test_memory_that_runs_out_names_the_setting_that_would_fit(checkpoint: Path, tmp_path: Path) -> None:
    short_of_memory = """
import pathlib, resource, sys
from graft.training.lean.trainer import LeanTrainer
from tests.test_training_lean import run_of

checkpoint, folder = map(pathlib.Path, sys.argv[1:])
LeanTrainer().train(run_of(checkpoint, folder / "usual"))
changes = {"count": 4000, "dev": 8, "batch_size": 4000, "micro_tokens": 200_000, "epochs": 1.0}
run = run_of(checkpoint, folder / "large", **changes)
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20_000_000,) * 2)
try:
    LeanTrainer().train(run)
except Exception as error:
    print(type(error).__name__, error, getattr(error, "fix", None))
"""
    told = subprocess.run(
        [sys.executable, "-c", short_of_memory, str(checkpoint), str(tmp_path)], capture_output=True, text=True
    )
    assert told.stdout.startswith("TrainingError memory ran out; the last saved state stays valid"), told
    assert "micro_tokens = 100000 in [tuning]" in told.stdout
