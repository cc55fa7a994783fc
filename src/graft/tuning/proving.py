"""A finished run -> its proof: the task before and after, what was lost elsewhere, what was learnt by heart; a card.

Every reply is kept in the run's folder, so that a proof that was cut off goes on. It does not know how a model
is trained.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.dataset.personal import find_personal
from graft.evaluation.card import Card, DataPart, write_card
from graft.evaluation.evaluating import EvaluateOptions, Evaluation, evaluate
from graft.evaluation.likelihood import TorchScorer
from graft.evaluation.memorising import CanaryFigures, Leakage, probe_canaries, probe_leakage, secrets_in
from graft.evaluation.questions import QuestionSet
from graft.evaluation.recording import RecordedModel
from graft.evaluation.regression import Regression, regress
from graft.models import Model
from graft.settings import TuningSettings
from graft.training.protocol import TrainResult
from graft.tuning.bases import HostedBase
from graft.tuning.held_out import MOST_PROMPTS, held_out_questions, keep_held_out
from graft.tuning.preparing import Prepared
from graft.tuning.values import TuneRequest

Tell = Callable[[str, int, int], object]
"""(what is done, how many, of how many)"""
_SECRETS = 50
_HOSTED_SETTINGS = ("epochs", "batch_size", "seed")
"""What a provider is told of [tuning]; see `training.hosted`."""
_LIBRARIES = ("graft-llm", "torch", "transformers", "peft", "xllamacpp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was measured; None is what was not asked for or has nothing to be measured on."""

    tuned: Evaluation | None = None
    base: Evaluation | None = None
    regression: Regression | None = None
    canaries: CanaryFigures | None = None
    leakage: Leakage | None = None

    def means(self) -> dict[str, dict[str, float]]:
        """{"tuned" | "base" | a baseline: {metric: share}}."""
        found: dict[str, dict[str, float]] = {}
        for who, evaluation in (("tuned", self.tuned), ("base", self.base)):
            if evaluation is not None:
                found[who] = {name: estimate.mean for name, estimate in evaluation.metrics.items()}
                for baseline, metrics in evaluation.baselines.items():
                    found[baseline] = {name: estimate.mean for name, estimate in metrics.items()}
        return found


def prove(
    request: TuneRequest,
    prepared: Prepared,
    trained: TrainResult,
    *,
    folder: Path,
    tuned: Model,
    base: Model,
    data: Path | None,
    tell: Tell = lambda what, done, total: None,
) -> Proof:
    """Measure what the request asks for; inside a model whose provider keeps it nobody can look, so the task alone.

    Args:
        folder: Where replies and the questions asked are kept.
        data: Folder of public test data, for general ability; without it the shipped questions serve.
    """
    asked = prepared.held_out[: request.questions]
    questions = held_out_questions(asked, train=prepared.train)
    compared = prepared.held_out[: max(request.questions, MOST_PROMPTS)]  # too few would let one token fail an export
    keep_held_out(held_out_questions(compared, train=prepared.train), folder)
    if request.proof == "none":
        return Proof()
    evaluations: list[Evaluation | None] = [None, None]
    if asked:
        for place, (who, model) in enumerate((("tuned", tuned), ("base", base))):
            evaluations[place] = _evaluate(who, model, questions, prepared, folder, tell)
    if request.proof == "quality" or trained.adapter is None or isinstance(prepared.base, HostedBase):
        return Proof(tuned=evaluations[0], base=evaluations[1])
    scorer = TorchScorer(prepared.base.checkpoint, trained.adapter, name=request.name)
    without = scorer.without_adapter(name=prepared.base.name)
    regression = regress(
        scorer,
        without,
        data=data,
        limit=request.ability,
        progress=lambda p: tell(f"general ability: {p.stage}", p.done, p.total),
    )
    secrets = secrets_in(
        prepared.train, lambda text: [(found.start, found.end) for found in find_personal(text)], limit=_SECRETS
    )
    return Proof(
        tuned=evaluations[0],
        base=evaluations[1],
        regression=regression,
        canaries=probe_canaries(scorer, prepared.canaries) if prepared.canaries else None,
        leakage=probe_leakage(
            scorer, without, secrets, progress=lambda done: tell("personal data", done, len(secrets))
        ),
    )


