"""Tokens and loss masks, on the templates people have, and what preflight says of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from graft.dataset import Example
from graft.errors import ModelError, TrainingError, UsageError
from graft.models import Message
from graft.models.llama import LlamaModel
from graft.training.checkpoint import checkpoint_from_gguf, load_model, load_tokenizer, open_checkpoint
from graft.training.encoding import encode, require_all
from graft.training.general import GeneralTrainer
from graft.training.lean.shape import read_shape
from graft.training.lean.trainer import LeanTrainer
from graft.training.machine import bfloat16_is_fast, disk_mb, memory_mb
from graft.training.opening import open_trainer
from graft.training.preflight import lean_memory_mb, preflight
from graft.training.protocol import TrainRun
from tests.model_fixtures import smollm2
from tests.training_fixtures import CHATML, examples, quick, small_checkpoint, tokenizer_files

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
THINKING = CHATML.replace(
    "'<|im_start|>assistant\n'",
    "'<|im_start|>assistant\n'"
    " + ('<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '')",
).replace(
    "message['role'] + '\n' + message['content']",
    "message['role'] + '\n' + ('<think>\n\n</think>\n\n' if loop.last and message['role'] == 'assistant' else '')"
    " + message['content']",
)
NO_GENERATION = CHATML.partition("{% if add_generation_prompt")[0]
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(open_checkpoint(base))


def with_template(tokenizer: Any, template: str) -> Any:
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def example(prompt: str, answer: str, *, system: str | None = None) -> Example:
    first = () if system is None else (Message("system", system),)
    return Example(
        id="1", messages=(*first, Message("user", prompt), Message("assistant", answer)), origin="a.jsonl:1"
    )


@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (CHATML, "the owl<|im_end|>"),
        (MISTRAL, " the owl<|im_end|>"),
        (THINKING, "the owl<|im_end|>"),
        (NO_END, "the owl\n<|im_end|>"),
    ],
    ids=["chatml", "mistral", "thinking", "no end of turn"],
)
def test_loss_falls_on_the_answer_and_the_end_of_its_turn_alone(tokenizer: Any, template: str, learnt: str) -> None:
    made = encode([example("Which one?", "the owl")], with_template(tokenizer, template), context_tokens=256)
    assert not made.refused
    (one,) = made.encoded
    assert tokenizer.decode(one.tokens[one.answer_start :]) == learnt
    assert template == MISTRAL or one.header_tokens > 0
    assert one.mask == (False,) * one.answer_start + (True,) * (len(one.tokens) - one.answer_start)


def test_the_prompt_is_the_very_prompt_that_is_served(tokenizer: Any) -> None:
    (one,) = encode([example("Which one?", "\nthe owl")], tokenizer, context_tokens=256).encoded
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which one?"}], add_generation_prompt=True, return_dict=False
    )
    assert list(one.tokens[: one.answer_start]) == served
    assert tokenizer.decode(one.tokens).endswith("assistant\n\nthe owl<|im_end|>")
    header = one.tokens[one.answer_start - one.header_tokens : one.answer_start]
    assert tokenizer.decode(header) == "<|im_start|>assistant\n"


@given(prompt=st.text(min_size=1, max_size=60), answer=st.text(min_size=1, max_size=60).filter(str.strip))
def test_whatever_the_text_the_mask_holds_the_whole_answer_and_nothing_of_the_prompt(
    tokenizer: Any, prompt: str, answer: str
) -> None:
    if "<|im_" in prompt + answer or "<unk>" in prompt + answer:
        return
    made = encode([example(prompt, answer)], tokenizer, context_tokens=2000)
    (one,) = made.encoded
    assert tokenizer.decode(one.tokens[one.answer_start :]) == f"{answer}<|im_end|>"
    assert tokenizer.decode(one.tokens[: one.answer_start]).endswith(f"{prompt}<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "system", "reason"),
    [
        (NO_GENERATION, None, "has no generation prompt: '<|im_start|>assistant'"),
        (MISTRAL, "Be brief.", "Only user and assistant roles"),
        ("{{ messages[-1]['content'] | upper }}", None, "does not begin its whole conversation"),
    ],
    ids=["no generation prompt", "role refused", "not a prefix"],
)
def test_what_a_template_cannot_express_is_refused_with_its_reason(
    tokenizer: Any, template: str, system: str | None, reason: str
) -> None:
    made = encode(
        [example("Which?", "the owl", system=system)], with_template(tokenizer, template), context_tokens=256
    )
    assert reason in made.refused[0].reason and made.refused[0].origin == "a.jsonl:1"
    with pytest.raises(TrainingError, match="no example is left"):
        require_all(made, truncate="refuse")


def test_nothing_is_cut_off_silently(tokenizer: Any) -> None:
    long, short = example("word " * 200, "the owl"), example("Which?", "the fox")
    made = encode([long, short], tokenizer, context_tokens=60)
    assert len(made.encoded) == 1 and "over the context of 60" in made.refused[0].reason
    with pytest.raises(TrainingError, match=r"a\.jsonl:1: .* over the context of 60") as caught:
        require_all(made, truncate="refuse")
    assert "--truncate" in caught.value.fix
    require_all(made, truncate="drop")
    with pytest.raises(UsageError, match="'middle' is not one of"):
        encode([long], tokenizer, context_tokens=60, truncate="middle")


def test_shortening_keeps_the_template_the_other_turns_and_the_answer_whole(tokenizer: Any) -> None:
    long = example("word " * 200 + "last", "the owl", system="Be brief.")
    made = encode([long], tokenizer, context_tokens=60, truncate="shorten")
    (one,) = made.encoded
    text = tokenizer.decode(one.tokens)
    assert len(one.tokens) <= 60 and one.shortened > 0 and "1 prompts were shortened" in made.notes[0]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("last<|im_end|>\n<|im_start|>assistant\nthe owl<|im_end|>")
    hopeless = encode([example("Which?", "owl " * 100)], tokenizer, context_tokens=60, truncate="shorten")
    assert "even with its longest turn left out" in hopeless.refused[0].reason


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nopad"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer_files(folder, pad=None)
    assert load_tokenizer(open_checkpoint(folder)).pad_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "evil.py"}}'), "auto_map"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"auto_map": {}}'), "auto_map"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04pickle"), "not a whole safetensors file"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x"}}'), "damaged"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text('{"n_positions": "many"}'), "n_positions is 'many'"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    ],
    ids=[
        "code",
        "tokenizer code",
        "pickle",
        "pickle in disguise",
        "path",
        "json",
        "context",
        "no config",
        "no tokenizer",
    ],
)
def test_a_checkpoint_that_is_unsafe_or_damaged_is_refused(
    base: Path, tmp_path: Path, break_it: Any, says: str
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    open_checkpoint(folder)
    break_it(folder)
    with pytest.raises(ModelError, match=says) as caught:
        open_checkpoint(folder)
    assert caught.value.fix


def test_weights_that_are_missing_or_of_no_known_model_are_refused_not_drawn_at_random(
    base: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks, or has in another size, {lost}"):
        load_model(open_checkpoint(folder))
    save_file(tensors | {lost: tensors[lost][:5].clone()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=lost):
        load_model(open_checkpoint(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(ModelError, match="nonesuch"):
        load_model(open_checkpoint(folder))


def test_the_context_has_the_name_that_the_architecture_gives_it(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    for config in ({"n_positions": 1024}, {"text_config": {"max_position_embeddings": 1024}}):
        (folder / "config.json").write_text(json.dumps(config))
        assert open_checkpoint(folder).context_tokens == 1024


def run_of(base: Path, tokenizer: Any, folder: Path, **changes: Any) -> TrainRun:
    made = encode(examples(12), tokenizer, context_tokens=256).encoded
    return TrainRun(checkpoint=base, train=made[:8], dev=made[8:], settings=quick(**changes), folder=folder)


def test_preflight_shows_exact_tokens_and_what_the_run_takes(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    run = run_of(base, tokenizer, tmp_path)
    seen = preflight(run, tokenizer, open_trainer(run))
    assert seen.trainer == "lean" and not seen.refusals and len(seen.examples) == 3
    for shown, one in zip(seen.examples, run.train, strict=False):
        assert [token.id for token in shown.tokens] == list(one.tokens)
        assert "".join(t.text for t in shown.tokens if t.learnt) == f"{one.example.answer}<|im_end|>"
    assert seen.steps == 4 and seen.tokens == sum(len(one.tokens) for one in run.train)
    assert seen.seconds is not None and 0 < seen.seconds < 60
    assert seen.memory_mb is not None and 100 < seen.memory_mb < seen.free_memory_mb
    assert seen.template == CHATML and seen.cost_usd == 0.0
    assert any("few" in warning for warning in seen.warnings)
    seen.require()


def test_the_estimate_knows_what_a_batch_computes_once(
    base: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.training.preflight.gflops", lambda: 0.001)
    about = "The same long passage stands before every question. " * 4
    made = encode([example(f"{about}Number {n}?", str(n)) for n in range(8)], tokenizer, context_tokens=256).encoded

    def estimate(**changes: Any) -> float:
        run = TrainRun(checkpoint=base, train=made, dev=(), settings=quick(**changes), folder=tmp_path)
        return preflight(run, tokenizer, LeanTrainer()).seconds or 0.0

    apart, together = estimate(batch_size=1, epochs=1.0), estimate(batch_size=8, epochs=1.0)
    assert together < 0.5 * apart
    if bfloat16_is_fast():
        assert estimate(batch_size=8, epochs=1.0, precision="bfloat16") < 0.8 * together


def test_preflight_refuses_what_is_sure_to_fail(
    base: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(base, tokenizer, tmp_path, micro_tokens=8192)
    shape = read_shape(open_checkpoint(base).config)
    monkeypatch.setattr(
        "graft.training.preflight.memory_mb", lambda: lean_memory_mb(shape, quick(micro_tokens=4096), 0)
    )
    poor = preflight(run, tokenizer, LeanTrainer())
    assert "of memory" in poor.refusals[0]
    fits = int(poor.refusals[0].partition("micro_tokens = ")[2].split()[0])
    assert 3500 < fits <= 4096
    empty = preflight(dataclasses.replace(run, train=(), dev=()), tokenizer, LeanTrainer())
    assert "no example" in empty.refusals[0]
    with pytest.raises(TrainingError, match="no example") as caught:
        empty.require()
    assert caught.value.fix == "graft dataset check FILE"


def test_no_setting_of_the_lean_trainer_is_named_where_another_one_lacks_memory(
    base: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.training.preflight.memory_mb", lambda: 10.0)
    (refusal,) = preflight(run_of(base, tokenizer, tmp_path), tokenizer, GeneralTrainer(device="cpu")).refusals
    assert "of memory" in refusal and "micro_tokens" not in refusal and "smaller base model" in refusal


def test_one_class_alone_is_warned_of(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    same = encode([example(f"Number {n}?", "yes") for n in range(5)], tokenizer, context_tokens=256).encoded
    run = TrainRun(checkpoint=base, train=same, dev=(), settings=quick(), folder=tmp_path)
    warnings = preflight(run, tokenizer, LeanTrainer()).warnings
    assert any("every answer is 'yes'" in warning for warning in warnings)
    assert any("without a dev part" in warning for warning in warnings)


def test_bfloat16_is_refused_where_the_processor_emulates_it(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    if bfloat16_is_fast():
        pytest.skip("this processor computes bfloat16")
    run = run_of(base, tokenizer, tmp_path, precision="bfloat16", backend="general")
    assert any("emulates bfloat16" in refusal for refusal in preflight(run, tokenizer, open_trainer(run)).refusals)
    with pytest.raises(TrainingError, match="emulates bfloat16"):
        open_trainer(run).train(run)


def test_free_memory_and_disk_are_those_of_this_machine(tmp_path: Path) -> None:
    assert memory_mb() > 0
    assert disk_mb(tmp_path / "not" / "yet" / "there") > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gguf_becomes_a_checkpoint_whose_tokens_are_llama_cpps(tmp_path: Path) -> None:
    import xllamacpp

    gguf = smollm2()
    folder = checkpoint_from_gguf(gguf, tmp_path)
    made = (folder / "model.safetensors").stat()
    assert checkpoint_from_gguf(gguf, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made.st_mtime_ns  # done once
    opened = open_checkpoint(folder)
    assert (opened.architecture, opened.context_tokens) == ("llama", 8192)
    tokenizer = load_tokenizer(opened)
    messages = (Message("system", "Sei kurz. 你好"), Message("user", "Größe  in\n\n\tcm? 🚲 1,234.5 <|im_end|>"))
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == LlamaModel(gguf, context_tokens=512, threads=1).count_tokens(messages)
    assert ids == _llama_ids(xllamacpp, gguf, text)


def _llama_ids(xllamacpp: Any, gguf: Path, text: str) -> list[int]:
    import httpx

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.verbosity, params.warmup = str(gguf), 512, -1, False
    server = xllamacpp.Server(params)
    asked = {"content": text, "add_special": False, "parse_special": True}
    reply = httpx.post(f"{server.listening_address}/tokenize", json=asked, trust_env=False)
    return list(reply.json()["tokens"])
