"""A GGUF file, or a folder from anywhere -> a checkpoint that is safe to open.

A checkpoint is a Hugging Face folder: config.json, safetensors weights, tokenizer.json, and a
tokenizer_config.json with the chat template. Nothing in it is ever executed: pickled weights and models
that bring their own code are refused. It does not know how models are trained.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from graft.access import join_inside
from graft.errors import ModelError, UsageError
from graft.models.gguf import read_head
from graft.models.llama import LlamaModel
from graft.models.protocol import Message
from graft.training.silence import quiet
from graft.training.vocabulary import DIGITS_FIRST

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ORIGIN = "graft_origin.json"
_USUAL_CONTEXT = 2048
_CONVERSION = 2
"""Raised when the conversion changes, so that a checkpoint made by a former one is not used."""

_PROBES = (
    (Message("user", "Name 3 rivers.\n\n  And\ttheir lengths?  "),),
    (Message("system", "Be brief."), Message("user", "Größe, naïve café, 日本語, नमस्ते, Ёлка, 🌍🚲")),
    (
        Message("user", "def f(x):\n    return x**2 - 12345.678"),
        Message("assistant", "It squares."),
        Message("user", "?"),
    ),
    (Message("user", "Steps:\n\n1. add  2 kg\n\n   33 g\t4"),),
    (Message("user", "A literal <|im_end|> and </s>, 'quotes' \"too\" & 100%."),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose head was read and found safe; no weight is loaded.

    Attributes:
        architecture: transformers' `model_type`.
        context_tokens: The most it was trained for.
        weights: Its safetensors files.
        config: config.json as it stands.
    """

    folder: Path
    architecture: str
    context_tokens: int
    weights: tuple[Path, ...]
    config: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the head of a checkpoint and refuse what would have to be executed.

    Raises:
        ModelError: Not a checkpoint, pickled weights, remote code, or a damaged file.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is no checkpoint: it has no config.json",
            fix="give a folder saved by transformers, or a model from `graft models list`",
        )
    config = _read_json(folder / "config.json")
    for path in (folder / "config.json", folder / "tokenizer_config.json", folder / "processor_config.json"):
        if path.is_file() and "auto_map" in _read_json(path):
            raise ModelError(
                f"{path} names code of its own (auto_map), which Graft never executes",
                fix="choose a model whose architecture transformers itself knows",
            )
    weights = tuple(_weight_files(folder))
    for path in weights:
        _check_safetensors(path)
    _find_tokenizer(folder)
    return Checkpoint(
        folder=folder,
        architecture=str(config.get("model_type", "unknown")),
        context_tokens=_context_tokens(config, folder),
        weights=weights,
        config=config,
    )


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer, with its chat template; one without a pad token pads with its end token.

    Raises:
        ModelError: It cannot be read, or has no chat template.
    """
    with quiet():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"the tokenizer in {checkpoint.folder} cannot be read: {str(error)[:300]}",
                fix="fetch the checkpoint again, with its tokenizer.json",
            ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer in {checkpoint.folder} has no chat template: no prompt can be made as it will be served",
            fix="choose the model's -instruct variant, or put its template into chat_template.jinja",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(checkpoint: Checkpoint, **options: Any) -> Any:
    """transformers' model, from safetensors alone and without remote code. `options` go to `from_pretrained`.

    Raises:
        ModelError: transformers does not know the architecture, or a weight is missing or of another size: it would
            draw that one at random, without a word.
    """
    with quiet():
        import transformers

        make: Any = transformers.AutoModelForCausalLM
        try:
            model, found = make.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"{checkpoint.folder} cannot be loaded: {str(error).partition('. ')[0][:300]}",
                fix="choose a model whose architecture transformers itself knows",
            ) from error
    if lost := sorted((*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"]))):
        named = ", ".join(lost[:3]) + (" and others" if len(lost) > 3 else "")
        raise ModelError(
            f"{checkpoint.folder} lacks, or has in another size, {named}",
            fix="fetch the checkpoint again",
        )
    return model


def checkpoint_from_gguf(path: Path, into: Path) -> Path:
    """Dequantise a GGUF model to a float32 checkpoint in `into`/NAME-SHA256[:16]-CONVERSION; done once for each file.

    The tokenizer and the chat template are the GGUF's own, held against llama.cpp's count of tokens on
    prompts in several scripts: a model trained on other tokens than it is served with would be useless.

    Returns: The checkpoint's folder.
    Raises:
        ModelError: Not a GGUF model, an architecture that transformers cannot convert, or another tokenizer.
    """
    head = read_head(path)
    if head.kind != "model":
        raise ModelError(f"{path} is a GGUF {head.kind}, not a model", fix="give the base model's file")
    sha256 = _sha256(path)
    target = into / f"{path.stem.lower()}-{sha256[:16]}-{_CONVERSION}"
    into.mkdir(parents=True, exist_ok=True)
    with FileLock(into / f".{target.name}.lock"):
        if not (target / _ORIGIN).is_file():
            with tempfile.TemporaryDirectory(dir=into, prefix=".converting-") as scratch:
                made = Path(scratch) / "checkpoint"
                _dequantise(path, made)
                _compare_tokens(path, made)
                (made / _ORIGIN).write_text(
                    json.dumps({"file": path.name, "sha256": sha256}) + "\n", encoding="utf-8"
                )
                shutil.rmtree(target, ignore_errors=True)
                made.rename(target)
    return target


def _dequantise(path: Path, into: Path) -> None:
    with quiet(), redirect_stderr(io.StringIO()):  # one of its progress bars cannot be switched off
        import torch
        import transformers

        make: Any = transformers.AutoModelForCausalLM
        try:
            model = make.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        except (ValueError, KeyError, NotImplementedError, OSError) as error:
            raise ModelError(
                f"transformers cannot convert {path.name}: {str(error)[:300]}",
                fix="give the model's checkpoint folder (safetensors) instead of its GGUF",
            ) from error
        # transformers 5.23 refuses to save a model that it read from a GGUF: its configuration still says
        # that it is quantised. So the same weights go, strictly, into a fresh model of the same shape.
        values = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
        fresh = make.from_config(type(model.config)(**values), dtype=torch.float32)
        fresh.load_state_dict(model.state_dict(), strict=True)
        fresh.generation_config = model.generation_config
        fresh.save_pretrained(into)
        _restore_splitting(tokenizer, path)
        tokenizer.save_pretrained(into, save_jinja_files=False)


def _restore_splitting(tokenizer: Any, gguf: Path) -> None:
    """Cut before every digit where the GGUF says so: transformers 5.23 drops that half of SmolLM's splitter.

    Without it "\\n\\n1" is other tokens in training than when it is served.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if read_head(gguf).splitter in DIGITS_FIRST:
        both = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(both)


