"""LlamaIndex, LangChain + FAISS and txtai: the ordinary pipeline that each one documents, on given weights.

Loaders, splitters, batch sizes and stores are each peer's own; all have the same model, threads and
chunk size. They build a dense index in memory (Graft, beside them, also writes a database and a BM25 index).
It does not know what is measured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.system import CHARACTERS_PER_TOKEN, CHUNK_TOKENS, OVERLAP_TOKENS, System, Task

WARM_UP = "a first text"

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "LANGSMITH_TRACING": "false"}


class LlamaIndex:
    """SimpleDirectoryReader -> SentenceSplitter -> VectorStoreIndex (in memory)."""

    distributions = ("llama-index-core", "llama-index-embeddings-huggingface", "llama-index-readers-file")
    modules = (
        "llama_index.core",
        "llama_index.core.node_parser",
        "llama_index.embeddings.huggingface",
        "llama_index.readers.file",
    )

    def load_model(self, task: Task) -> None:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        _set_torch_threads(task.threads)
        self._embedding = HuggingFaceEmbedding(model_name=str(task.weights), device="cpu")
        self._embedding.get_text_embedding(WARM_UP)

    def ingest(self, task: Task) -> int:
        from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.readers.file import HTMLTagReader

        # Without a reader for HTML the tags would be embedded; "body" because a page need not have <section>.
        readers: Any = {".html": HTMLTagReader(tag="body")}
        documents = SimpleDirectoryReader(str(task.folder), file_extractor=readers, raise_on_error=True).load_data()
        splitter = SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=OVERLAP_TOKENS)
        self._index = VectorStoreIndex.from_documents(
            documents, embed_model=self._embedding, transformations=[splitter]
        )
        return len(self._index.index_struct.nodes_dict)

    def search(self, question: str, k: int) -> list[str]:
        nodes = self._index.as_retriever(similarity_top_k=k).retrieve(question)
        return [node.node.get_content() for node in nodes]


class LangChain:
    """DirectoryLoader -> RecursiveCharacterTextSplitter -> FAISS."""

    distributions = (
        "langchain",
        "langchain-community",
        "langchain-huggingface",
        "faiss-cpu",
        "beautifulsoup4",
        "sentence-transformers",
    )

    modules = (
        "langchain_community.document_loaders",
        "langchain_community.vectorstores",
        "langchain_huggingface",
        "langchain_text_splitters",
    )

    def load_model(self, task: Task) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings

        _set_torch_threads(task.threads)
        self._embeddings = HuggingFaceEmbeddings(model_name=str(task.weights), model_kwargs={"device": "cpu"})
        self._embeddings.embed_query(WARM_UP)

    def ingest(self, task: Task) -> int:
        from langchain_community.document_loaders import BSHTMLLoader, DirectoryLoader, PyPDFLoader, TextLoader
        from langchain_community.vectorstores import FAISS
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        loaders: list[tuple[str, Any, dict[str, Any]]] = [
            ("**/*.txt", TextLoader, {"encoding": "utf-8"}),
            ("**/*.md", TextLoader, {"encoding": "utf-8"}),
            ("**/*.html", BSHTMLLoader, {"open_encoding": "utf-8", "bs_kwargs": {"features": "html.parser"}}),
            ("**/*.pdf", PyPDFLoader, {}),
        ]
        documents = []
        for pattern, loader, options in loaders:
            directory = DirectoryLoader(str(task.folder), glob=pattern, loader_cls=loader, loader_kwargs=options)
            documents += directory.load()
        splitter = RecursiveCharacterTextSplitter(
            chunk_size=int(CHUNK_TOKENS * CHARACTERS_PER_TOKEN),
            chunk_overlap=int(OVERLAP_TOKENS * CHARACTERS_PER_TOKEN),
        )
        self._store = FAISS.from_documents(splitter.split_documents(documents), self._embeddings)
        return int(self._store.index.ntotal)

    def search(self, question: str, k: int) -> list[str]:
        return [document.page_content for document in self._store.similarity_search(question, k=k)]


class Txtai:
    """Textractor with a recursive chunker -> Embeddings with content (FAISS + SQLite in memory)."""

    distributions = ("txtai", "chonkie", "beautifulsoup4", "faiss-cpu")
    modules = ("txtai", "txtai.pipeline")

    def load_model(self, task: Task) -> None:
        from txtai import Embeddings

        _set_torch_threads(task.threads)
        self._embeddings = Embeddings(path=str(task.weights), content=True, gpu=False)
        self._embeddings.batchtransform([WARM_UP])

    def ingest(self, task: Task) -> int:
        from txtai.pipeline import Textractor

        extract = Textractor(chunker="recursive", chunk_size=int(CHUNK_TOKENS * CHARACTERS_PER_TOKEN))
        paths = sorted(path for path in task.folder.rglob("*") if path.is_file())
        self._embeddings.index(chunk for path in paths for chunk in extract(str(path)))
        return int(self._embeddings.count())

    def search(self, question: str, k: int) -> list[str]:
        return [row["text"] for row in self._embeddings.search(question, k)]


PEERS: dict[str, type[System]] = {"llamaindex": LlamaIndex, "langchain-faiss": LangChain, "txtai": Txtai}

READS_PDF = ("llamaindex", "langchain-faiss")
"""txtai reads PDF only through Tika (Java) or docling (models from a hub)."""


def sentence_transformers_folder(weights: Path, into: Path) -> Path:
    """`weights` itself if it has the layout of sentence-transformers, else a folder of links that has.

    Graft needs the tensors and the tokenizer only; without modules.json sentence-transformers would
    read 512 tokens and leave the vectors unnormalised, which is another task.
    """
    if (weights / "modules.json").exists():
        return weights
    into.mkdir(parents=True)
    for path in weights.iterdir():
        (into / path.name).symlink_to(path.resolve())
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    _write_json(into / "modules.json", modules)
    _write_json(into / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    _write_json(
        into / "1_Pooling" / "config.json", {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True}
    )
    return into


def pin_threads(threads: int) -> None:
    """Before anything numeric is imported: one number of threads for every library, and no network."""
    for name in ("OMP", "MKL", "OPENBLAS", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ.update(OFFLINE)


def _set_torch_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _write_json(path: Path, value: Any) -> None:
    import json

    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(value))
