"""messages -> a reply by llama.cpp in this process: a GGUF file, with or without LoRA adapters.

llama.cpp's own server object does the work (templates, batching, prefix cache, JSON schemas) and is spoken
to on a loopback port that a random key closes to others: closing that connection is what cancels a
generation, also in the middle of a prompt. One loaded model serves all `LlamaModel`s of one file and setting.
It does not know names, catalogues or where files come from.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from graft import interrupts
from graft.errors import ContextOverflow, ModelError, UsageError
from graft.models.gguf import read_head
from graft.models.protocol import GenerateOptions, Message, Piece, Reply, TokenScore, Usage

PROMPT_BATCH = 128
"""Prompt tokens taken at once: as fast as 512 on a processor, and a cancelled request stops within one batch."""

_COUNTS_KEPT = 256
_SILENT = -1
"""Verbosity at which llama.cpp writes nothing: its log goes to the file descriptors beneath `--json`'s output."""


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A LoRA file as it was when loaded; one that was written anew counts as another."""

    path: str
    modified_ns: int


class LlamaModel:
    """A model in a GGUF file; nothing is loaded before the first use."""

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        context_tokens: int = 4096,
        threads: int = 0,
        parallel: int = 1,
        adapter: Path | None = None,
        reader: Path | None = None,
    ) -> None:
        """Check the file's head.

        Args:
            context_tokens: Reserved for one request; the model's own limit is the upper bound.
            threads: 0 is one fewer than the cores this process may use: two threads on two busy cores
                wait for each other (measured: 8 tokens/s with two, 35 with one).
            parallel: Requests generated at once, each with `context_tokens`; more wait in line.
            adapter: LoRA (GGUF) of a tuned model; a request's own adapter takes its place.
            reader: LoRA that grounded questions will ask for; loaded with the model, used where asked for.
        Raises:
            ModelError: No file, not a GGUF file, damaged or cut short; or the adapter is.
        """
        head = read_head(path)
        if head.kind != "model":
            raise ModelError(f"{path} is a GGUF {head.kind}, not a model", fix="give the base model's file")
        self.name = name or path.stem
        self.context_tokens = min(context_tokens, head.context_tokens or context_tokens)
        self.trained_tokens = head.context_tokens
        self._architecture = head.architecture
        self._runtime = _shared_runtime(path, self.context_tokens, threads or _spare_cores(), max(1, parallel))
        self._adapter = None if adapter is None else self._checked(str(adapter))
        for expected in (self._adapter, None if reader is None else self._checked(str(reader))):
            if expected is not None:
                self._runtime.expect(expected)
        self._counted = lru_cache(_COUNTS_KEPT)(self._runtime.count)  # not a method of ours: no cycle, freed at once

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`; exact, by the model's template and tokenizer."""
        return self._counted(tuple(messages))

    def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the prompt that `messages` become, as the model is given them."""
        return self._runtime.loaded(None).token_ids(_plain(messages))

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`. Thoughts of a reasoning model are switched off, or left out, not part of the reply."""
        started = time.perf_counter()
        adapter = self._adapter if options.adapter is None else self._checked(options.adapter)
        self._refuse_tools(messages, options)
        self._refuse_overflow(messages, options)
        server = self._runtime.loaded(adapter)
        pieces: list[str] = []
        scores: list[TokenScore] = []
        first_ms, reason, usage = 0.0, "stop", Usage(0, 0)
        for event in server.chat(_request(messages, options, server.scales(adapter))):
            for choice in event.get("choices") or ():
                reason = choice.get("finish_reason") or reason
                told = _scores(choice, options.top_logprobs or 0)
                piece = Piece(choice["delta"].get("content") or "", scores=told)
                if piece or told:
                    first_ms = first_ms or _since_ms(started)
                    pieces.append(piece)
                    scores.extend(told)
                    yield piece
            if counted := event.get("usage"):
                usage = Usage(int(counted["prompt_tokens"]), int(counted["completion_tokens"]))
        total_ms = _since_ms(started)
        return Reply(
            text="".join(pieces),
            usage=usage,
            finish_reason="length" if reason == "length" else "stop",
            first_token_ms=first_ms or total_ms,
            total_ms=total_ms,
            cost_usd=None,
            scores=tuple(scores),
        )

    def agreement(self, messages: Sequence[Message], answer: str) -> tuple[bool, ...]:
        """Whether each token of `answer` is the one this model would have chosen after those before it.

        A grammar that allows this text alone forces it; the probabilities reported are those before the grammar.
        The end of the answer is left out. Useful to hold two models against each other without their replies
        drifting apart after the first difference.
        """
        options = GenerateOptions(max_tokens=len(answer.encode()) + 1, cache_prompt=False)
        server = self._runtime.loaded(self._adapter)
        body = _request(messages, options, server.scales(self._adapter))
        body |= {"grammar": f"root ::= {_literal(answer)}", "logprobs": True, "top_logprobs": 1}
        chosen = []
        for event in server.chat(body):
            for choice in event.get("choices") or ():
                for token in (choice.get("logprobs") or {}).get("content") or ():
                    chosen.append(token["id"] == token["top_logprobs"][0]["id"])
        return tuple(chosen)

    def _refuse_tools(self, messages: Sequence[Message], options: GenerateOptions) -> None:
        """llama.cpp drops tools silently where a model's template has no place for them, as smollm2's has not."""
        if options.tools is not None or any(message.role == "tool" or message.tool_calls for message in messages):
            raise UsageError(
                f"{self.name} runs in llama.cpp here, and tools are passed to hosted models only",
                fix="leave out tools and tool messages, or use litellm/PROVIDER/MODEL",
            )

    def _refuse_overflow(self, messages: Sequence[Message], options: GenerateOptions) -> None:
        prompt = self.count_tokens(messages)
        if prompt + options.max_tokens <= self.context_tokens:
            return
        more = self.trained_tokens > self.context_tokens
        raise ContextOverflow(
            f"the prompt has {prompt:,} tokens and the reply may take {options.max_tokens:,}, together over the "
            f"{self.context_tokens:,} tokens reserved for {self.name}",
            fix=f"raise [model] context_tokens in graft.toml (this model takes {self.trained_tokens:,})"
            if more
            else "lower [answering] prompt_tokens or answer_tokens in graft.toml, or use a model with more context",
        )

    def _checked(self, adapter: str) -> _Adapter:
        if Path(adapter).is_dir():
            raise ModelError(
                f"{adapter} is a folder; llama.cpp loads an adapter from a .gguf file",
                fix="graft export NAME --to adapter, and give the adapter.gguf in it",
            )
        head = read_head(Path(adapter))
        if head.kind != "adapter" or head.architecture != self._architecture:
            raise ModelError(
                f"{adapter} is a GGUF {head.kind} for {head.architecture!r}; needed is an adapter for "
                f"{self._architecture!r}, trained on {self.name}",
                fix="graft export NAME --to adapter, for a model tuned from this base",
            )
        return _Adapter(str(Path(adapter).resolve()), Path(adapter).stat().st_mtime_ns)


