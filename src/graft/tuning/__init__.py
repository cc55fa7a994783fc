"""train, prove, register: examples -> a tuned model with its card.

The one place that joins training and its proof. It does not know how anything is shown, nor where models are
registered.

    home/tuned/NAME/VERSION/     request.json, split.json, run/, adapter.gguf, proof.json, card.md, done.json

A run that was killed goes on: the same request finds its unfinished version, the trainer its last checkpoint,
the proof the replies that it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graft.errors import TrainingError
from graft.models import Model
from graft.training.adapters import read_adapter
from graft.training.gguf_writer import write_lora
from graft.training.merging import disk_error
from graft.training.protocol import TrainProgress
from graft.tuning.bases import Base, open_base, serving_gguf
from graft.tuning.preparing import SPLIT, Prepared, prepare, with_overrides
from graft.tuning.proving import Proof, card, keep, prove
from graft.tuning.values import DONE, REQUEST, TunedModel, TuneRequest, read_tuned

__all__ = [
    "Base",
    "Prepared",
    "TuneProgress",
    "TuneRequest",
    "TunedModel",
    "open_base",
    "prepare",
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


def tune(
    request: TuneRequest,
    prepared: Prepared,
    *,
    folder: Path,
    open_served: Callable[[str, Path, Path | None], Model],
    data: Path | None = None,
    progress: Callable[[TuneProgress], object] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> TunedModel:
    """Train, prove, and write the card.

    Args:
        folder: Of the version, see `version_folder`.
        open_served: (name, base GGUF, adapter GGUF or None) -> the model as it is served, for the proof.
        data: Folder of public test data, for general ability.
        cancelled: Asked after every step; the run can go on later.
    Raises:
        TrainingError: It cannot be done (every reason at once), went wrong, or was cancelled.
    """
    prepared.preflight.require()
    trained = prepared.trainer.train(
        prepared.run,
        progress=lambda p: progress(TuneProgress(stage="training", done=p.step, total=p.steps, training=p)),
        cancelled=cancelled,
    )
    if trained.stopped == "cancelled" or trained.adapter is None:
        raise TrainingError(
            f"stopped at step {trained.step} of {trained.steps}; the state is kept",
            fix="the same command goes on from there",
        )
    gguf = serving_gguf(prepared.base, folder.parent.parent / "bases")
    served = folder / "adapter.gguf"
    try:
        part = served.with_suffix(".part")
        write_lora(read_adapter(trained.adapter), prepared.base.checkpoint, part, name=request.name)
        part.replace(served)
    except OSError as error:
        raise disk_error(error, served) from error
    proof = prove(
        request,
        prepared,
        trained,
        folder=folder,
        tuned=open_served(request.name, gguf, served),
        base=open_served(prepared.base.name, gguf, None),
        data=data,
        tell=lambda what, done, total: progress(TuneProgress(stage=what, done=done, total=total)),
    )
    tuned = TunedModel(
        name=request.name,
        version=int(folder.name),
        folder=folder,
        base=prepared.base.name,
        checkpoint=prepared.base.checkpoint,
        gguf=gguf,
        adapter=trained.adapter,
        examples=len(prepared.train),
        steps=trained.step,
        seconds=round(trained.seconds, 1),
        dev_loss=trained.dev_loss,
        mergeable=trained.mergeable,
        figures=proof.means(),
    )
    _finish(tuned, proof, card(request, prepared, trained, proof))
    return tuned


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
