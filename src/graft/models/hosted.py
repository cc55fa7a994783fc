"""messages -> a reply, texts -> vectors, by a hosted service or any OpenAI-compatible server, through LiteLLM.

LiteLLM takes seconds to import, so it is imported when used, with its telemetry and its download of prices
off. Keys are read from the environment for each request; no message, log or field here ever holds one.
It does not know retrieval or which services exist: LiteLLM's own table does.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.errors import ContextOverflow, ModelError, UsageError
from graft.extras import install
from graft.models.protocol import (
    GenerateOptions,
    Message,
    Piece,
    Reply,
    TokenScore,
    ToolCall,
    Usage,
    joined_calls,
)

DEFAULT_CONTEXT_TOKENS = 8192
"""Of a model that LiteLLM's table does not have."""

DEFAULT_EMBEDDING_TOKENS = 512
_SECONDS = 600.0
_NO_KEY = "none"
"""Sent to a server given by address without a key variable: the service's real key is not for it."""

_SECRETS = re.compile(r"(?:sk|pk|gsk|xai|key|hf|AIza)[-_]?[A-Za-z0-9*_-]{8,}|Bearer\s+\S+")


@dataclass(frozen=True, slots=True)
class HostedVectors:
    """Shapes: vectors (texts, dimensions) float32, in the texts' order."""

    vectors: NDArray[np.float32]
    usage: Usage
    cost_usd: float | None


