"""Activated LoRA: the base model's prompt, the adapter's answer, as PEFT computes it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from graft.errors import TrainingError
from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
from graft.training.encoding import encode
from graft.training.lean.activated import PromptCache, invocation_tokens
from graft.training.lean.decoder import Decoder
from graft.training.lean.trainer import LeanTrainer
from graft.training.protocol import TrainRun
from graft.training.states import CURVE
from tests.training_fixtures import examples, quick, small_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    folder = tmp_path_factory.mktemp("activated")
    base = small_checkpoint(folder / "base")
    made = encode(examples(20), load_tokenizer(open_checkpoint(base)), context_tokens=256).encoded
    settings = quick(method="activated")
    return TrainRun(checkpoint=base, train=made[:14], dev=made[14:], settings=settings, folder=folder / "run")


def test_loss_and_gradients_are_those_of_pefts_activated_lora(run: TrainRun, tmp_path: Path) -> None:
    from peft import PeftModel

    opened = open_checkpoint(run.checkpoint)
    decoder = Decoder(opened, rank=4, alpha=8.0, seed=0)
    decoder.adapter.vector.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    decoder.merge()
    some = run.train[:4]
    cache = PromptCache(decoder, some, most_mb=0, folder=tmp_path / "none", dtype=torch.float32)
    rows = cache(range(4))
    answers = sum(row.answer_tokens for row in rows)
    with torch.no_grad():
        loss = decoder.loss_and_gradient(rows, weight=1 / answers) / answers
    extra = {"alora_invocation_tokens": list(invocation_tokens(some))}
    decoder.adapter.save(tmp_path / "adapter", base=str(run.checkpoint), extra=extra)
    model: Any = PeftModel.from_pretrained(
        load_model(opened, dtype=torch.float32), str(tmp_path / "adapter"), is_trainable=True
    )
    total = torch.zeros(())
    for one in some:
        tokens = torch.tensor(list(one.tokens))
        logits = model(input_ids=tokens[None]).logits[0, one.answer_start - 1 : -1]
        total = (
            total + torch.nn.functional.cross_entropy(logits, tokens[one.answer_start :], reduction="sum") / answers
        )
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-5)
    theirs = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    compared = 0
    for name, tensor in decoder.adapter.tensors().items():
        reference = theirs[name.replace(".weight", ".default.weight")]
        start = tensor.storage_offset()
        mine = decoder.adapter.gradient[start : start + tensor.numel()].view_as(tensor)
        assert (mine - reference).norm() <= 1e-5 * max(1e-6, float(reference.norm())), name
        compared += 1
    assert compared == 2 * 7 * 3


def test_the_curve_does_not_depend_on_the_cache(run: TrainRun, tmp_path: Path) -> None:
    cached = LeanTrainer().train(run)
    assert not cached.mergeable
    assert len(list((run.folder / "prompts-train").glob("*.f16"))) == 14
    without = dataclasses.replace(run, folder=tmp_path, settings=dataclasses.replace(run.settings, prompt_cache_mb=0))
    LeanTrainer().train(without)
    assert not (tmp_path / "prompts-train").exists()
    texts = [(one.folder / CURVE).read_text().splitlines() for one in (run, without)]
    first, second = ([json.loads(line)["loss"] for line in lines] for lines in texts)
    assert first == second and first[-1] < first[0]


def test_prompts_that_end_differently_are_refused(run: TrainRun, tmp_path: Path) -> None:
    other = dataclasses.replace(run.train[0], header_tokens=0)
    with pytest.raises(TrainingError, match="generation prompt") as caught:
        LeanTrainer().train(dataclasses.replace(run, train=(*run.train, other), folder=tmp_path))
    assert 'method = "lora"' in caught.value.fix


def test_prompts_are_computed_a_few_at_a_time_and_no_more_than_the_cap_is_kept(run: TrainRun, tmp_path: Path) -> None:
    decoder = Decoder(open_checkpoint(run.checkpoint), rank=4, alpha=8.0, seed=0)
    seen: list[int] = []
    compute = decoder.pasts

    def pasts(prompts: Sequence[torch.Tensor], **options: Any) -> list[torch.Tensor]:
        seen.append(sum(map(len, prompts)))
        return compute(prompts, **options)

    decoder.pasts = pasts  # type: ignore[method-assign]
    cache = PromptCache(decoder, run.train, most_mb=1, folder=tmp_path, tokens_at_once=100)
    rows = cache(range(14))
    assert len(rows) == 14 and len(seen) > 3 and max(seen) <= 100
    cache.room = 0
    again = PromptCache(decoder, run.train, most_mb=1, folder=tmp_path)
    assert again.room == 1_000_000 - sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000


def test_a_disk_that_takes_no_prompts_stops_nothing(run: TrainRun, tmp_path: Path) -> None:
    (tmp_path / "prompts-train").write_text("a file where a folder must be: nothing can be written there")
    result = LeanTrainer().train(dataclasses.replace(run, folder=tmp_path))
    assert result.stopped == "finished"
