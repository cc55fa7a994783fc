"""tuned model -> a file that runs anywhere: adapter, merged checkpoint or GGUF, proven to answer the same.

What is written is held against the adapter as it is served (llama.cpp, base and adapter); only what passes gets its
name, what fails stays beside it as `.rejected`. It does not know workspaces, nor how anything is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from graft.errors import GraftError, UsageError
from graft.models.llama import LlamaModel
from graft.models.protocol import Message
from graft.training.adapters import CONFIG, WEIGHTS, read_adapter
from graft.training.checkpoint_model import CheckpointModel
from graft.training.gguf_writer import write_gguf, write_lora
from graft.training.merging import disk_error, merge, refuse_activated, weight_files
from graft.training.parity import LEAST_AGREEMENT, REPLY_TOKENS, Metric, ParityReport, parity
from graft.training.quantising import Quantisation

Target = Literal["adapter", "merged", "gguf"]
ADAPTER_GGUF = "adapter.gguf"
_LEAST_OF_4_BITS = 0.88
"""Agreement asked of Q4_K_M, which rounds every weight anew; measured .973 from a 4-bit base."""
_CONTEXT = 2048
_SPARE_BYTES = 50_000_000
_SCRATCH = f".export-{platform.node()}-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a tuning run leaves behind.

    Attributes:
        adapter: PEFT folder.
        checkpoint: The base as a checkpoint folder.
        gguf: The base as a GGUF, where the checkpoint was made from one: the export keeps its tokenizer and template.
    """

    name: str
    adapter: Path
    checkpoint: Path
    gguf: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One file of an export."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export; `path` is its file or folder."""

    name: str
    to: Target
    quantisation: Quantisation | None
    path: Path
    files: tuple[Exported, ...]
    parity: ParityReport

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def export(
    tuned: Tuned,
    *,
    to: str,
    into: Path,
    quantisation: str | None = None,
    prompts: Sequence[Sequence[Message]] = (),
    metric: Metric | None = None,
    reply_tokens: int = REPLY_TOKENS,
    force: bool = False,
    tell: Callable[[str], object] = lambda what: None,
) -> ExportResult:
    """Write `into`/NAME-adapter, `into`/NAME-merged or `into`/NAME-QUANTISATION.gguf.

    Args:
        quantisation: "f16", "q8_0" (unless told otherwise) or "q4_k_m"; for "gguf" alone.
        prompts: Held-out prompts of the task; general ones where there are few or none.
        metric: Scores a reply to the prompt of that index.
        reply_tokens: Most tokens of a reply: as many as an answer of the task may have.
        force: Replace what stands there.
        tell: Called with each step's name.
    Raises:
        UsageError: An unknown form, or the target exists.
        ModelError: An activated adapter that would have to be merged; a base or adapter that cannot be written.
        GraftError: The disk is full; or the export does not answer as the adapter does: it is kept as `.rejected`.
    """
    form, kind = _checked(to, quantisation)
    target = into / (f"{tuned.name}-{kind}.gguf" if kind else f"{tuned.name}-{form}")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", fix="--force replaces it, --into DIR writes elsewhere")
    adapter = read_adapter(tuned.adapter)
    if form != "adapter":
        refuse_activated(adapter)
    with _scratch(into, _needed_bytes(tuned, form, kind), target) as scratch:
        written = scratch / target.name
        served = _served(tuned, scratch, tell)
        tell(f"write {target.name}")
        candidate = _write(tuned, form, kind, written, scratch)
        tell("compare with the adapter as it is served")
        report = parity(
            served,
            candidate,
            prompts,
            metric,
            reply_tokens=reply_tokens,
            least_agreement=_LEAST_OF_4_BITS if kind == "q4_k_m" else LEAST_AGREEMENT,
        )
        if form == "adapter":
            shutil.copyfile(scratch / ADAPTER_GGUF, written / ADAPTER_GGUF)
        if written.is_dir():
            shown = json.dumps(asdict(report), indent=1, ensure_ascii=False)
            (written / "parity.json").write_text(shown + "\n", encoding="utf-8")
        if not report.passed:
            rejected = target.with_name(target.name + ".rejected")
            _put(written, rejected)
            raise GraftError(
                f"{_shown(report)}; it is kept aside as {rejected}",
                fix=_closer(tuned.name, form, kind),
            )
        files = _described(written, target)
        _put(written, target)
    return ExportResult(name=tuned.name, to=form, quantisation=kind, path=target, files=files, parity=report)


