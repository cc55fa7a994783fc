"""llama.cpp, GGUF heads and opening models by name, with real weights."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from graft.errors import ContextOverflow, ModelError, NotFound, UsageError
from graft.models import GenerateOptions, Message, ModelSpec, complete, open_model, spec_for
from graft.models.catalogue import catalogue
from graft.models.gguf import read_head
from graft.models.llama import LlamaModel
from graft.settings import ModelSettings
from graft.testing.model import ModelContract

_spec = importlib.util.spec_from_file_location("model_fixtures", Path(__file__).with_name("model_fixtures.py"))
assert _spec is not None and _spec.loader is not None
model_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(model_fixtures)

QUESTION = (Message("user", "What is the capital of France?"),)


@pytest.fixture(scope="module")
def gguf() -> Path:
    return model_fixtures.smollm2()


@pytest.fixture(scope="module")
def model(gguf: Path) -> LlamaModel:
    return LlamaModel(gguf, name="smollm2-135m", context_tokens=768)


class TestLlamaModel(ModelContract):
    def test_tokens_are_counted_exactly(self, model: LlamaModel) -> None:
        for messages in (QUESTION, (Message("system", "Be brief."), *QUESTION), (Message("user", "你好 🌍 " * 20),)):
            assert (
                model.count_tokens(messages)
                == complete(model, messages, GenerateOptions(max_tokens=1)).usage.input_tokens
            )

    def test_overflow_names_what_the_model_itself_could_take(self, model: LlamaModel) -> None:
        with pytest.raises(ContextOverflow, match="768") as caught:
            next(model.stream(QUESTION, GenerateOptions(max_tokens=768)))
        assert "8,192" in caught.value.fix

    def test_two_threads_are_both_answered(self, model: LlamaModel) -> None:
        replies: list[str] = []
        asked = [
            threading.Thread(
                target=lambda: replies.append(complete(model, QUESTION, GenerateOptions(max_tokens=6)).text)
            )
            for _ in range(3)
        ]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join(120)
        assert len(replies) == 3 and all(replies)

    def test_a_long_prompt_is_given_up_soon_after_its_reader_left(self, model: LlamaModel) -> None:
        stream = model.stream(QUESTION, GenerateOptions(max_tokens=700))
        next(stream)
        stream.close()
        started = time.perf_counter()
        complete(model, QUESTION, GenerateOptions(max_tokens=1))
        assert time.perf_counter() - started < 8  # 700 tokens would take longer on any machine this runs on

    def test_one_file_is_loaded_once(self, model: LlamaModel, gguf: Path) -> None:
        again = LlamaModel(gguf, context_tokens=768)
        assert again._runtime is model._runtime
        assert LlamaModel(gguf, context_tokens=512)._runtime is not model._runtime

    def test_a_wrong_schema_is_refused_with_a_remedy(self, model: LlamaModel) -> None:
        with pytest.raises(ModelError, match="refuses") as caught:
            complete(model, QUESTION, GenerateOptions(json_schema={"type": "no-such-type"}))
        assert caught.value.fix
        assert complete(model, QUESTION, GenerateOptions(max_tokens=1)).text


def _lora(gguf: Path, target: Path, *, architecture: str = "llama", seed: int = 0, size: float = 0.3) -> Path:
    """A random LoRA of rank 2 on one layer's attention, written as the GGUF specification says."""
    random = np.random.default_rng(seed)
    width = 576
    tensors = {
        "blk.5.attn_output.weight.lora_a": random.normal(0, size, (2, width)).astype("<f4"),
        "blk.5.attn_output.weight.lora_b": random.normal(0, size, (width, 2)).astype("<f4"),
    }

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def pair(key: str, value: str | float) -> bytes:
        if isinstance(value, str):
            return text(key) + struct.pack("<I", 8) + text(value)
        return text(key) + struct.pack("<If", 6, value)

    pairs = [
        pair("general.architecture", architecture),
        pair("general.type", "adapter"),
        pair("adapter.type", "lora"),
        pair("adapter.lora.alpha", 4.0),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, values in tensors.items():
        head += text(name) + struct.pack("<IQQIQ", 2, values.shape[1], values.shape[0], 0, len(data))
        data += values.tobytes()
        data += b"\0" * (-len(data) % 32)
    target.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return target


def test_an_adapter_acts_on_its_own_request_alone(gguf: Path, tmp_path: Path) -> None:
    model = LlamaModel(gguf, context_tokens=512)
    options = GenerateOptions(max_tokens=12, cache_prompt=False)
    adapted = GenerateOptions(max_tokens=12, cache_prompt=False, adapter=str(_lora(gguf, tmp_path / "a.gguf")))
    base = complete(model, QUESTION, options).text
    changed = complete(model, QUESTION, adapted).text
    assert changed != base
    assert complete(model, QUESTION, options).text == base
    assert complete(model, QUESTION, adapted).text == changed
    tuned = LlamaModel(gguf, context_tokens=512, adapter=tmp_path / "a.gguf")
    assert complete(tuned, QUESTION, options).text == changed


def test_an_adapter_written_anew_is_loaded_anew(gguf: Path, tmp_path: Path) -> None:
    model = LlamaModel(gguf, context_tokens=512)
    options = GenerateOptions(max_tokens=12, cache_prompt=False, adapter=str(_lora(gguf, tmp_path / "a.gguf")))
    first = complete(model, QUESTION, options).text
    _lora(gguf, tmp_path / "a.gguf", seed=7, size=0.5)
    assert complete(model, QUESTION, options).text != first


def test_an_adapter_of_another_architecture_is_refused(gguf: Path, tmp_path: Path) -> None:
    model = LlamaModel(gguf, context_tokens=512)
    other = _lora(gguf, tmp_path / "a.gguf", architecture="qwen2")
    with pytest.raises(ModelError, match="qwen2"):
        complete(model, QUESTION, GenerateOptions(adapter=str(other)))
    with pytest.raises(ModelError, match="not a model"):
        LlamaModel(other)


def test_an_unused_model_is_unloaded(gguf: Path) -> None:
    model = LlamaModel(gguf, context_tokens=256)
    complete(model, QUESTION, GenerateOptions(max_tokens=1))
    loaded = weakref.ref(model._runtime)
    del model
    assert loaded() is None


def test_llama_cpp_writes_nothing_and_the_process_ends_by_itself(gguf: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from graft.models import *; from graft.models.llama import LlamaModel\n"
        "m = LlamaModel(Path(sys.argv[1]), context_tokens=256)\n"
        "stream = m.stream((Message('user', 'Hi'),), GenerateOptions(max_tokens=100)); next(stream)\n"
        "print('{}')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(gguf)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")


def test_ctrl_c_stops_a_generation_and_the_model_stays_usable(gguf: Path) -> None:
    program = (
        "import os, signal, sys, threading; from pathlib import Path; from graft.models import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it\n"
        "from graft.models.llama import LlamaModel\n"
        "m = LlamaModel(Path(sys.argv[1]), context_tokens=1024)\n"
        "threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "q = (Message('user', 'Tell a very long story.'),)\n"
        "try:\n    complete(m, q, GenerateOptions(max_tokens=900, temperature=1.0))\n"
        "except KeyboardInterrupt:\n    print('stopped', bool(complete(m, q, GenerateOptions(max_tokens=2)).text))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(gguf)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("stopped True\n", "")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b"", "not a GGUF"),
        (lambda b: b"PK\3\4" + b[4:], "not a GGUF"),
        (lambda b: b[:100], "damaged"),
        (lambda b: b[:1_700_000], "damaged"),
        (lambda b: b[:50_000_000], "cut short"),
        (lambda b: b[:-1], "cut short"),
        (lambda b: b[:4] + struct.pack("<I", 99) + b[8:1000], "damaged"),
        (lambda b: b[:8] + struct.pack("<Q", 2**40) + b[16:1000], "damaged"),
        (lambda b: b[:24] + struct.pack("<Q", 2**62) + b[32:1000], "damaged"),
    ],
)
def test_a_damaged_file_is_refused_before_llama_cpp_sees_it(
    gguf: Path, tmp_path: Path, damage: object, says: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damage(gguf.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ModelError, match=says) as caught:
        LlamaModel(broken)
    assert caught.value.fix


def test_a_file_that_llama_cpp_itself_refuses_is_an_error_with_a_remedy(gguf: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(gguf.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxxxa", 1))
    with pytest.raises(ModelError, match="cannot load"):
        complete(LlamaModel(strange, context_tokens=256), QUESTION)


def test_the_head_tells_context_and_template(gguf: Path) -> None:
    head = read_head(gguf)
    assert (head.kind, head.architecture, head.context_tokens, head.has_template) == ("model", "llama", 8192, True)
    assert catalogue()["smollm2-135m"].context_tokens == head.context_tokens


def test_a_name_is_a_path_a_hosted_model_or_a_catalogue_name() -> None:
    assert spec_for("litellm/openai/gpt-4o").kind == "api"
    assert spec_for("/models/x.gguf") == ModelSpec(name="x", kind="file", target="/models/x.gguf")
    assert spec_for("smollm2-135m").kind == "catalogue"
    with pytest.raises(NotFound):
        spec_for("gpt")


def test_a_spec_survives_json_and_refuses_a_key_in_place_of_its_name() -> None:
    spec = ModelSpec(
        name="m", kind="api", target="openai/x", api_base="http://h/v1", key_env="MY_KEY", context_tokens=9
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    with pytest.raises(UsageError) as caught:
        ModelSpec(name="m", kind="api", target="openai/x", key_env="sk-very-secret")
    assert "sk-very-secret" not in str(caught.value)
    for wrong in ("[]", "{", '{"name": "x"}', '{"name": "x", "kind": "file", "target": "t", "more": 1}'):
        with pytest.raises(UsageError):
            ModelSpec.from_json(wrong)


def test_opening_a_model_that_is_not_pulled_says_how_to_pull_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not pulled") as caught:
        open_model("smollm2-135m", settings=ModelSettings(), cache=tmp_path)
    assert caught.value.fix == "graft models pull smollm2-135m"
    with pytest.raises(ModelError, match="does not answer"):
        open_model("all-minilm-l6-v2", settings=ModelSettings(), cache=tmp_path)


def test_a_gguf_file_opens_by_its_path(gguf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.gguf"
    shutil.copy(gguf, copy)
    model = open_model(str(copy), settings=ModelSettings(context_tokens=512), cache=tmp_path)
    assert model.name == "mine" and model.context_tokens == 512
    big = open_model(str(copy), settings=ModelSettings(context_tokens=100_000), cache=tmp_path)
    assert big.context_tokens == 8192
    assert complete(model, QUESTION, GenerateOptions(max_tokens=2)).text
