"""A checkpoint's config.json and tokenizer.json -> the fields of a GGUF, for a base that never was one.

Only byte-level BPE whose way of splitting text llama.cpp knows by name is written; any other is refused, because a
nearly right tokenizer changes the model without a word. It does not know weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis conca"
    "tenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិ"
    "សេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български"
    " ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll mak"
    "e it, 'D you like some tea? We'Ve a'lL"
)
_SPLITTERS = {
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": "llama-bpe",
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": "qwen2",
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": "qwen2",
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": "smollm",
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": "tekken",
    "35d91631860c815f952d711435f48d356ebac988362536bed955d43bfa436e34": "starcoder",
    "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454": "gpt-2",
}
"""sha256 of the ids that a tokenizer gives the probe -> llama.cpp's name of it; both from its converter (MIT)."""

DIGITS_FIRST = {"smollm", "starcoder"}
"""Cut before every digit, then as GPT-2 does. The probe cannot see a copy that lost the first half of this (as those
that transformers makes from a GGUF have): only white space before a number tells."""


def write_hyperparameters(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Sizes and constants of a llama-like decoder.

    Raises:
        ModelError: Positions that are scaled, which llama.cpp would compute otherwise.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ModelError(
            f"its positions are scaled ({rope}), which is not written yet",
            fix="tune from the model's GGUF, or graft export NAME --to merged and convert with llama.cpp",
        )
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def write_vocabulary(writer: GGUFWriter, checkpoint: Path, config: Mapping[str, Any]) -> None:
    """Tokens, merges, special tokens and chat template.

    Raises:
        ModelError: No tokenizer.json, or one that llama.cpp has no name for.
    """
    import gguf
    from tokenizers import Tokenizer

    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{checkpoint} has no tokenizer.json", fix="save the base with its fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    given = json.loads(path.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in given.get("added_tokens", ())}
    by_id = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    tokens, kinds = [], []
    for number in range(int(config["vocab_size"])):
        if number not in by_id:
            tokens.append(f"[PAD{number}]")
            kinds.append(gguf.TokenType.UNUSED)
            continue
        tokens.append(by_id[number])
        if number not in added:
            kinds.append(gguf.TokenType.NORMAL)
        else:
            special = added[number]["special"]
            kinds.append(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(tokenizer, given, path))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special_tokens = gguf.SpecialVocab(checkpoint, load_merges=True, n_vocab=len(tokens))
    special_tokens.add_to_gguf(writer, quiet=True)
    if "bos" not in special_tokens.add_special_token:
        begins = tokenizer.encode("a").ids[:1] == [config.get("bos_token_id")]
        writer.add_add_bos_token(begins)


def _splitter(tokenizer: Any, given: Mapping[str, Any], path: Path) -> str:
    ids = tokenizer.encode(_PROBE).ids
    name = _SPLITTERS.get(hashlib.sha256(str(ids).encode()).hexdigest())
    apart = tokenizer.encode("\n\n").ids + tokenizer.encode("1").ids
    if name in DIGITS_FIRST and tokenizer.encode("\n\n1").ids != apart:
        raise ModelError(
            f"{path} no longer cuts before digits as {name} does: it was converted from a GGUF with a loss",
            fix="give the GGUF it was made from, whose own tokenizer is then kept",
        )
    if given.get("model", {}).get("type") != "BPE" or name is None:
        raise ModelError(
            f"{path} splits text in a way that Graft cannot name to llama.cpp ({given.get('model', {}).get('type')})",
            fix="tune from the model's GGUF, or graft export NAME --to merged and convert with llama.cpp",
        )
    return name
