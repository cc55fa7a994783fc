"""graft.toml -> one frozen dataclass per stage; every value has a unit and a reason.

A workspace is a folder (`home`): `--home`, else `GRAFT_HOME`, else `.graft` here if it exists, else the
user's data folder. `home/graft.toml` overrides the defaults below; unknown keys are refused, not ignored.
It does not know what the stages do with their values.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from graft.errors import UsageError

FILE_NAME = "graft.toml"


def _value(default: Any, why: str) -> Any:
    return field(default=default, metadata={"why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingSettings:
    """Limits on one file, so that a hostile one cannot hang or kill the program."""

    max_file_mb: int = _value(200, "MB of one source file; larger ones are reported, not read")
    max_seconds: int = _value(60, "wall and CPU seconds for one file")
    max_ocr_seconds: int = _value(1800, "wall and CPU seconds for one scanned file, 4 to 6 a page; 0: no OCR")
    max_memory_mb: int = _value(2048, "MB of address space of the reading process")
    max_archive_entries: int = _value(10_000, "members of a zip-based file (DOCX, XLSX)")
    max_archive_ratio: int = _value(200, "unpacked / packed bytes of a zip-based file; real ones stay below 50")
    max_archive_mb: int = _value(500, "MB of a zip-based file once unpacked")
    max_characters: int = _value(20_000_000, "characters of one document's text")
    max_pages: int = _value(5_000, "pages of one PDF")
    workers: int = _value(0, "processes that read the files of a folder side by side; 0 is one per core")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingSettings:
    """How documents are cut."""

    max_tokens: int = _value(192, "tokens of one chunk's text, in the embedder's own tokens")
    overlap_tokens: int = _value(24, "tokens repeated where a paragraph itself must be cut, and nowhere else")
    context_characters: int = _value(200, "characters of heading path, and of table header, embedded with a chunk")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """Which embedder turns text into vectors."""

    model: str = _value("all-minilm-l6-v2", "catalogue name, ONNX directory, or litellm/PROVIDER/MODEL")
    precision: str = _value(
        "int8", "int8 or fp32, for local models; int8 reads twice as fast and finds as much (docs/lab-notes.md)"
    )
    threads: int = _value(0, "processor threads; 0 is one per core")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the truth lives."""

    url: str = _value("", "SQLAlchemy URL; empty is SQLite in the workspace")
    rescore: int = _value(400, "least number of candidates of the code scan that are rescored in float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSettings:
    """How a question becomes hits."""

    top_k: int = _value(10, "hits returned")
    candidates: int = _value(100, "chunks taken from each of the dense and the BM25 search before fusion")
    dense_weight: float = _value(0.5, "share of the dense score in the fused score; the rest is BM25's")
    merge_neighbours: bool = _value(True, "join adjacent chunks of one document into one hit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model answers."""

    default: str = _value("smollm2-135m", "name from `graft models list`")
    context_tokens: int = _value(
        4096, "tokens of context reserved for a local model; its own limit is the upper bound"
    )
    threads: int = _value(0, "processor threads of a local model; 0 is one fewer than the cores, for a busy machine")
    parallel: int = _value(1, "requests that a local model answers at once, each with context_tokens; others wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringSettings:
    """How an answer is made and checked."""

    passages: int = _value(3, "most hits put into the prompt; small models answer worse from more, large ones better")
    checked_passages: int = _value(5, "hits that a statement is held against, and quoted from")
    prompt_tokens: int = _value(2048, "tokens of the whole prompt")
    answer_tokens: int = _value(160, "most tokens of an answer")
    temperature: float = _value(0.0, "0 gives the same answer each time")
    min_quote: float = _value(
        0.45, "below this fit of the best sentence, from 0 to 1, nothing is quoted where the model's words failed"
    )
    max_detour: float = _value(
        0.2,
        "a quote replaces an answer whose support fits the question worse than the best sentence by so much",
    )
    min_relevance: float = _value(
        0.35, "below this relevance of the best hit, from 0 to 1, abstain without asking a model"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSettings:
    """How files of examples are read and checked."""

    max_examples: int = _value(1_000_000, "lines of one file of examples; 500 to 5,000 are usual")
    max_line_mb: int = _value(4, "MB of one line; the longest context of any model is below")
    max_file_mb: int = _value(4096, "MB of one file, unpacked")
    near_duplicate: float = _value(
        0.8, "share of common character 5-grams, from 0 to 1, above which two texts count as one"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """How the server listens and how much it takes on."""

    host: str = _value("127.0.0.1", "address to listen on; loopback, until an administrator has a key")
    port: int = _value(8642, "port to listen on; 0 takes any that is free")
    parallel: int = _value(2, "answers made at once; a local model works on [model] parallel of them")
    waiting: int = _value(32, "answers that may wait in line; those after them are told to come again (429)")
    lookups: int = _value(4, "searches and embeddings worked on at once, beside the answers")
    max_body_mb: int = _value(8, "MB of one request's body")
    max_file_mb: int = _value(512, "MB of one uploaded file, which is written to disk piece by piece")
    grace_seconds: int = _value(20, "seconds that answers under way may still take when the server is stopped")
    log: str = _value("auto", "form of the log on stderr: text, json, or auto: text on a terminal, else json")
    worker: bool = _value(True, "long jobs are done by a process that the server starts; false: by `graft worker`")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSettings:
    """How a model learns from examples."""

    method: str = _value(
        "lora", "lora (exact, can be merged), or activated: acts after the prompt only, faster, cannot be merged"
    )
    backend: str = _value("auto", "lean (llama and qwen2 on a processor), general (any model, GPU), or auto")
    rank: int = _value(16, "columns of the adapter's matrices, on every linear layer")
    alpha: float = _value(32.0, "the adapter's output is scaled by alpha / rank")
    learning_rate: float = _value(5e-4, "highest step size of AdamW; 10x lower for models above 7 billion weights")
    epochs: float = _value(3.0, "passes over the training examples")
    batch_size: int = _value(8, "examples behind one step of the optimiser")
    alike_together: int = _value(
        1,
        "examples whose prompts begin alike (as about the same passages) that are drawn into a batch together, where "
        "what they share is computed once; 1 draws all at random",
    )
    micro_tokens: int = _value(
        1024, "tokens computed at once; decides memory and speed, never the result beyond rounding"
    )
    warmup_share: float = _value(0.05, "share of the steps in which the step size rises from 0")
    schedule: str = _value("linear", "how the step size falls to 0 after the warm-up: linear or cosine")
    weight_decay: float = _value(0.0, "AdamW's, on the adapter")
    max_grad_norm: float = _value(1.0, "gradients longer than this are shortened to it; 0 leaves them")
    context_tokens: int = _value(2048, "most tokens of one example; the model's own limit is the upper bound")
    truncate: str = _value(
        "refuse", "examples over the context: refuse the run, drop them, or shorten the longest turn of their prompts"
    )
    evaluate_steps: int = _value(25, "steps between two measurements of the dev part; 0: only at the end")
    patience: int = _value(
        4, "measurements of the dev part without a better state after which training stops early; 0: never"
    )
    checkpoint_steps: int = _value(25, "steps between two checkpoints, from which a killed run continues; 0: none")
    seed: int = _value(0, "of the first adapter and of the order of the examples")
    threads: int = _value(0, "processor threads; 0 is one per core")
    precision: str = _value("auto", "float32, bfloat16, or auto: bfloat16 on a GPU that has it, else float32")
    quantize: bool = _value(False, "QLoRA: the frozen weights in 4 bits; needs a GPU and bitsandbytes")
    shards: int = _value(
        0, "GPUs over which FSDP spreads a model, in a process each; 0 is all that divide batch_size, 1 is one"
    )
    prompt_cache_mb: int = _value(4096, "MB of disk for the prompts' keys and values; method activated only")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalAwareSettings:
    """What prompts a model learns to answer from retrieved passages on."""

    without_evidence: float = _value(
        0.22, "share of the questions whose evidence is taken away and whose answer is to decline"
    )
    insert_missed: float = _value(
        0.75, "share of the questions whose evidence retrieval missed that get it put in; the others decline"
    )
    one_passage: float = _value(0.25, "share of the prompts with one passage, a third of the tokens")
    two_passages: float = _value(0.25, "share of the prompts with two passages; the rest has [answering] passages")
    casual: float = _value(0.25, "share of the questions put as into a search box: lower case, no question mark")
    prompt_tokens: int = _value(720, "tokens of the longest prompt; fewer passages where more do not fit")
    dev_share: float = _value(0.08, "share of the documents that are kept for measuring while a model learns")


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Who may sign in at the server through an OpenID provider; GRAFT_OIDC_SECRET holds the client's secret."""

    issuer: str = _value("", "address of the provider, as it calls itself; empty: nobody signs in so")
    client_id: str = _value("", "what the provider calls this server")
    scopes: str = _value("openid email profile", "what the provider is asked to tell")
    name_claim: str = _value("email", "what a user is called by; an email counts only where it is verified")
    groups_claim: str = _value("groups", "the provider's groups, which become sso.NAME")
    admin_groups: str = _value("", "the provider's groups, with commas, whose members administer")
    editor_groups: str = _value("", "the provider's groups, with commas, whose members add and change documents")
    default_role: str = _value("", "role of everybody else: reader or editor; empty: they are refused")
    domains: str = _value("", "domains of the emails that are let in, with commas; empty: all")
    public_url: str = _value("", "https://... under which browsers reach the server; needed unless it is loopback")
    session_hours: int = _value(12, "hours until somebody must sign in again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All stages."""

    reading: ReadingSettings = field(default_factory=ReadingSettings)
    chunking: ChunkingSettings = field(default_factory=ChunkingSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    answering: AnsweringSettings = field(default_factory=AnsweringSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    retrieval_aware: RetrievalAwareSettings = field(default_factory=RetrievalAwareSettings)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    oidc: OidcSettings = field(default_factory=OidcSettings)


def home_folder(explicit: Path | None = None) -> Path:
    """The workspace's folder: `explicit`, `GRAFT_HOME`, `.graft` here if it exists, else the user's data folder."""
    if explicit is not None:
        return explicit
    if from_environment := os.environ.get("GRAFT_HOME"):
        return Path(from_environment)
    here = Path(".graft")
    if here.is_dir():
        return here
    from platformdirs import user_data_path

    return user_data_path("graft")


def model_cache() -> Path:
    """Where pulled weights are kept, shared by all workspaces: `GRAFT_MODELS`, else the user's cache folder."""
    if from_environment := os.environ.get("GRAFT_MODELS"):
        return Path(from_environment)
    from platformdirs import user_cache_path

    return user_cache_path("graft") / "models"


def load_settings(home: Path) -> Settings:
    """Read `home/graft.toml` over the defaults.

    Raises:
        UsageError: The file is not TOML, names an unknown stage or key, or gives a value of the wrong type.
    """
    path = home / FILE_NAME
    if not path.exists():
        return Settings()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", fix=f"correct the line named, or remove {path}") from error
    return resolve(given, where=str(path))


def resolve(given: Mapping[str, Any], *, where: str = FILE_NAME) -> Settings:
    """Apply `{stage: {key: value}}` to the defaults.

    Raises:
        UsageError: Unknown stage or key, or a value of the wrong type or sign.

    >>> resolve({"retrieval": {"top_k": 5}}).retrieval.top_k
    5
    >>> resolve({"retrieval": {"topk": 5}})
    Traceback (most recent call last):
    ...
    graft.errors.UsageError: graft.toml: [retrieval] has no 'topk'; have top_k, candidates, dense_weight, \
merge_neighbours / fix: graft settings
    """
    stages = {f.name: f for f in dataclasses.fields(Settings)}
    changed = {}
    for stage, values in given.items():
        if stage not in stages or not isinstance(values, Mapping):
            raise UsageError(f"{where}: no stage [{stage}]; have {', '.join(stages)}", fix="graft settings")
        changed[stage] = _apply(getattr(Settings(), stage), stage, values, where)
    return dataclasses.replace(Settings(), **changed)


def _apply(stage: Any, name: str, values: Mapping[str, Any], where: str) -> Any:
    types = get_type_hints(type(stage))
    for key, value in values.items():
        if key not in types:
            raise UsageError(f"{where}: [{name}] has no {key!r}; have {', '.join(types)}", fix="graft settings")
        right = isinstance(value, types[key]) or (types[key] is float and type(value) is int)
        if not right or (types[key] is int and type(value) is bool):
            raise UsageError(
                f"{where}: [{name}] {key} = {value!r} is not a {types[key].__name__}",
                fix=f"the default is {getattr(stage, key)!r}",
            )
        if type(value) in (int, float) and value < 0:
            raise UsageError(
                f"{where}: [{name}] {key} = {value} is negative",
                fix=f"the default is {getattr(stage, key)!r}",
            )
    return dataclasses.replace(stage, **values)


def describe(settings: Settings) -> dict[str, dict[str, dict[str, Any]]]:
    """`{stage: {key: {"value", "default", "why"}}}` for showing."""
    described: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in dataclasses.fields(settings):
        values = getattr(settings, stage.name)
        described[stage.name] = {
            f.name: {"value": getattr(values, f.name), "default": f.default, "why": f.metadata["why"]}
            for f in dataclasses.fields(values)
        }
    return described
