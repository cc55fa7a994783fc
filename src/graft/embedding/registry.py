"""settings -> an open embedder: a catalogue model, a folder with an ONNX file, or a hosted model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from graft.embedding.graph import GRAPH_VERSION, build_graph
from graft.embedding.hosted import HostedEmbedder
from graft.embedding.local import OnnxEmbedder
from graft.embedding.protocol import Embedder
from graft.errors import UsageError
from graft.models.catalogue import catalogue, pulled
from graft.settings import EmbeddingSettings

PRECISIONS = ("fp32", "int8")
HOSTED_PREFIX = "litellm/"
_SENTENCE_TOKENS = 256


def open_embedder(settings: EmbeddingSettings, *, cache: Path) -> Embedder:
    """Open the embedder that the settings name.

    Args:
        cache: Folder of pulled models.
    Raises:
        UsageError: No such model, or an unknown precision.
        ModelError: The model is not pulled, or its files cannot be loaded.
    """
    if settings.precision not in PRECISIONS:
        raise UsageError(
            f"[embedding] precision = {settings.precision!r}; have {', '.join(PRECISIONS)}",
            fix="set precision to one of them in graft.toml",
        )
    if settings.model.startswith(HOSTED_PREFIX):
        return HostedEmbedder(settings.model.removeprefix(HOSTED_PREFIX))
    folder = Path(settings.model)
    if folder.is_dir():
        return _open_onnx_folder(folder, threads=settings.threads)
    embedders = {name: spec for name, spec in catalogue().items() if spec.kind == "embedder"}
    if settings.model not in embedders:
        raise UsageError(
            f"no embedder named {settings.model!r}; have {', '.join(sorted(embedders))}, "
            "a folder with model.onnx and tokenizer.json, or litellm/PROVIDER/MODEL",
            fix="set [embedding] model in graft.toml",
        )
    spec = embedders[settings.model]
    weights = pulled(spec, cache=cache)
    return OnnxEmbedder(
        build_graph(weights.folder, settings.precision),
        weights.folder / "tokenizer.json",
        identity=f"{spec.name}/{settings.precision}/g{GRAPH_VERSION}@{weights.sha256['model.safetensors'][:12]}",
        max_tokens=spec.context_tokens,
        fix=f"graft models pull {spec.name} --force",
        threads=settings.threads,
    )


def _open_onnx_folder(folder: Path, *, threads: int) -> Embedder:
    graph = next((f for f in (folder / "model.onnx", folder / "onnx" / "model.onnx") if f.exists()), None)
    if graph is None or not (folder / "tokenizer.json").exists():
        raise UsageError(
            f"{folder} does not hold model.onnx and tokenizer.json", fix="export the model to ONNX into that folder"
        )
    with graph.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OnnxEmbedder(
        graph,
        folder / "tokenizer.json",
        identity=f"{folder.resolve().name}@{digest[:12]}",
        max_tokens=_SENTENCE_TOKENS,
        fix=f"export the model to ONNX into {folder} again",
        threads=threads,
    )
