"""Adapters read from disk and merged: against peft, on small checkpoints made here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graft.errors import GraftError, ModelError
from graft.training.adapters import CONFIG, WEIGHTS, read_adapter
from graft.training.merging import MERGED, merge, weight_files
from graft.training.silence import quiet

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

_spec = importlib.util.spec_from_file_location("training_fixtures", Path(__file__).with_name("training_fixtures.py"))
assert _spec is not None and _spec.loader is not None
training_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(training_fixtures)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_fixtures.small_checkpoint(tmp_path_factory.mktemp("llama"))


def _load(folder: Path) -> Any:
    from graft.training.checkpoint import load_model, open_checkpoint

    return load_model(open_checkpoint(folder), dtype=torch.float32)


def random_adapter(checkpoint: Path, into: Path, *, seed: int = 0, **config: Any) -> Path:
    """An adapter as peft saves it, with random matrices."""
    from peft import LoraConfig, get_peft_model

    given = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | config
    with quiet():
        model = get_peft_model(_load(checkpoint), LoraConfig(**given))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:
                values.copy_(torch.randn(values.shape, generator=generator) * 0.2)
    model.save_pretrained(str(into))
    return into


@pytest.fixture(scope="module")
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(checkpoint, tmp_path_factory.mktemp("adapter"))


def _tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for file in weight_files(folder):
        found |= load_file(file.path)
    return found


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"r": 8, "lora_alpha": 3, "use_rslora": True},
        {"target_modules": ["q_proj", "down_proj"], "alpha_pattern": {"layers.1.self_attn.q_proj": 40}},
        {"rank_pattern": {"down_proj": 2}},
    ],
    ids=["plain", "rank-stabilised", "alpha by module", "rank by module"],
)
def test_merged_is_what_peft_merges(checkpoint: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    from peft import PeftModel

    made = random_adapter(checkpoint, tmp_path / "adapter", **config)
    merged = merge(checkpoint, made, tmp_path / "merged")
    with quiet():
        theirs = PeftModel.from_pretrained(_load(checkpoint), str(made)).merge_and_unload().state_dict()
    ours, before = _tensors(merged.folder), _tensors(checkpoint)
    assert set(ours) == set(before)
    changed = [name for name in ours if not torch.equal(ours[name], before[name])]
    assert len(changed) == merged.changed > 0
    for name, values in ours.items():
        assert torch.allclose(values, theirs[name], rtol=0, atol=1e-6), name


def test_the_merged_model_computes_what_base_and_adapter_do(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    merged = _load(merge(checkpoint, adapter, tmp_path / "merged").folder)
    with quiet():
        tuned = PeftModel.from_pretrained(_load(checkpoint), str(adapter))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, tuned(ids).logits, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, _load(checkpoint)(ids).logits, atol=1e-1)


def test_merging_twice_changes_nothing(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    once = merge(checkpoint, adapter, tmp_path / "once")
    again = merge(once.folder, adapter, tmp_path / "twice")
    assert (once.changed, again.changed) == (21, 0)
    assert merge(checkpoint, adapter, tmp_path / "once").changed == 0
    assert (tmp_path / "once/model.safetensors").read_bytes() == (tmp_path / "twice/model.safetensors").read_bytes()
    (file,) = weight_files(tmp_path / "once")
    assert file.metadata[MERGED] == read_adapter(adapter).sha256


def test_two_adapters_add_up(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    other = random_adapter(checkpoint, tmp_path / "other", seed=1)
    both = merge(merge(checkpoint, adapter, tmp_path / "a").folder, other, tmp_path / "ab").folder
    swapped = merge(merge(checkpoint, other, tmp_path / "b").folder, adapter, tmp_path / "ba").folder
    one, two = _tensors(both), _tensors(swapped)
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert len(weight_files(both)[0].merged) == 2
    with pytest.raises(GraftError, match="is not this merge"):
        merge(checkpoint, adapter, both)  # the adapter is in there, and so is another


def test_a_half_precision_base_is_rounded_once(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    _load(checkpoint).to(torch.bfloat16).save_pretrained(str(half))
    shutil.copy(checkpoint / "tokenizer.json", half)
    before, after = _tensors(half), _tensors(merge(half, adapter, tmp_path / "merged").folder)
    opened = read_adapter(adapter)
    seen = 0
    for pair, a, b in opened.tensors():
        name = f"{pair.module}.weight"
        assert torch.equal(after[name], (before[name].float() + (b @ a) * pair.scale).to(torch.bfloat16))
        seen += 1
    assert seen == 21


def test_a_base_in_several_files_stays_in_several_files(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    split = tmp_path / "split"
    _load(checkpoint).save_pretrained(str(split), max_shard_size="60KB")
    shutil.copy(checkpoint / "tokenizer.json", split)
    merged = merge(split, adapter, tmp_path / "merged")
    whole = _tensors(merge(checkpoint, adapter, tmp_path / "whole").folder)
    parts = _tensors(merged.folder)
    assert len(weight_files(merged.folder)) > 2
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_activated_adapter_is_refused_with_the_reason(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    activated = shutil.copytree(adapter, tmp_path / "activated")
    config = json.loads((activated / CONFIG).read_text())
    (activated / CONFIG).write_text(json.dumps(config | {"alora_invocation_tokens": [1, 2]}))
    with pytest.raises(ModelError, match="only on tokens after the prompt"):
        merge(checkpoint, activated, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"lora_alpha": "x"}, "damaged"),
        ({"init_lora_weights": "pissa_niter_4"}, "out of the base's weights"),
    ],
)
def test_what_is_no_plain_adapter_is_refused(
    adapter: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    other = shutil.copytree(adapter, tmp_path / "other")
    config = json.loads((other / CONFIG).read_text())
    (other / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=says) as caught:
        read_adapter(other)
    assert caught.value.fix


def test_pickled_damaged_and_foreign_weights_are_refused(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        read_adapter(pickled)
    cut = shutil.copytree(adapter, tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        read_adapter(cut)
    foreign = shutil.copytree(adapter, tmp_path / "foreign")
    renamed = {k.replace("layers.2", "layers.9"): v for k, v in load_file(foreign / WEIGHTS).items()}
    save_file(renamed, foreign / WEIGHTS)
    with pytest.raises(ModelError, match=r"layers\.9.* has not"):
        merge(checkpoint, foreign, tmp_path / "merged")
    with pytest.raises(ModelError, match="no adapter"):
        read_adapter(checkpoint)


def test_what_stands_in_the_way_is_never_overwritten(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "other")
    with pytest.raises(GraftError, match="exists"):
        merge(checkpoint, adapter, tmp_path / "other")


def test_a_disk_that_takes_no_more_leaves_nothing_half(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path; from graft.training.merging import merge\n"
        "from graft.errors import GraftError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: merge(*map(Path, sys.argv[1:]))\n"
        "except GraftError as error: print(error.fix)\n"
    )
    target = tmp_path / "into" / "merged"
    done = subprocess.run(
        [sys.executable, "-c", program, checkpoint, adapter, target], capture_output=True, text=True, timeout=120
    )
    assert "--into" in done.stdout, done.stderr
    assert list(target.parent.iterdir()) == []