def _evaluate(
    who: str, model: Model, questions: QuestionSet, prepared: Prepared, folder: Path, tell: Tell
) -> Evaluation:
    options = EvaluateOptions(max_tokens=min(1024, 2 * prepared.longest_answer + 16))
    return evaluate(
        RecordedModel(model, folder / f"replies-{who}.jsonl"),
        questions,
        options=options,
        train=prepared.train,
        progress=lambda p: tell(f"held-out examples, {who}", p.done, p.total),
    )


def card(request: TuneRequest, prepared: Prepared, trained: TrainResult, proof: Proof) -> str:
    """The model card, in Markdown."""
    settings = asdict(prepared.run.settings)
    if isinstance(prepared.base, HostedBase):
        settings = {key: settings[key] for key in _HOSTED_SETTINGS} | {
            "provider's name of the model": trained.model,
            "trained tokens": f"{trained.tokens:,}",
        }
    counts = {"training": len(prepared.train), "dev": len(prepared.dev), "held out": len(prepared.held_out)}
    return write_card(
        Card(
            name=request.name,
            base_model=prepared.base.name,
            base_licence=prepared.base.licence,
            made_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
            data=[
                DataPart(role=file.role, name=Path(file.path).name, examples=counts[file.role], sha256=file.sha256)
                for file in prepared.files
            ],
            settings={
                **settings,
                "trainer": prepared.trainer.name,
                "steps": f"{trained.step} kept of {trained.steps} ({trained.stopped})",
                "dev loss, nats a token": "not measured" if trained.dev_loss is None else f"{trained.dev_loss:.4f}",
                "dev answers right, word for word": (
                    "not measured" if trained.dev_exact is None else f"{trained.dev_exact:.1%}"
                ),
                "training seconds": f"{trained.seconds:.0f}",
            },
            tuned=proof.tuned,
            base=proof.base,
            regression=proof.regression,
            canaries=proof.canaries,
            leakage=proof.leakage,
            repeat=[repeating(request, prepared.run.settings)],
            versions=versions(),
            limits=list(prepared.notes),
        )
    )


def repeating(request: TuneRequest, settings: TuningSettings) -> str:
    """The command that asks for the same run on a machine with no settings of its own.

    >>> request = TuneRequest(name="x", model="smollm2-135m", train="my rows.csv", mapping={"prompt": "text"})
    >>> repeating(request, TuningSettings(epochs=2.0))
    "graft tune 'my rows.csv' --model smollm2-135m --name x --map prompt=text --set epochs=2.0"
    """
    words = ["graft", "tune", request.train, "--model", request.model, "--name", request.name]
    mapping = ",".join(f"{part}={column}" for part, column in (request.mapping or {}).items())
    usual = TuneRequest(name=request.name, model=request.model, train=request.train)
    for option, value, default in (
        ("--dev", request.dev, None),
        ("--held-out", request.held_out, None),
        ("--retrieval-aware", request.retrieval_aware, None),
        ("--map", mapping, ""),
        ("--proof", request.proof, usual.proof),
        ("--questions", request.questions, usual.questions),
        ("--ability", request.ability, usual.ability),
        ("--canaries", request.canaries, usual.canaries),
    ):
        words += [] if value == default else [option, str(value)]
    shipped = asdict(TuningSettings())
    for key, chosen in asdict(settings).items():
        words += [] if chosen == shipped[key] else ["--set", f"{key}={_toml(chosen)}"]
    return shlex.join(words)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def versions() -> dict[str, str]:
    """Of what computes: Graft, its libraries, Python."""
    return {name: _version(name) for name in _LIBRARIES} | {"Python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def keep(proof: Proof, folder: Path) -> None:
    """Write proof.json: every figure, interval and record."""
    path = folder / "proof.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(proof), ensure_ascii=True, default=str) + "\n", encoding="utf-8")
    part.replace(path)
