"""messages -> a reply, streamed: llama.cpp in this process, or any hosted model through LiteLLM.

It does not know documents or retrieval.
"""

from graft.models.protocol import GenerateOptions, Message, Model, Reply, Usage, complete

__all__ = ["GenerateOptions", "Message", "Model", "Reply", "Usage", "complete"]
