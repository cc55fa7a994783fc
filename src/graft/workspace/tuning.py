"""Tuning: look ahead, tune, list, export; measure a model on questions and against its base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graft.access import OWNER
from graft.errors import NotFound, UsageError
from graft.settings import model_cache
from graft.workspace.models import ModelVerbs

if TYPE_CHECKING:
    from graft.dataset.retrieval_aware import Shelf
    from graft.evaluation.evaluating import Evaluation, EvaluationProgress
    from graft.evaluation.likelihood import TorchScorer
    from graft.evaluation.regression import Regression, RegressionProgress
    from graft.prompting import CountTokens
    from graft.training.exporting import ExportResult
    from graft.tuning import Base, HostedBase, Prepared, TunedModel, TuneProgress, TuneRequest


class TuningVerbs(ModelVerbs):
    """tune, evaluate, regress, export."""

    def prepare_tuning(
        self,
        request: TuneRequest,
        *,
        overrides: Mapping[str, object] | None = None,
        price_usd: float | None = None,
        tell: Callable[[str], object] = lambda what: None,
    ) -> Prepared:
        """Read the examples and look ahead: exact tokens, time, memory, and what is sure to fail.

        A request that is retrieval-aware has its examples made here, from what these principals may read; they are
        kept in the run's folder and not made again.

        Args:
            overrides: Values of [tuning] instead of those of graft.toml.
            price_usd: Of a million trained tokens, where a provider trains: for the cost.
        Raises:
            GraftError: The examples or the base cannot be used; says what would help.
        """
        from graft.tuning import prepare, version_folder, with_overrides

        settings = with_overrides(self.settings, overrides or {})
        base = self._base(request.model, tell)
        return prepare(
            request,
            base,
            settings,
            version_folder(self.home / "tuned", request),
            open_shelf=lambda count: self._shelf(request.retrieval_aware, count),
            price_usd=price_usd,
            tell=tell,
        )

    def tune(
        self,
        request: TuneRequest,
        *,
        prepared: Prepared | None = None,
        overrides: Mapping[str, object] | None = None,
        progress: Callable[[TuneProgress], object] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> TunedModel:
        """Train, prove and register a model; the same request goes on where it was cut off.

        A hosted base is trained by its provider, which gets the examples and is paid: `prepare_tuning` says what.

        Args:
            prepared: What `prepare_tuning` returned for this request, if it was asked.
        Raises:
            TrainingError: It cannot be done, or went wrong; the last checkpoint is kept.
        """
        from graft.models import open_model
        from graft.tuning import TuneProgress, tune

        def tell(what: str) -> None:
            progress(TuneProgress(stage=what, done=0, total=0))

        ready = prepared or self.prepare_tuning(request, overrides=overrides, tell=tell)
        tuned = tune(
            request,
            ready,
            folder=ready.run.folder.parent,
            open_served=lambda spec: open_model(spec, settings=self.settings.model, cache=model_cache()),
            data=_test_data(),
            progress=progress,
            cancelled=cancelled,
        )
        owners = None if OWNER in self.principals else tuple(sorted(self.owns))
        for name in (tuned.name, f"{tuned.name}@{tuned.version}"):
            self._put_model(dataclasses.replace(tuned.spec(name), owners=owners))
        return tuned

    def tuned_models(self) -> list[TunedModel]:
        """Every version of every tuned model that is registered, by name and version."""
        from graft.tuning import read_tuned

        folders = {spec.run for spec in self._added_models().values() if spec.run is not None}
        found = [read_tuned(Path(folder)) for folder in folders if Path(folder).is_dir()]
        return sorted(found, key=lambda tuned: (tuned.name, tuned.version))

    def tuned_model(self, name: str) -> TunedModel:
        """A tuned model by NAME or NAME@VERSION.

        Raises:
            NotFound: There is none of that name.
        """
        from graft.tuning import read_tuned

        spec = self._added_models().get(name)
        if spec is None or spec.run is None:
            have = sorted(n for n, s in self._added_models().items() if s.run is not None)
            raise NotFound(f"no tuned model {name!r}; have {', '.join(have) or 'none'}", fix="graft tune --help")
        return read_tuned(Path(spec.run))

    def export(
        self,
        name: str,
        *,
        to: str,
        quantisation: str | None = None,
        into: Path | str | None = None,
        force: bool = False,
        tell: Callable[[str], object] = lambda what: None,
    ) -> ExportResult:
        """Write a tuned model as an adapter, a merged checkpoint or a GGUF, proven to answer as it does here.

        It is asked the run's held-out prompts: its tokens must be the adapter's, and its figure by the task's metric
        within the interval of the adapter's.

        Args:
            into: Folder; the run's own `exports` by default.
        Raises:
            UsageError: Its weights are not here: it is hosted.
            GraftError: The file would not answer as the adapter does; says by how much.
        """
        from graft.training.exporting import Tuned, export
        from graft.tuning import Base, read_check
        from graft.tuning.ahead import token_counter

        tuned = self.tuned_model(name)
        checkpoint, adapter = tuned.weights()
        base = Base(name=tuned.base, checkpoint=checkpoint, gguf=tuned.gguf, licence="")
        check = read_check(tuned.folder, token_counter(base, self.settings))
        tell(f"{to} is to be held against the adapter on {check.words}")
        return export(
            Tuned(name=tuned.name, adapter=adapter, checkpoint=checkpoint, gguf=tuned.gguf),
            to=to,
            into=tuned.folder / "exports" if into is None else Path(into),
            quantisation=quantisation,
            prompts=check.prompts,
            metric=check.metric,
            reply_tokens=check.reply_tokens,
            force=force,
            tell=tell,
        )

    def evaluate(
        self,
        model: str,
        questions: Path | str,
        *,
        metrics: Sequence[str] = (),
        limit: int | None = None,
        train: Path | str | None = None,
        database: Path | str | None = None,
        judge: str | None = None,
        system: str | None = None,
        max_tokens: int = 256,
        language: str = "en",
        progress: Callable[[EvaluationProgress], object] = lambda _: None,
    ) -> Evaluation:
        """Ask a model every question of a file and score its answers; goes on where it was ended.

        Raises:
            UsageError: The file holds no questions, or a metric lacks what it needs.
        """
        from graft.dataset.reading import read_examples
        from graft.evaluation.evaluating import EvaluateOptions, evaluate
        from graft.evaluation.questions import read_questions
        from graft.evaluation.recording import RecordedModel

        asked = read_questions(Path(questions), limit=limit)
        options = EvaluateOptions(
            max_tokens=max_tokens,
            system=system,
            metrics=tuple(metrics),
            language=language,
            database=None if database is None else Path(database),
        )
        opened = self.model(model)
        replies = self.home / "evaluations" / "replies.jsonl"
        spec = self._added_models().get(model)
        known = RecordedModel(
            opened,
            replies,
            configuration="" if spec is None else str(sorted(spec.to_json().items())),
        )
        return evaluate(
            known,
            asked,
            options=options,
            train=() if train is None else read_examples(train, limits=self.settings.dataset).examples,
            judge=None if judge is None else RecordedModel(self.model(judge), replies),
            progress=progress,
        )

    def regress(
        self,
        tuned: str,
        *,
        against: str,
        limit: int = 50,
        progress: Callable[[RegressionProgress], object] = lambda _: None,
    ) -> Regression:
        """What a model lost against another on general questions, general text and the other's own answers.

        Args:
            tuned, against: Models whose weights are here: names of `graft models list`, or checkpoint folders.
        """
        from graft.evaluation.regression import regress

        if tuned == against:
            raise UsageError(f"{tuned!r} against itself shows nothing", fix="--against the model it was tuned from")
        return regress(self._scorer(tuned), self._scorer(against), data=_test_data(), limit=limit, progress=progress)

    def _shelf(self, collection: str | None, count_tokens: CountTokens) -> Shelf:
        from graft.dataset.retrieval_aware import Shelf

        return Shelf(
            store=self.store,
            embedder=self.embedder,
            principals=self.principals,
            count_tokens=count_tokens,
            collections=None if collection is None else (collection,),
            retrieval=self.settings.retrieval,
            answering=self.settings.answering,
        )

    def _base(self, name: str, tell: Callable[[str], object] = lambda what: None) -> Base | HostedBase:
        from graft.tuning import open_base

        return open_base(self._added_models().get(name, name), cache=model_cache(), tell=tell)

    def _scorer(self, name: str) -> TorchScorer:
        from graft.evaluation.likelihood import TorchScorer
        from graft.tuning import HostedBase

        spec = self._added_models().get(name)
        if spec is not None and spec.run is not None:
            return TorchScorer(*self.tuned_model(name).weights(), name=name)
        base = self._base(name)
        if isinstance(base, HostedBase):
            raise UsageError(
                f"{name!r} is hosted: its weights are not here, so what it lost cannot be read from inside",
                fix=f"graft evaluate {name} --questions FILE",
            )
        return TorchScorer(base.checkpoint, name=name)


def _test_data() -> Path | None:
    """The folder of public test data, where GRAFT_DATA names one."""
    folder = Path(os.environ.get("GRAFT_DATA", ""))
    return folder if os.environ.get("GRAFT_DATA") and (folder / "ability").is_dir() else None
