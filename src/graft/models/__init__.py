"""messages -> a reply, streamed: llama.cpp in this process, or any hosted model through LiteLLM.

It does not know documents or retrieval.
"""

from graft.models.catalogue import CatalogueEntry, PulledModel, catalogue, pulled
from graft.models.protocol import (
    GenerateOptions,
    Message,
    Model,
    Piece,
    Reply,
    TokenScore,
    ToolCall,
    Tools,
    Usage,
    complete,
    drain,
    generate,
)
from graft.models.specs import ModelSpec, open_model, spec_for

__all__ = [
    "CatalogueEntry",
    "GenerateOptions",
    "Message",
    "Model",
    "ModelSpec",
    "Piece",
    "PulledModel",
    "Reply",
    "TokenScore",
    "ToolCall",
    "Tools",
    "Usage",
    "catalogue",
    "complete",
    "drain",
    "generate",
    "open_model",
    "pulled",
    "spec_for",
]
