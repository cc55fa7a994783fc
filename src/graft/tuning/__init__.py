"""train, prove, register: examples -> a tuned model with its card.

The one place that joins training and its proof. It does not know how anything is shown, nor where models are
registered.

    home/tuned/NAME/VERSION/     request.json, split.json or retrieval-aware/, held-out.jsonl, run/, adapter.gguf,
                                 proof.json, card.md, done.json

A run that was killed goes on: the same request finds its unfinished version, the trainer its last checkpoint,
the proof the replies that it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graft.errors import TrainingError
from graft.models import Model, ModelSpec
from graft.training.adapters import read_adapter
from graft.training.energy import EnergyMeter
from graft.training.gguf_writer import write_lora
from graft.training.hosted import JOB_NOTE
from graft.training.merging import disk_error
from graft.training.protocol import TrainProgress, TrainResult
from graft.training.states import CURVE
from graft.tuning.bases import Base, HostedBase, open_base, serving_gguf
from graft.tuning.held_out import Check, read_check
from graft.tuning.preparing import SPLIT, Prepared, prepare, with_overrides
from graft.tuning.proving import Proof, card, keep, prove
from graft.tuning.values import DONE, REQUEST, TunedModel, TuneRequest, read_tuned

__all__ = [
    "Base",
    "Check",
    "HostedBase",
    "Prepared",
    "TuneProgress",
    "TuneRequest",
    "TunedModel",
    "is_begun",
    "open_base",
    "prepare",
    "read_check",
    "read_tuned",
    "tune",
    "version_folder",
    "with_overrides",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneProgress:
    """How far a run has come.

    Attributes:
        stage: What is being done, in words.
        training: Loss, speed and time left, while it trains.
    """

    stage: str
    done: int
    total: int
    training: TrainProgress | None = None


def version_folder(root: Path, request: TuneRequest) -> Path:
    """The folder of this request's unfinished run, else of the next version; it is made, with request.json.

    One in which nothing was trained yet, because somebody only looked ahead, is taken over.

    Args:
        root: home/tuned.
    """
    versions = sorted(int(path.name) for path in (root / request.name).glob("*") if path.name.isdigit())
    last = root / request.name / str(versions[-1] if versions else 1)
    asked = json.dumps(request.to_json(), indent=1, sort_keys=True) + "\n"
    if (last / REQUEST).is_file() and not (last / DONE).exists():
        if (last / REQUEST).read_text(encoding="utf-8") == asked:
            return last
        untouched = not (last / "run").exists()
    else:
        untouched = False
    folder = last if untouched or not versions else root / request.name / str(versions[-1] + 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPLIT).unlink(missing_ok=True)
    (folder / REQUEST).write_text(asked, encoding="utf-8")
    return folder


def is_begun(prepared: Prepared) -> bool:
    """Whether a provider already has the job of this run, so that going on costs nothing more."""
    return (prepared.run.folder / JOB_NOTE).is_file()


def tune(
    request: TuneRequest,
    prepared: Prepared,
    *,
    folder: Path,
    open_served: Callable[[ModelSpec], Model],
    data: Path | None = None,
    progress: Callable[[TuneProgress], object] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> TunedModel:
    """Train, prove, and write the card.

    Args:
        folder: Of the version, see `version_folder`.
        open_served: A model as it is served, for the proof.
        data: Folder of public test data, for general ability.
        cancelled: Asked after every step; the run can go on later.
    Raises:
        TrainingError: It cannot be done (every reason at once), went wrong, or was cancelled.
        ModelError: A hosted model does not answer the proof's questions.
    """
    prepared.preflight.require()
    goes_on, meter = (prepared.run.folder / CURVE).exists(), EnergyMeter()

    def trains(seen: TrainProgress) -> None:
        meter.sample()
        progress(TuneProgress(stage="training", done=seen.step, total=seen.steps, training=seen))

    trained = prepared.trainer.train(
        prepared.run,
        progress=trains,
        cancelled=cancelled,
    )
    _require_whole(trained, prepared, folder)
    joules = None if goes_on or isinstance(prepared.base, HostedBase) else meter.joules()
    if isinstance(prepared.base, HostedBase):
        tuned, base = _kept_by_provider(request, prepared, prepared.base, trained, folder)
    else:
        tuned, base = _kept_here(request, prepared, prepared.base, trained, folder)
    proof = prove(
        request,
        prepared,
        trained,
        folder=folder,
        tuned=open_served(tuned.spec(request.name)),
        base=open_served(base),
        data=data,
        tell=lambda what, done, total: progress(TuneProgress(stage=what, done=done, total=total)),
    )
    tuned = replace(tuned, figures=proof.means(), joules=joules)
    _finish(tuned, proof, card(request, prepared, trained, proof))
    return tuned


def _require_whole(trained: TrainResult, prepared: Prepared, folder: Path) -> None:
    if isinstance(prepared.base, HostedBase):
        if trained.stopped == "cancelled" or trained.model is None:
            raise TrainingError(
                f"the job at the provider of {prepared.base.name!r} was cancelled",
                fix=f"give the run another --name, or remove {folder / 'run'}",
            )
    elif trained.stopped == "cancelled" or trained.adapter is None:
        raise TrainingError(
            f"stopped at step {trained.step} of {trained.steps}; the state is kept",
            fix="the same command goes on from there",
        )


def _kept_here(
    request: TuneRequest, prepared: Prepared, base: Base, trained: TrainResult, folder: Path
) -> tuple[TunedModel, ModelSpec]:
    """The tuned model, its adapter written as it is served, and how its base is served."""
    assert trained.adapter is not None  # a run that was cut off is not whole
    gguf = serving_gguf(base, folder.parent.parent / "bases")
    served = folder / "adapter.gguf"
    try:
        part = served.with_suffix(".part")
        write_lora(read_adapter(trained.adapter), base.checkpoint, part, name=request.name)
        part.replace(served)
    except OSError as error:
        raise disk_error(error, served) from error
    tuned = TunedModel(
        **_lineage(request, prepared, trained, folder),
        checkpoint=base.checkpoint,
        gguf=gguf,
        adapter=trained.adapter,
    )
    return tuned, ModelSpec(name=base.name, kind="file", target=str(gguf))


def _kept_by_provider(
    request: TuneRequest, prepared: Prepared, base: HostedBase, trained: TrainResult, folder: Path
) -> tuple[TunedModel, ModelSpec]:
    hosted = replace(base.spec, name=request.name, target=f"{base.provider}/{trained.model}")
    lineage = _lineage(request, prepared, trained, folder)
    return TunedModel(**lineage, checkpoint=None, gguf=None, adapter=None, hosted=hosted), base.spec


def _lineage(request: TuneRequest, prepared: Prepared, trained: TrainResult, folder: Path) -> dict[str, Any]:
    """What is known of a tuned model wherever its weights are."""
    return {
        "name": request.name,
        "version": int(folder.name),
        "folder": folder,
        "base": prepared.base.name,
        "examples": len(prepared.train),
        "steps": trained.step,
        "seconds": round(trained.seconds, 1),
        "dev_loss": trained.dev_loss,
        "mergeable": trained.mergeable,
        "figures": {},
    }


def _finish(tuned: TunedModel, proof: Proof, text: str) -> None:
    """Write proof, card and, last of all, done.json, which makes the version complete."""
    try:
        keep(proof, tuned.folder)
        tuned.card.write_text(text, encoding="utf-8")
        part = tuned.folder / "done.part"
        part.write_text(json.dumps(tuned.to_json(), indent=1) + "\n", encoding="utf-8")
        part.replace(tuned.folder / DONE)
    except OSError as error:
        raise disk_error(error, tuned.folder) from error
