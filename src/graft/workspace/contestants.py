"""An experiment's request -> its arms, each with its model open, trained here where that is asked for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.access import OWNER
from graft.errors import GraftError, UsageError
from graft.settings import model_cache
from graft.workspace.datasets import DatasetVerbs
from graft.workspace.questions import QuestionVerbs
from graft.workspace.tuning import TuningVerbs

if TYPE_CHECKING:
    from graft.comparing.arms import Contestant, Library, Replies
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import CompareProgress
    from graft.comparing.values import OneTime
    from graft.dataset import Example
    from graft.store import Store

_LONGEST_REPLY = 1024
_CHARACTERS_A_TOKEN = 2
"""Of the densest answers, JSON and SQL."""


class ContestantVerbs(QuestionVerbs, DatasetVerbs, TuningVerbs):
    """Who answers."""

    def _contestants(
        self, request: CompareRequest, begun: Any, *, train: Callable[[CompareProgress], object] | None
    ) -> list[Contestant]:
        """The arms in the order of their names.

        Args:
            begun: The experiment's questions, examples and arms.
            train: Told of trainings; None trains nothing, and lets the base stand for a model that is not there.
        """
        found: list[Contestant] = []
        for name in begun.names:
            for seed, model, one_time in self._models_of(name, request, begun, train):
                label = name if not seed else f"{name} (seed {seed})"
                found.append(self._contestant(name, label, model, request, begun, seed, one_time))
        return found

    def _models_of(
        self, arm: str, request: CompareRequest, begun: Any, train: Callable[[CompareProgress], object] | None
    ) -> list[tuple[int | None, str, OneTime | None]]:
        """Seed, name and one-time cost of each model that answers an arm; of a control, "" once."""
        from graft.comparing.request import CONTROLS, LEARN

        if arm in CONTROLS:
            return [(None, "", None)]
        if arm not in LEARN:
            return [(None, request.model, None)]
        given = request.tuned if LEARN[arm] == "tuned" else request.retrieval_aware
        if given is not None:
            return [(None, given, self._one_time(given))]
        seeds = range(request.seeds)
        if train is None:
            return [(seed, request.model, None) for seed in seeds]
        names = [self._trained(request, begun, LEARN[arm], seed, train) for seed in seeds]
        return [(seed, name, self._one_time(name)) for seed, name in zip(seeds, names, strict=True)]

    def _to_train(self, request: CompareRequest, begun: Any) -> tuple[str, ...]:
        from graft.comparing.report_figures import duration
        from graft.comparing.request import LEARN

        learnt = {LEARN[name] for name in begun.names if name in LEARN}
        given = {"tuned": request.tuned, "aware": request.retrieval_aware}
        words = {"tuned": "tuned", "aware": "retrieval-aware"}
        times = "" if request.seeds == 1 else f", {request.seeds} times"
        to_train = [one for one in sorted(learnt) if given[one] is None]
        seconds = self._training_seconds(request, begun) if "tuned" in to_train else None
        took = "" if seconds is None else f", about {duration(1000 * seconds)} each"
        return tuple(
            f"a {words[one]} model from {request.model} on {Path(request.train or '').name}{times}"
            f"{took if one == 'tuned' else ''}"
            for one in to_train
        )

    def _training_seconds(self, request: CompareRequest, begun: Any) -> float | None:
        """What one training on the examples takes on this machine; None where nobody can tell. Nothing is written."""
        from tempfile import TemporaryDirectory

        from graft.tuning.ahead import look_ahead

        with TemporaryDirectory() as folder, suppress(GraftError):
            ahead = look_ahead(self._base(request.model), begun.train, (), self.settings, Path(folder))
            return ahead.preflight.seconds
        return None

    def _contestant(
        self,
        arm: str,
        label: str,
        model: str,
        request: CompareRequest,
        begun: Any,
        seed: int | None,
        one_time: OneTime | None,
    ) -> Contestant:
        from graft.comparing.arms import Contestant, FromDocuments, FromQuestion, configuration
        from graft.comparing.request import CONTROLS, LEARN, READ_DOCUMENTS

        if arm in CONTROLS:
            return self._control(arm, request, begun)
        identity = self._identity(model)
        if arm in READ_DOCUMENTS:
            reader = self._reader_of(model)
            adapter = "" if reader is None else f", with the reading adapter shipped for {model}"
            asking = self._asking(model, request.collection)
            grounded = FromDocuments(asking)
            return Contestant(
                name=label,
                model=model,
                about=f"{model} answers from passages that are found, as `graft ask` does{adapter}",
                configuration=configuration(arm="ask", model=identity, documents=self._documents_state(request)),
                replies=grounded,
                over=lambda store: FromDocuments(replace(asking, store=store, collections=None)),
                prompt_tokens=grounded.prompt_tokens,
                reply_tokens=self.settings.answering.answer_tokens,
                price=self._price(model),
                seed=seed,
                tuned=arm in LEARN,
                one_time=one_time,
            )
        shown: Sequence[Example] = begun.train if arm == "few-shot" else ()
        most = self._reply_tokens(begun.questions)
        asked = FromQuestion(self.model(model), system=begun.system, max_tokens=most, examples=shown)
        told = configuration(
            arm="question", model=identity, system=begun.system, max_tokens=most, examples=_digest(shown)
        )
        return Contestant(
            name=label,
            model=model,
            about=f"{model} is asked the question alone"
            if not shown
            else f"{model} is asked the question after the examples nearest to it",
            configuration=told,
            replies=asked,
            prompt_tokens=asked.prompt_tokens,
            reply_tokens=most,
            price=self._price(model),
            seed=seed,
            tuned=arm in LEARN,
            one_time=one_time,
        )

    def _control(self, arm: str, request: CompareRequest, begun: Any) -> Contestant:
        from graft.comparing.arms import (
            Contestant,
            always_first,
            best_sentence,
            configuration,
            constant,
            nearest_vote,
        )
        from graft.evaluation.scoring import DECIDES, METRICS

        over: Callable[[Store], Replies] | None = None
        if arm == "nearest-vote":
            replies, about = nearest_vote(begun.train), "what most of the nearest examples were answered with"
            told = configuration(arm=arm, examples=_digest(begun.train))
        elif arm == "constant":
            kind = Counter(question.kind for question in begun.questions).most_common(1)[0][0]
            replies = constant(begun.train, METRICS[DECIDES[kind]])
            about = "the same reply to everything: the one that fits the examples' answers best"
            told = configuration(arm=arm, examples=_digest(begun.train), kind=kind)
        else:
            library = self._library(request.collection)
            quoting = arm == "best-sentence"
            of = best_sentence if quoting else always_first
            replies = of(library)

            def over(store: Store) -> Replies:
                return of(replace(library, store=store, collections=None))

            about = "the sentence that fits best, word for word" if quoting else "the whole first passage found"
            told = configuration(arm=arm, documents=self._documents_state(request))
        return Contestant(
            name=arm, model="", about=about, configuration=told, replies=replies, over=over, control=True
        )

    def _library(self, collection: str | None) -> Library:
        from graft.comparing.arms import Library

        return Library(
            store=self.store,
            embedder=self.embedder,
            principals=self.principals,
            retrieval=self.settings.retrieval,
            collections=None if collection is None else (collection,),
        )

    def _trained(
        self,
        request: CompareRequest,
        begun: Any,
        what: str,
        seed: int,
        tell: Callable[[CompareProgress], object],
    ) -> str:
        """The name of the model that this experiment trains; one that it trained before is not trained again."""
        from graft.comparing.running import CompareProgress
        from graft.evaluation.recording import file_checksum
        from graft.tuning import HostedBase, TuneRequest

        assert request.train is not None
        if isinstance(self._base(request.model), HostedBase):
            raise UsageError(
                f"{request.model!r} is tuned by its provider, for money; an experiment does not spend it unasked",
                fix=f"graft tune {request.train} --model {request.model} --name NAME, then --tuned NAME",
            )
        train = Path(request.train) if what == "aware" else self._training_file(Path(request.train), begun)
        told = [file_checksum(train), request.model, what, seed, asdict(self.settings.tuning)]
        if OWNER not in self.principals:  # the model is theirs, and so must be its name
            told.append(sorted(self.owns))
        if what == "aware":
            told += [self._documents_state(request), asdict(self.settings.retrieval_aware)]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
        name = f"compare-{what}-{digest}"
        spec = self._added_models().get(name)
        if spec is not None and spec.adapter is not None and Path(spec.adapter).is_file():
            return name
        self.tune(
            TuneRequest(
                name=name,
                model=request.model,
                train=str(train),
                proof="none",
                retrieval_aware=(request.collection or "default") if what == "aware" else None,
            ),
            overrides={"seed": seed},
            progress=lambda p: tell(CompareProgress(stage=f"training {name}: {p.stage}", done=p.done, total=p.total)),
        )
        return name

    def _training_file(self, path: Path, begun: Any) -> Path:
        """The examples as they are learnt: questions of a question file with their first answers."""
        from graft.dataset.writing import write_examples
        from graft.tuning.grounding import questions_in

        if questions_in(path) is None:
            return path
        made: Path = begun.folder / "train.jsonl"
        write_examples(made, begun.train)
        return made

    def _examples(self, path: Path) -> Sequence[Example]:
        """What a train file holds: examples, or questions with their first answers."""
        from graft.dataset.reading import read_examples
        from graft.tuning.grounding import questions_in

        asked = questions_in(path)
        return read_examples(path, limits=self.settings.dataset).examples if asked is None else asked

    def _learnt_by(self, name: str) -> tuple[Sequence[Example], str | None]:
        """What a tuned model has learnt, or an empty list and why nobody can tell."""
        from graft.dataset.reading import read_examples
        from graft.tuning.grounding import FOLDER
        from graft.tuning.preparing import SPLIT
        from graft.tuning.values import REQUEST

        try:
            folder = self.tuned_model(name).folder
            asked = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
            examples = self._examples(Path(asked["train"]))
            apart = folder / SPLIT
            unseen = set(json.loads(apart.read_text(encoding="utf-8"))["test"]) if apart.is_file() else set()
            kept_back = folder / FOLDER / "held-out.jsonl"
            unseen |= {example.id for example in read_examples(kept_back).examples} if kept_back.is_file() else set()
        except (OSError, ValueError, KeyError, GraftError) as error:
            return (), f"nobody can tell whether {name} has learnt these questions: {error}"
        return [example for example in examples if example.id not in unseen], None

    def _one_time(self, name: str) -> OneTime | None:
        """What the training of a tuned model took."""
        from graft.comparing.values import OneTime

        spec = self._added_models().get(name)
        if spec is None or spec.run is None:
            return None
        tuned = self.tuned_model(name)
        tokens = None
        curve = tuned.folder / "run" / "curve.jsonl"
        if curve.is_file():
            lines = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines() if line.strip()]
            counted = [line["tokens"] for line in lines if "tokens" in line]
            tokens = int(counted[-1]) if counted else None
        return OneTime(cost_usd=None, train_tokens=tokens, seconds=tuned.seconds, joules=tuned.joules)

    def _identity(self, name: str) -> dict[str, Any]:
        """Which weights answer under a name; two with the same identity give the same replies."""
        from graft.evaluation.recording import file_checksum
        from graft.models import pulled
        from graft.models.catalogue import entry_named

        spec = self._spec(name)
        told: dict[str, Any] = {"spec": spec.to_json(), "context_tokens": self.settings.model.context_tokens}
        if spec.kind == "catalogue":
            told["sha256"] = dict(pulled(entry_named(spec.target), cache=model_cache()).sha256)
        files = [spec.target] if spec.kind == "file" else []
        files += [spec.adapter] if spec.adapter is not None else []
        told["files"] = [file_checksum(Path(path)) for path in files if Path(path).is_file()]
        reader = self._reader_of(name)
        if reader is not None:
            told["reader"] = [file_checksum(Path(reader.adapter)), reader.passages]
        return told

    def _documents_state(self, request: CompareRequest) -> str:
        """What retrieval can find, and how it looks: its replies change with it."""
        listed = self.store.documents(request.collection, principals=self.principals)
        state = hashlib.sha256(json.dumps(sorted((one.id, one.version) for one in listed)).encode()).hexdigest()
        stages = [asdict(getattr(self.settings, stage)) for stage in ("chunking", "retrieval", "answering")]
        return json.dumps([request.collection, state, self.embedder.identity, stages], sort_keys=True)

    def _reply_tokens(self, questions: Sequence[Any]) -> int:
        """Room for the longest right answer twice over, and never less than `graft ask` has."""
        longest = max((len(answer) for question in questions for answer in question.answers), default=0)
        room = 2 * longest // _CHARACTERS_A_TOKEN + 16
        return min(_LONGEST_REPLY, max(self.settings.answering.answer_tokens, room))


def _digest(examples: Sequence[Example]) -> str:
    told = [[[turn.role, turn.content] for turn in example.messages] for example in examples]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