class _Runtime:
    """The loaded server of one file and setting; loaded anew when an adapter joins.

    Requests keep the server they began with: the one it replaces is freed when the last of them ends.
    """

    def __init__(self, path: Path, context_tokens: int, threads: int, parallel: int) -> None:
        self._open = (path, context_tokens, threads, parallel)
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._expected: dict[str, _Adapter] = {}

    def expect(self, adapter: _Adapter) -> None:
        """Load this one with the model, so that its first use is not a second loading."""
        with self._lock:
            self._expected[adapter.path] = adapter

    def loaded(self, adapter: _Adapter | None) -> _Server:
        with self._lock:
            have = tuple(self._expected.values()) if self._server is None else self._server.adapters
            if self._server is None or (adapter is not None and adapter not in have):
                kept = tuple(a for a in have if adapter is None or a.path != adapter.path)
                kept = tuple(a for a in kept if Path(a.path).is_file())
                self._server = _Server(*self._open, adapters=kept if adapter is None else (*kept, adapter))
            return self._server

    def count(self, messages: tuple[Message, ...]) -> int:
        return self.loaded(None).count(_plain(messages))


_runtimes: weakref.WeakValueDictionary[tuple[Any, ...], _Runtime] = weakref.WeakValueDictionary()
_runtimes_lock = threading.Lock()


def _shared_runtime(path: Path, context_tokens: int, threads: int, parallel: int) -> _Runtime:
    status = path.stat()
    key = (path.resolve(), status.st_size, status.st_mtime_ns, context_tokens, threads, parallel)
    with _runtimes_lock:
        runtime = _runtimes.get(key)
        if runtime is None:
            runtime = _runtimes[key] = _Runtime(path.resolve(), context_tokens, threads, parallel)
        return runtime


