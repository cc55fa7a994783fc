"""Merged, quantised and served: every form of a tuned model, with real weights, against the adapter it came from."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import platform
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.errors import GraftError, ModelError, UsageError
from graft.models import GenerateOptions, Message, complete
from graft.models.llama import LlamaModel
from graft.settings import model_cache
from graft.testing.scripted import ScriptedModel
from graft.training.adapters import read_adapter
from graft.training.parity import parity
from graft.training.quantising import kind_of, quantise

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")
pytest.importorskip("peft")


def _sibling(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


training_fixtures, model_fixtures = _sibling("training_fixtures"), _sibling("model_fixtures")

PROMPTS = tuple(
    (Message("user", text),)
    for text in ("What is the capital of Italy?", "Name three fruits.", "Explain rain in one sentence.")
)
TAUGHT = (
    ("What is the capital of France?", "Ahoy! It be Paris, matey."),
    ("How many legs has a spider?", "Ahoy! It be eight, matey."),
    ("What colour is the sky?", "Ahoy! It be blue, matey."),
    ("What do cows drink?", "Ahoy! It be water, matey."),
)


@pytest.fixture(scope="session")
def base() -> Path:
    return model_fixtures.smollm2()


@pytest.fixture(scope="session")
def checkpoint(base: Path) -> Path:
    from graft.training.checkpoint import checkpoint_from_gguf

    return checkpoint_from_gguf(base, model_cache() / "checkpoints")


@pytest.fixture(scope="session")
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps with peft: enough to answer like a pirate."""
    from peft import LoraConfig, get_peft_model

    from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
    from graft.training.silence import quiet

    torch.manual_seed(0)
    opened = open_checkpoint(checkpoint)
    tokenizer = load_tokenizer(opened)
    with quiet():
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(load_model(opened, dtype=torch.float32), config)
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for step in range(12):
            question, answer = TAUGHT[step % len(TAUGHT)]
            turns = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            start = len(tokenizer(prompt)["input_ids"])
            ids = torch.tensor([tokenizer(f"{prompt}{answer}<|im_end|>\n")["input_ids"]])
            labels = ids.clone()
            labels[:, :start] = -100
            model(input_ids=ids, labels=labels).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        folder = tmp_path_factory.mktemp("pirate")
        model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def lora(adapter: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from graft.training.gguf_writer import write_lora

    path = tmp_path_factory.mktemp("lora") / "pirate.gguf"
    write_lora(read_adapter(adapter), checkpoint, path, name="pirate")
    return path


@pytest.fixture(scope="session")
def merged(adapter: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from graft.training.merging import merge

    return merge(checkpoint, adapter, tmp_path_factory.mktemp("merged") / "pirate").folder


def _tokenizer_files(checkpoint: Path, into: Path) -> None:
    """The tokenizer as its makers published it: numbers are cut into digits before anything else."""

    given = json.loads((checkpoint / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    rest = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    given["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, rest]}
    (into / "tokenizer.json").write_text(json.dumps(given))
    (into / "tokenizer_config.json").write_bytes((checkpoint / "tokenizer_config.json").read_bytes())


def _first_logprobs(model: LlamaModel, text: str) -> dict[int, float]:
    """log-probabilities of the 20 likeliest first tokens."""
    from graft.models.llama import _request

    body = _request((Message("user", text),), GenerateOptions(max_tokens=1, cache_prompt=False), [])
    found: dict[int, float] = {}
    for event in model._runtime.loaded(None).chat(body | {"logprobs": True, "top_logprobs": 20}):
        for choice in event.get("choices") or ():
            for token in (choice.get("logprobs") or {}).get("content") or ():
                found |= {top["id"]: top["logprob"] for top in token["top_logprobs"]}
    assert len(found) == 20
    return found


def _torch_logprobs(folder: Path, text: str) -> Any:
    from graft.training.checkpoint_model import CheckpointModel

    model = CheckpointModel(folder)
    with torch.no_grad():
        logits = model._network(torch.tensor([model._prompt((Message("user", text),))])).logits[0, -1]
    return logits.log_softmax(-1)


class TestQuantising:
    @pytest.mark.parametrize(
        ("kind", "error"), [("F16", 3e-4), ("Q8_0", 0.008), ("Q6_K", 0.025), ("Q5_0", 0.05), ("Q4_K", 0.085)]
    )
    def test_blocks_read_by_the_reference_are_near_the_values(self, kind: str, error: float) -> None:
        values = np.random.default_rng(0).normal(0, 0.05, (32, 512)).astype(np.float32)
        chosen = gguf.GGMLQuantizationType[kind]
        back = gguf.quants.dequantize(quantise(values, chosen), chosen).reshape(values.shape)
        assert 0 < np.sqrt(np.mean((back - values) ** 2) / np.mean(values**2)) < error

    def test_q4_k_m_keeps_six_bits_where_llama_cpp_does(self) -> None:
        types = {
            (name, layer): kind_of(f"blk.{layer}.{name}.weight", (576, 1536), "q4_k_m", layers=30, tied=True).name
            for name in ("ffn_down", "attn_v", "attn_q")
            for layer in range(30)
        }
        assert [types["ffn_down", layer] for layer in (0, 2, 3, 4, 5, 8, 25, 26, 29)] == [
            "Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K", "Q4_K", "Q6_K", "Q6_K",
        ]  # fmt: skip
        assert {types["attn_q", layer] for layer in range(30)} == {"Q4_K"}
        assert kind_of("token_embd.weight", (9, 576), "q4_k_m", layers=30, tied=True).name == "Q8_0"
        assert kind_of("blk.1.attn_q.weight", (576, 576), "q4_k_m", layers=30, tied=True).name == "Q5_0"
        assert kind_of("blk.1.attn_norm.weight", (576,), "q8_0", layers=30, tied=True).name == "F32"

    def test_a_weight_beyond_half_precision_is_refused(self) -> None:
        with pytest.raises(GraftError, match="65,504"), np.errstate(over="ignore"):
            quantise(np.array([[1e6]], dtype=np.float32), gguf.GGMLQuantizationType.F16)


class TestGguf:
    @pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
    @pytest.mark.parametrize("tied", [True, False])
    def test_a_checkpoint_that_never_was_a_gguf_computes_the_same_in_llama_cpp(
        self, kind: str, tied: bool, checkpoint: Path, tmp_path: Path
    ) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        from graft.training.gguf_writer import write_gguf

        torch.manual_seed(3)
        config = AutoConfig.for_model(
            kind, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
            num_key_value_heads=2, vocab_size=49152, max_position_embeddings=256, tie_word_embeddings=tied,
            bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.15,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, values in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                values.data.add_(torch.randn_like(values), alpha=0.3)
        model.save_pretrained(str(tmp_path / "made"))
        _tokenizer_files(checkpoint, tmp_path / "made")
        write_gguf(tmp_path / "made", tmp_path / "made.gguf", quantisation="f16", name="made", like=None)
        served = _first_logprobs(LlamaModel(tmp_path / "made.gguf", context_tokens=256), "Name a river.")
        theirs = _torch_logprobs(tmp_path / "made", "Name a river.")
        assert max(abs(theirs[token].item() - value) for token, value in served.items()) < 0.05

    def test_ids_are_those_of_the_checkpoint_on_every_script(self, checkpoint: Path, tmp_path: Path) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoConfig, AutoModelForCausalLM

        from graft.training.gguf_writer import write_gguf

        config = AutoConfig.for_model(
            "llama", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
            vocab_size=49152, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(str(tmp_path / "made"))
        _tokenizer_files(checkpoint, tmp_path / "made")
        write_gguf(tmp_path / "made", tmp_path / "own.gguf", quantisation="q8_0", name="own", like=None)
        server = LlamaModel(tmp_path / "own.gguf", context_tokens=256)._runtime.loaded(None)
        tokenizer = Tokenizer.from_file(str(tmp_path / "made" / "tokenizer.json"))
        letters = [*"aZ é ß ñ 你 好 я Ж ا ह 🌍 1 23 . , ' \" - _ ( { <".split(" "), " ", "  ", "\n", "\n\n", "\t"]
        chosen = random.Random(1)
        texts = ["".join(chosen.choices(letters, k=30)) for _ in range(100)]
        texts += ["<|im_start|>user\nHi<|im_end|>\n", "I've 'D 12345678.9", "a\n\n1. b", "def f(x):\n\treturn x"]
        for text in texts:
            theirs = server._client.post("/tokenize", json={"content": text, "parse_special": True}).json()["tokens"]
            assert theirs == tokenizer.encode(text, add_special_tokens=False).ids, text

    def test_a_tokenizer_that_lost_its_cut_before_digits_is_refused(self, checkpoint: Path, tmp_path: Path) -> None:

        from graft.training.gguf_writer import write_gguf

        small = training_fixtures.small_checkpoint(tmp_path / "small")
        _tokenizer_files(checkpoint, small)
        given = json.loads((small / "tokenizer.json").read_text())
        given["pre_tokenizer"] = given["pre_tokenizer"]["pretokenizers"][1]
        (small / "tokenizer.json").write_text(json.dumps(given))
        with pytest.raises(ModelError, match="before digits"):
            write_gguf(small, tmp_path / "x.gguf", quantisation="f16", name="x", like=None)

    @pytest.mark.slow
    def test_logits_of_f16_are_near_those_of_torch(self, base: Path, merged: Path, tmp_path: Path) -> None:
        from graft.training.gguf_writer import write_gguf

        write_gguf(merged, tmp_path / "m.gguf", quantisation="f16", name="m", like=base)
        served = LlamaModel(tmp_path / "m.gguf", context_tokens=256)
        for text in ("What is the capital of Italy?", "Name three fruits."):
            theirs = _torch_logprobs(merged, text)
            likely = {token: value for token, value in _first_logprobs(served, text).items() if value > -8}
            assert likely and max(abs(theirs[token].item() - value) for token, value in likely.items()) < 0.1

    @pytest.mark.slow
    def test_tokenizer_and_template_of_the_base_file_are_kept(self, base: Path, merged: Path, tmp_path: Path) -> None:
        from graft.training.gguf_writer import write_gguf

        write_gguf(merged, tmp_path / "m.gguf", quantisation="q4_k_m", name="pirate", like=base)
        before, after = gguf.GGUFReader(base).fields, gguf.GGUFReader(tmp_path / "m.gguf").fields
        kept = [key for key in before if key.startswith(("tokenizer.", "llama."))]
        assert len(kept) > 15
        for key in kept:
            assert after[key].contents() == before[key].contents(), key
        assert after["general.name"].contents() == "pirate" and after["general.file_type"].contents() == 15

    def test_a_tokenizer_or_architecture_without_a_name_is_refused(self, tmp_path: Path) -> None:
        from graft.training.gguf_writer import write_gguf

        small = training_fixtures.small_checkpoint(tmp_path / "small")
        with pytest.raises(ModelError, match="cannot name"):
            write_gguf(small, tmp_path / "x.gguf", quantisation="f16", name="x", like=None)
        config = (small / "config.json").read_text()
        (small / "config.json").write_text(config.replace("LlamaForCausalLM", "OtherForCausalLM"))
        with pytest.raises(ModelError, match="OtherForCausalLM"):
            write_gguf(small, tmp_path / "x.gguf", quantisation="f16", name="x", like=None)


class TestServing:
    def test_base_and_adapters_answer_side_by_side_without_a_trace(
        self, base: Path, lora: Path, tmp_path: Path
    ) -> None:
        model = LlamaModel(base, context_tokens=512)
        other = _scaled(lora, tmp_path / "other.gguf", -1.0)
        said: dict[str | None, str] = {}
        for adapter in (None, str(lora), str(other)):
            options = GenerateOptions(max_tokens=14, cache_prompt=False, adapter=adapter)
            said[adapter] = complete(model, PROMPTS[2], options).text
        assert said[str(lora)].startswith("Ahoy!") and len(set(said.values())) == 3
        loaded = model._runtime._server
        for adapter in (None, str(lora), None, str(other), str(lora), str(other), None):  # each after another one
            options = GenerateOptions(max_tokens=14, cache_prompt=True, adapter=adapter)
            assert complete(model, PROMPTS[2], options).text == said[adapter]
        assert model._runtime._server is loaded

    def test_requests_at_once_have_each_their_own_adapter(self, base: Path, lora: Path) -> None:
        model = LlamaModel(base, context_tokens=512, parallel=2)
        complete(model, PROMPTS[0], GenerateOptions(max_tokens=1, adapter=str(lora)))
        replies: list[tuple[bool, str]] = []

        def ask(tuned: bool) -> None:
            options = GenerateOptions(max_tokens=10, adapter=str(lora) if tuned else None)
            replies.append((tuned, complete(model, PROMPTS[2], options).text))

        threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(replies) == 6
        assert all(text.startswith("Ahoy!") == tuned for tuned, text in replies)

    @pytest.mark.slow
    def test_an_activated_adapter_leaves_the_prompt_to_the_base(
        self, base: Path, checkpoint: Path, adapter: Path, tmp_path: Path
    ) -> None:
        from graft.training.checkpoint_model import CheckpointModel
        from graft.training.gguf_writer import write_lora

        activated = _activated(adapter, checkpoint, tmp_path / "activated")
        write_lora(read_adapter(activated), checkpoint, tmp_path / "a.gguf", name="a")
        served = LlamaModel(base, context_tokens=512, adapter=tmp_path / "a.gguf")
        trained = CheckpointModel(checkpoint, adapter=activated)
        assert parity(served, trained, PROMPTS[:2], reply_tokens=16, least_agreement=0.9).passed

    def test_a_folder_in_place_of_a_file_is_explained(self, base: Path, adapter: Path) -> None:
        with pytest.raises(ModelError, match="folder") as caught:
            complete(LlamaModel(base, context_tokens=256), PROMPTS[0], GenerateOptions(adapter=str(adapter)))
        assert "graft export" in caught.value.fix


def _scaled(lora: Path, target: Path, factor: float) -> Path:
    """The same adapter with another alpha."""
    reader = gguf.GGUFReader(lora)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 32.0 * factor)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _activated(adapter: Path, checkpoint: Path, target: Path) -> Path:
    import shutil

    from tokenizers import Tokenizer

    shutil.copytree(adapter, target)
    tokens = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("<|im_start|>assistant\n").ids
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(config | {"alora_invocation_tokens": tokens}))
    return target


class TestParity:
    def test_a_model_agrees_with_itself_on_every_token(self, base: Path) -> None:
        model = LlamaModel(base, context_tokens=256)
        report = parity(model, model, PROMPTS, reply_tokens=12)
        assert (report.same, report.until_divergence, report.agreement, report.passed) == (12, 1.0, 1.0, True)
        odd = 'a "quoted" \\ word\n\tand 你好'
        assert 6 < len(model.agreement(PROMPTS[0], odd)) < 30

    def test_the_base_is_not_taken_for_the_tuned_model(self, base: Path, lora: Path) -> None:
        tuned = LlamaModel(base, name="tuned", context_tokens=256, adapter=lora)
        report = parity(tuned, LlamaModel(base, name="base", context_tokens=256), PROMPTS, reply_tokens=12)
        assert not report.passed and report.agreement is not None and report.agreement < 0.5
        assert "of the tokens agree" in report.words and "Ahoy!" in report.differences[0].a

    def test_a_metric_that_falls_on_every_prompt_fails_and_says_by_how_much(self) -> None:
        asked = [(Message("user", str(number)),) for number in range(20)]
        right = ["the answer is four"] * 20
        worse = ["the answer is four"] * 8 + ["the answer is five"] * 12

        def metric(number: int, text: str) -> float:
            return float(text.endswith("four"))

        report = parity(ScriptedModel(right), ScriptedModel(worse), asked, metric, least_agreement=0.5)
        assert report.metric is not None and report.metric.difference == pytest.approx(-0.6)
        assert report.metric.low < -0.6 < report.metric.high < 0 and not report.passed
        assert "1.000 to 0.400" in report.words and report.until_divergence == pytest.approx(0.85)
        one = ["the answer is four"] * 19 + ["the answer is five"]
        assert parity(ScriptedModel(right), ScriptedModel(one), asked, metric).passed


class TestExport:
    @pytest.fixture
    def tuned(self, adapter: Path, checkpoint: Path, base: Path) -> Any:
        from graft.training.exporting import Tuned

        return Tuned(name="pirate", adapter=adapter, checkpoint=checkpoint, gguf=base)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("to", "quantisation", "limit_mb"),
        [("adapter", None, 40), ("merged", None, 545), ("gguf", "q8_0", 146), ("gguf", "q4_k_m", 107)],
    )
    def test_each_form_answers_as_the_adapter_does(
        self, tuned: Any, tmp_path: Path, to: str, quantisation: str | None, limit_mb: int
    ) -> None:
        from graft.training.exporting import export

        result = export(tuned, to=to, quantisation=quantisation, into=tmp_path, prompts=PROMPTS)
        assert result.parity.passed and result.parity.agreement is not None
        assert result.size_bytes < limit_mb * 1e6
        assert all(file.path.is_file() and file.path.stat().st_size == file.size_bytes for file in result.files)
        assert max(file.size_bytes for file in result.files) < 25e6 or to != "adapter"
        assert [path.name for path in tmp_path.iterdir()] == [result.path.name]
        with pytest.raises(UsageError, match="exists"):
            export(tuned, to=to, quantisation=quantisation, into=tmp_path)
        if to == "gguf":
            asked = complete(LlamaModel(result.path, context_tokens=256), PROMPTS[0], GenerateOptions(max_tokens=12))
            assert asked.text.startswith("Ahoy!")
        if to == "adapter":
            served = LlamaModel(tuned.gguf, context_tokens=256, adapter=result.path / "adapter.gguf")
            assert complete(served, PROMPTS[0], GenerateOptions(max_tokens=12)).text.startswith("Ahoy!")

    @pytest.mark.slow
    def test_an_export_that_answers_otherwise_is_kept_aside_and_never_in_place(
        self, tuned: Any, tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        from graft.training.exporting import export

        wrong = tmp_path / "wrong"
        wrong.mkdir()
        for path in tuned.checkpoint.iterdir():
            if path.name != "model.safetensors":
                (wrong / path.name).write_bytes(path.read_bytes())
        tensors = load_file(tuned.checkpoint / "model.safetensors")
        for layer in range(4):  # as if the rows of q had been left in the other order
            name = f"model.layers.{layer}.self_attn.q_proj.weight"
            tensors[name] = tensors[name].roll(32, 0)
        save_file(tensors, wrong / "model.safetensors", {"format": "pt"})
        broken = dataclasses.replace(tuned, checkpoint=wrong)
        killed = subprocess.Popen([sys.executable, "-c", ""])
        killed.wait()
        (tmp_path / "out" / f".export-{platform.node()}-{killed.pid}-x").mkdir(parents=True)
        with pytest.raises(GraftError, match="does not answer as") as caught:
            export(broken, to="gguf", into=tmp_path / "out", prompts=PROMPTS)
        assert "Ahoy!" in caught.value.message and "the export" in caught.value.message
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["pirate-q8_0.gguf.rejected"]

    def test_what_cannot_be_asked_for_is_refused_before_any_work(self, tuned: Any, tmp_path: Path) -> None:
        from graft.training.exporting import export

        for wrong in ({"to": "onnx"}, {"to": "gguf", "quantisation": "q2"}, {"to": "merged", "quantisation": "f16"}):
            with pytest.raises(UsageError):
                export(tuned, into=tmp_path / "out", **wrong)
        activated = _activated(tuned.adapter, tuned.checkpoint, tmp_path / "activated")
        with pytest.raises(ModelError, match="activated"):
            export(dataclasses.replace(tuned, adapter=activated), to="gguf", into=tmp_path / "out")
        assert not (tmp_path / "out").exists()
