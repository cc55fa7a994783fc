"""Tuning: look ahead, tune, list, export; measure a model on questions and against its base."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graft.errors import NotFound, UsageError
from graft.settings import model_cache
from graft.workspace.models import ModelVerbs

if TYPE_CHECKING:
    from graft.evaluation.evaluating import Evaluation, EvaluationProgress
    from graft.evaluation.likelihood import TorchScorer
    from graft.evaluation.regression import Regression, RegressionProgress
    from graft.models import Model
    from graft.training.exporting import ExportResult
    from graft.tuning import Base, Prepared, TunedModel, TuneProgress, TuneRequest


class TuningVerbs(ModelVerbs):
    """tune, evaluate, regress, export."""

    def prepare_tuning(
        self,
        request: TuneRequest,
        *,
        overrides: Mapping[str, object] | None = None,
        tell: Callable[[str], object] = lambda what: None,
    ) -> Prepared:
        """Read the examples and look ahead: exact tokens, time, memory, and what is sure to fail.

        Args:
            overrides: Values of [tuning] instead of those of graft.toml.
        Raises:
            GraftError: The examples or the base cannot be used; says what would help.
        """
        from graft.tuning import prepare, version_folder, with_overrides

        settings = with_overrides(self.settings, overrides or {})
        base = self._base(request.model, tell)
        return prepare(request, base, settings, version_folder(self.home / "tuned", request), tell=tell)

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

        Args:
            prepared: What `prepare_tuning` returned for this request, if it was asked.
        Raises:
            TrainingError: It cannot be done, or went wrong; the last checkpoint is kept.
        """
        from graft.models.llama import LlamaModel
        from graft.models.specs import ModelSpec
        from graft.tuning import tune

        ready = prepared or self.prepare_tuning(request, overrides=overrides)
        folder = ready.run.folder.parent

        def open_served(name: str, gguf: Path, adapter: Path | None) -> Model:
            return LlamaModel(
                gguf,
                name=name,
                context_tokens=self.settings.model.context_tokens,
                threads=self.settings.model.threads,
                adapter=adapter,
            )

        tuned = tune(
            request,
            ready,
            folder=folder,
            open_served=open_served,
            data=_test_data(),
            progress=progress,
            cancelled=cancelled,
        )
        for name in (tuned.name, f"{tuned.name}@{tuned.version}"):
            self._put_model(
                ModelSpec(
                    name=name,
                    kind="file",
                    target=str(tuned.gguf),
                    adapter=str(tuned.served_adapter),
                    run=str(tuned.folder),
                )
            )
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

        Args:
            into: Folder; the run's own `exports` by default.
        Raises:
            GraftError: The file would not answer as the adapter does; says by how much.
        """
        from graft.training.exporting import Tuned, export

        tuned = self.tuned_model(name)
        return export(
            Tuned(name=tuned.name, adapter=tuned.adapter, checkpoint=tuned.checkpoint, gguf=tuned.gguf),
            to=to,
            into=tuned.folder / "exports" if into is None else Path(into),
            quantisation=quantisation,
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

    def _base(self, name: str, tell: Callable[[str], object] = lambda what: None) -> Base:
        from graft.tuning import open_base

        return open_base(self._added_models().get(name, name), cache=model_cache(), tell=tell)

    def _scorer(self, name: str) -> TorchScorer:
        from graft.evaluation.likelihood import TorchScorer

        spec = self._added_models().get(name)
        if spec is not None and spec.run is not None:
            tuned = self.tuned_model(name)
            return TorchScorer(tuned.checkpoint, tuned.adapter, name=name)
        return TorchScorer(self._base(name).checkpoint, name=name)


def _test_data() -> Path | None:
    """The folder of public test data, where GRAFT_DATA names one."""
    folder = Path(os.environ.get("GRAFT_DATA", ""))
    return folder if os.environ.get("GRAFT_DATA") and (folder / "ability").is_dir() else None