class HostedModel:
    """One model of LiteLLM's, as `PROVIDER/MODEL`."""

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        api_base: str | None = None,
        key_env: str | None = None,
        context_tokens: int | None = None,
    ) -> None:
        """Nothing is imported or asked yet.

        Args:
            api_base: Address of an OpenAI-compatible server instead of the provider's own.
            key_env: Environment variable that holds the key; None is the provider's usual one, and with
                `api_base` none at all.
            context_tokens: Where LiteLLM's table does not know the model.
        """
        self.name = name or f"litellm/{model}"
        self._model = model
        self._api_base = api_base
        self._key_env = key_env
        self._context_tokens = context_tokens

    @property
    def context_tokens(self) -> int:
        known = self._context_tokens or _model_info(self._model).get("max_input_tokens")
        return int(known or DEFAULT_CONTEXT_TOKENS)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`; an estimate by LiteLLM's tokenizer for the model."""
        return int(_litellm().token_counter(model=self._model, messages=_plain(messages)))

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`."""
        started = time.perf_counter()
        litellm = _litellm()
        request = self._request(litellm, messages, options)
        pieces: list[Piece] = []
        first_ms, reason, usage = 0.0, "stop", None
        with _mapped(litellm, self._model, self._key_env, self.context_tokens):
            events = litellm.completion(**request)
        try:
            for event in self._events(litellm, events):
                for choice in event.choices or ():
                    reason = choice.finish_reason or reason
                    piece = _piece(choice)
                    if piece or piece.scores or piece.calls:
                        first_ms = first_ms or _since_ms(started)
                        pieces.append(piece)
                        yield piece
                usage = getattr(event, "usage", None) or usage
        finally:
            _close(events)
        total_ms = _since_ms(started)
        counted = self._usage(litellm, usage, messages, "".join(pieces))
        return Reply(
            text="".join(pieces),
            usage=counted,
            finish_reason=reason if reason in ("length", "tool_calls") else "stop",
            first_token_ms=first_ms or total_ms,
            total_ms=total_ms,
            cost_usd=price_of(self._model, counted),
            scores=tuple(score for piece in pieces for score in piece.scores),
            tool_calls=joined_calls(call for piece in pieces for call in piece.calls),
        )

    def _request(self, litellm: Any, messages: Sequence[Message], options: GenerateOptions) -> dict[str, Any]:
        if options.adapter is not None:
            raise ModelError(
                f"{self.name} is hosted and takes no LoRA adapter",
                fix="use a local model, or the tuned model's own name",
            )
        prompt = self.count_tokens(messages)
        if prompt + options.max_tokens > self.context_tokens:
            raise ContextOverflow(
                f"the prompt has about {prompt:,} tokens and the reply may take {options.max_tokens:,}, together "
                f"over the {self.context_tokens:,} of {self.name}",
                fix="lower [answering] prompt_tokens or answer_tokens in graft.toml, or use another model",
            )
        request: dict[str, Any] = {
            **_where(litellm, self._model, self._api_base, self._key_env),
            "messages": _plain(messages),
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "seed": options.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.stop:
            request["stop"] = list(options.stop)
        if options.json_schema is not None:
            if self._api_base is None and not litellm.supports_response_schema(model=self._model):
                raise ModelError(f"{self.name} cannot be held to a JSON schema", fix="use another model for this")
            schema = {"name": "reply", "schema": options.json_schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request | self._asked_for_more(litellm, options)

    def _asked_for_more(self, litellm: Any, options: GenerateOptions) -> dict[str, Any]:
        """Tools and log-probabilities; refused where LiteLLM would drop them silently."""
        more: dict[str, Any] = {}
        if options.top_logprobs is not None:
            more |= {"logprobs": True}
            if options.top_logprobs:
                more |= {"top_logprobs": options.top_logprobs}
        if options.tools is not None:
            more |= {"tools": [dict(one) for one in options.tools.functions]}
            if options.tools.choice is not None:
                more |= {"tool_choice": options.tools.choice}
            if options.tools.parallel is not None:
                more |= {"parallel_tool_calls": options.tools.parallel}
        taken = (litellm.get_supported_openai_params(model=self._model) or ()) if more else ()
        for name in more:
            if name not in taken:
                raise UsageError(
                    f"{self.name} takes no {name}", fix=f"leave out {name}, or use a model that takes it"
                )
        return more

    def _events(self, litellm: Any, events: Any) -> Iterator[Any]:
        with _mapped(litellm, self._model, self._key_env, self.context_tokens):
            yield from events

    def _usage(self, litellm: Any, told: Any, messages: Sequence[Message], text: str) -> Usage:
        if told is not None and told.prompt_tokens:
            return Usage(int(told.prompt_tokens), int(told.completion_tokens))
        return Usage(self.count_tokens(messages), int(litellm.token_counter(model=self._model, text=text)))


def hosted_embeddings(
    model: str, texts: Sequence[str], *, api_base: str | None = None, key_env: str | None = None
) -> HostedVectors:
    """Vectors of `texts` by an embedder of LiteLLM's, as `PROVIDER/MODEL`.

    Raises:
        ModelError: LiteLLM is not installed, or the service refuses or cannot be reached.
    """
    litellm = _litellm()
    with _mapped(litellm, model, key_env, embedding_limits(model)):
        answer = litellm.embedding(
            **_where(litellm, model, api_base, key_env), input=list(texts), encoding_format="float"
        )
    rows = sorted(answer.data, key=lambda row: int(row["index"]))
    vectors = np.array([row["embedding"] for row in rows], np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ModelError(
            f"{model} answered {len(rows)} vectors for {len(texts)} texts", fix="check that it is an embedder"
        )
    usage = Usage(int(answer.usage.prompt_tokens) if answer.usage else 0, 0)
    return HostedVectors(vectors, usage, price_of(model, usage))


def embedding_limits(model: str) -> int:
    """Tokens of a text that the embedder reads, by LiteLLM's table; 512 where it has none."""
    return int(_model_info(model).get("max_input_tokens") or DEFAULT_EMBEDDING_TOKENS)


@cache
def _litellm() -> Any:
    """LiteLLM, silent and without connections of its own."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, not ours to mend
            import litellm
    except ImportError as error:
        raise ModelError(
            f"hosted models need LiteLLM, which is not installed ({error})", fix=install("hosted")
        ) from error
    # LiteLLM imports more of itself at the first request; this is about its types, not about the user's data.
    warnings.filterwarnings("ignore", message="Item '.*' on TypedDict class", category=UserWarning)
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.drop_params = True  # a `seed` that a service does not know is no reason to fail
    litellm.disable_hf_tokenizer_download = True
    litellm.num_retries = 0
    return litellm


def _model_info(model: str) -> dict[str, Any]:
    try:
        return dict(_litellm().get_model_info(model))
    except ModelError:
        raise
    except Exception:  # LiteLLM raises a plain Exception for a model that its table does not have
        return {}


def price_of(model: str, usage: Usage) -> float | None:
    """Dollars for so many tokens of PROVIDER/MODEL, by LiteLLM's table; None where it has no price."""
    litellm = _litellm()
    try:
        parts = litellm.cost_per_token(
            model=model, prompt_tokens=usage.input_tokens, completion_tokens=usage.output_tokens
        )
    except Exception:  # as above: no price is None, never 0
        return None
    return float(sum(parts))