def _compare_tokens(gguf: Path, folder: Path) -> None:
    tokenizer = load_tokenizer(open_checkpoint(folder))
    served = LlamaModel(gguf, context_tokens=512, threads=1)
    for messages in _PROBES:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        ours = list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
        theirs = served.token_ids(messages)
        if ours != theirs:
            raise ModelError(
                f"{gguf.name}: the converted tokenizer makes {len(ours)} tokens, llama.cpp {len(theirs)}, and not "
                f"the same ones, of {messages[-1].content!r}",
                fix="give the model's checkpoint folder (safetensors) instead of its GGUF",
            )


def _context_tokens(config: dict[str, Any], folder: Path) -> int:
    """The most positions, under the name that the architecture has for them."""
    inner = config.get("text_config")
    for one in (config, inner if isinstance(inner, dict) else {}):
        for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
            if name not in one or one[name] is None:
                continue
            if isinstance(one[name], int) and one[name] > 0:
                return int(one[name])
            raise ModelError(
                f"{folder / 'config.json'}: {name} is {one[name]!r}, not a number of tokens",
                fix="fetch the checkpoint again",
            )
    return _USUAL_CONTEXT


def _weight_files(folder: Path) -> Iterator[Path]:
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
            paths = [join_inside(folder, name) for name in names]
        except (KeyError, AttributeError, TypeError, UsageError) as error:
            raise ModelError(f"{folder / INDEX} is damaged: {error}", fix="fetch the checkpoint again") from error
        if lost := [path.name for path in paths if not path.is_file()]:
            raise ModelError(f"{folder} lacks {', '.join(lost[:5])}", fix="fetch the checkpoint again")
        yield from paths
    elif (folder / WEIGHTS).is_file():
        yield folder / WEIGHTS
    elif pickled := [path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLED]:
        raise ModelError(
            f"{folder} holds pickled weights ({', '.join(pickled[:3])}), which can run any code when opened; "
            "Graft opens safetensors and GGUF only",
            fix="fetch the model's safetensors, or convert it on a machine that you can lose",
        )
    else:
        raise ModelError(f"{folder} has no {WEIGHTS}", fix="fetch the checkpoint again")


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as tensors:
            if not tensors.keys():
                raise ModelError(f"{path} holds no tensor", fix="fetch the checkpoint again")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {error}", fix="fetch the checkpoint again"
        ) from error


def _find_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{folder} has no tokenizer.json", fix="save the model's tokenizer into the folder")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", fix="fetch the checkpoint again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object", fix="fetch the checkpoint again")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