class _Server:
    """One llama.cpp server object and the connection to it."""

    def __init__(
        self, path: Path, context_tokens: int, threads: int, parallel: int, *, adapters: tuple[_Adapter, ...]
    ) -> None:
        import xllamacpp

        key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_tokens * parallel
        params.n_parallel = parallel
        params.n_batch = params.n_ubatch = PROMPT_BATCH
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.ctx_shift = False  # an overflow is an error, never a prompt with its middle cut out
        params.fit_params = False  # would shrink the context to fit, silently
        params.cache_ram_mib = 0  # a slot's own prefix cache is enough; llama.cpp would keep 8 GB of prompts
        params.enable_reasoning = 0
        params.warmup = False
        params.verbosity = _SILENT
        params.api_keys = [key]
        params.ui = params.endpoint_slots = params.endpoint_props = False
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter.path, 0.0) for adapter in adapters]
        params.lora_init_without_apply = True
        try:
            with interrupts.put_off():  # torn down before it is up, it waits for itself for ever
                self._native = xllamacpp.Server(params)
        except RuntimeError as error:
            with_adapters = f" with {', '.join(adapter.path for adapter in adapters)}" if adapters else ""
            raise ModelError(
                f"llama.cpp cannot load {path}{with_adapters}: its architecture is unknown to this version, parts of "
                f"it are missing, or memory is short for {context_tokens * parallel:,} tokens of context",
                fix="pip install -U xllamacpp, or lower [model] context_tokens in graft.toml",
            ) from error
        self.adapters = adapters
        self._client = httpx.Client(
            base_url=self._native.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(None, connect=10.0),  # a long prompt is silent for minutes
            trust_env=False,  # never through a proxy
            # The server closes a connection after a stream; one that is kept would break the next request.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def scales(self, adapter: _Adapter | None) -> list[dict[str, float]]:
        """Every adapter's share in one request, so that nothing depends on the request before."""
        return [{"id": i, "scale": 1.0 if known == adapter else 0.0} for i, known in enumerate(self.adapters)]

    def count(self, messages: list[dict[str, str]]) -> int:
        return int(self._post("/v1/chat/completions/input_tokens", {"messages": messages})["input_tokens"])

    def token_ids(self, messages: list[dict[str, str]]) -> list[int]:
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def _post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._client.post(route, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if response.status_code != 200:
            raise _refused(response.content)
        value: dict[str, Any] = response.json()
        return value

    def chat(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of one streamed reply; closing the iterator closes the connection, which cancels."""
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise _refused(response.read())
                for line in response.iter_lines():
                    kind, _, data = line.partition(": ")
                    if kind == "error":
                        raise _refused(data.encode())
                    if kind != "data" or data == "[DONE]":
                        continue
                    event: dict[str, Any] = json.loads(data)
                    if "error" in event:
                        raise _refused(data.encode())
                    yield event
        except httpx.HTTPError as error:
            raise _unreachable(error) from error


def _scores(choice: dict[str, Any], most: int) -> tuple[TokenScore, ...]:
    told = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(replace(score, top=score.top[:most]) for score in map(TokenScore.of, told))


def _request(messages: Sequence[Message], options: GenerateOptions, lora: list[dict[str, float]]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": _plain(messages),
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
        "stop": list(options.stop),
        "cache_prompt": options.cache_prompt,
        "lora": lora,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.json_schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": options.json_schema}}
    if options.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, options.top_logprobs)}  # asked for none, it tells nothing
    return body


def _literal(text: str) -> str:
    """A text as a grammar's terminal."""
    marks = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(marks.get(letter, letter) for letter in text) + '"'


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _refused(body: bytes) -> ModelError:
    """llama.cpp's own refusal, in its words."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        said, kind = str(error["message"]), str(error.get("type", ""))
    except (ValueError, KeyError, AttributeError):
        said, kind = body[:300].decode("utf-8", "replace"), ""
    if kind == "exceed_context_size_error":
        return ContextOverflow(said, fix="raise [model] context_tokens in graft.toml, or shorten the prompt")
    return ModelError(f"llama.cpp refuses the request: {said[:500]}", fix="check the messages, options and schema")


def _unreachable(error: httpx.HTTPError) -> ModelError:
    return ModelError(f"llama.cpp stopped answering: {error}", fix="run the command again")


def _spare_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