def _where(litellm: Any, model: str, api_base: str | None, key_env: str | None) -> dict[str, Any]:
    """Whom to ask and with which key."""
    request: dict[str, Any] = {"model": model, "timeout": _SECONDS, "num_retries": 0}
    variable = key_env or (_missing_variable(litellm, model) if api_base is None else None)
    if variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise ModelError(
                f"{model} needs a key, and the environment variable {variable} is not set",
                fix=f"export {variable}=...",
            )
        request["api_key"] = key
    if api_base is not None:
        request["api_base"] = api_base
        request.setdefault("api_key", _NO_KEY)
    return request


def _missing_variable(litellm: Any, model: str) -> str | None:
    """The variable that LiteLLM misses for this provider's key; None where nothing is missing."""
    missing = litellm.validate_environment(model=model)["missing_keys"]
    return next((str(name) for name in missing if name.endswith("_API_KEY")), None)


@contextmanager
def _mapped(litellm: Any, model: str, key_env: str | None, context_tokens: int) -> Iterator[None]:
    """LiteLLM's failures as ours, without what may be a key in the service's words."""
    try:
        yield
    except litellm.ContextWindowExceededError as error:
        raise ContextOverflow(
            f"{model} finds the prompt too long for its {context_tokens:,} tokens: {_said(error, key_env)}",
            fix="lower [answering] prompt_tokens or answer_tokens in graft.toml",
        ) from None
    except (litellm.AuthenticationError, litellm.PermissionDeniedError) as error:
        variable = key_env or f"{model.partition('/')[0].upper()}_API_KEY"
        raise ModelError(
            f"{model} does not accept the key in {variable}: {_said(error, key_env)}", fix=f"export {variable}=..."
        ) from None
    except litellm.RateLimitError as error:
        wait = _retry_after(error)
        raise ModelError(
            f"{model} is at its rate limit: {_said(error, key_env)}",
            fix=f"wait {wait} s and run it again" if wait else "wait a minute and run it again",
        ) from None
    except litellm.NotFoundError as error:
        raise ModelError(f"{model} does not exist there: {_said(error, key_env)}", fix="graft models list") from None
    except (
        litellm.APIConnectionError,
        litellm.Timeout,
        litellm.ServiceUnavailableError,
        litellm.InternalServerError,  # also what LiteLLM makes of a refused connection
    ) as error:
        raise ModelError(
            f"{model} cannot be reached: {_said(error, key_env)}",
            fix="check the network and the model's api_base, or try later",
        ) from None
    except (litellm.APIError, litellm.BadRequestError) as error:
        raise ModelError(
            f"{model} refuses the request: {_said(error, key_env)}",
            fix="check the model's name, PROVIDER/MODEL, and its options",
        ) from None


def _said(error: Exception, key_env: str | None) -> str:
    """The service's words, which may quote a key, without any key of the environment."""
    text = str(getattr(error, "message", "") or error)
    for name, value in os.environ.items():
        if len(value) >= 8 and (name == key_env or name.endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD"))):
            text = text.replace(value, "***")
    return " ".join(_SECRETS.sub("***", text).split())[:300]


def _retry_after(error: Any) -> str:
    headers = getattr(error, "litellm_response_headers", None) or {}
    return str(headers.get("retry-after", ""))


def _close(events: Any) -> None:
    """Hang up, so that the service stops generating; a stream that is at its end does not mind."""
    inner = getattr(events, "completion_stream", None)
    close = getattr(inner, "close", None)
    if close is not None:
        close()


def _piece(choice: Any) -> Piece:
    """What one event tells."""
    told = getattr(choice, "logprobs", None)
    scores = [] if told is None else (told if isinstance(told, dict) else told.model_dump()).get("content") or []
    calls = [
        (int(call.index), ToolCall(call.id or "", call.function.name or "", call.function.arguments or ""))
        for call in getattr(choice.delta, "tool_calls", None) or ()
    ]
    return Piece(
        choice.delta.content or "", scores=tuple(TokenScore.of(score) for score in scores), calls=tuple(calls)
    )


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return made


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