def _checked(to: str, quantisation: str | None) -> tuple[Target, Quantisation | None]:
    forms: tuple[Target, ...] = get_args(Target)
    form = next((known for known in forms if known == to), None)
    if form is None:
        raise UsageError(f"--to {to!r} is not one of {', '.join(forms)}", fix="graft export NAME --to gguf")
    if form != "gguf":
        if quantisation is not None:
            raise UsageError(f"--quantisation is for --to gguf, not {form}", fix=f"graft export NAME --to {form}")
        return form, None
    kinds: tuple[Quantisation, ...] = get_args(Quantisation)
    kind = next((known for known in kinds if known == (quantisation or "q8_0")), None)
    if kind is None:
        raise UsageError(
            f"--quantisation {quantisation!r} is not one of {', '.join(kinds)}", fix="--quantisation q8_0"
        )
    return form, kind


def _served(tuned: Tuned, scratch: Path, tell: Callable[[str], object]) -> LlamaModel:
    """Base and adapter in llama.cpp, as a request is answered. A base that was no GGUF becomes one here."""
    base = tuned.gguf
    if base is None:
        tell("write the base for llama.cpp")
        base = scratch / "base.gguf"
        write_gguf(tuned.checkpoint, base, quantisation="f16", name="base", like=None)
    write_lora(read_adapter(tuned.adapter), tuned.checkpoint, scratch / ADAPTER_GGUF, name=tuned.name)
    return LlamaModel(
        base, name=f"{tuned.name} (base + adapter)", context_tokens=_CONTEXT, adapter=scratch / ADAPTER_GGUF
    )


def _write(
    tuned: Tuned, form: Target, kind: Quantisation | None, written: Path, scratch: Path
) -> LlamaModel | CheckpointModel:
    """Write the export; the model that it is."""
    if form == "adapter":
        written.mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(tuned.adapter / name, written / name)
        return CheckpointModel(tuned.checkpoint, adapter=written, name=f"{tuned.name} (as trained)")
    merged = written if form == "merged" else scratch / "merged"
    merge(tuned.checkpoint, tuned.adapter, merged)
    if kind is None:
        return CheckpointModel(merged, name=f"{tuned.name} (merged)")
    write_gguf(merged, written, quantisation=kind, name=tuned.name, like=tuned.gguf)
    shutil.rmtree(merged)  # as large as the base in float32
    return LlamaModel(written, name=f"{tuned.name} ({kind})", context_tokens=_CONTEXT)


def _needed_bytes(tuned: Tuned, form: Target, kind: Quantisation | None) -> int:
    """Most bytes that the export takes while it is made."""
    base = sum(tensor.size for file in weight_files(tuned.checkpoint) for tensor in file.tensors)
    adapter = (tuned.adapter / WEIGHTS).stat().st_size
    merged = 0 if form == "adapter" else base + (base // 2 if kind else 0)
    return merged + (base // 2 if tuned.gguf is None else 0) + 4 * adapter + _SPARE_BYTES


@contextmanager
def _scratch(into: Path, needed: int, target: Path) -> Iterator[Path]:
    """A folder beside the target, gone afterwards whatever happens."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(into).free
        if free < needed:
            raise GraftError(
                f"{into} has {free / 1e6:,.0f} MB free, making {target.name} takes {needed / 1e6:,.0f} MB",
                fix="free space, or give --into DIR on another disk",
            )
        _sweep(into)
        with tempfile.TemporaryDirectory(dir=into, prefix=f"{_SCRATCH}{os.getpid()}-") as scratch:
            yield Path(scratch)
    except OSError as error:
        raise disk_error(error, target) from error


def _sweep(into: Path) -> None:
    """Remove what killed exports of this machine left in the folder: gigabytes of merged weights."""
    for left in into.glob(f"{_SCRATCH}*-*"):
        owner = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _put(written: Path, target: Path) -> None:
    """Give the finished export its name; what stood there is replaced in the same instant, or nearly for a folder."""
    if target.is_dir():
        old = written.with_name("replaced")
        target.rename(old)
    written.replace(target)


def _described(written: Path, target: Path) -> tuple[Exported, ...]:
    paths = [written] if written.is_file() else sorted(path for path in written.iterdir() if path.is_file())
    described = []
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        final = target if path == written else target / path.name
        described.append(Exported(path=final, size_bytes=path.stat().st_size, sha256=digest))
    return tuple(described)


def _closer(name: str, form: Target, kind: Quantisation | None) -> str:
    """What to try where an export failed."""
    if kind == "q4_k_m":
        return f"graft export {name} --to gguf --quantisation q8_0"
    if form == "adapter":
        return "tune again: the base that is served is not the one that was trained on"
    return f"graft export {name} --to adapter"


def _shown(report: ParityReport) -> str:
    """The verdict, and the first reply that differs."""
    if not report.differences:
        return report.words
    first = report.differences[0]
    return (
        f"{report.words}; to {first.prompt[:80]!r} the adapter says {first.a[:120]!r}, the export {first.b[:120]!r}"
    )
