"""compare: every arm of an experiment on the same questions, kept reply by reply, to one report."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError, NotFound
from graft.workspace.refreshing import FreshnessVerbs
from graft.workspace.writing_questions import WritingVerbs, is_made, wanted

if TYPE_CHECKING:
    from graft.comparing.arms import Contestant
    from graft.comparing.freshness import Change
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import ArmEstimate, CompareProgress, Speed
    from graft.comparing.values import Comparison, Freshness, Record
    from graft.dataset import Example
    from graft.evaluation.questions import Question
    from graft.evaluation.recording import KeptLines
    from graft.evaluation.scoring import Scores

RESULT, PAGE, REPLIES, BEGUN = "compare.json", "report.html", "replies.jsonl", "experiment.json"
_JUDGED_TOKENS = 300
"""Of a judge's prompt, about."""
_JUDGED_REPLY = 16
_CHARACTERS_A_TOKEN = 4
"""Of running text, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """An experiment before it starts.

    Attributes:
        training: Arms whose model has to be trained first, and how long that takes, in words.
        cost_usd: At most, of what is still to be asked; None where a price is unknown.
        seconds: At most, of what is still to be asked, without training; None where a model was not timed.
    """

    folder: Path
    questions: int
    warnings: tuple[str, ...]
    arms: tuple[ArmEstimate, ...]
    training: tuple[str, ...]
    cost_usd: float | None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """Questions and examples of an experiment, read and screened.

    Attributes:
        not_run: Arms that are left out, and what they would need.
        budget_usd: What making the questions left of the budget; None is no limit.
    """

    folder: Path
    questions: tuple[Question, ...]
    train: tuple[Example, ...]
    system: str | None
    names: tuple[str, ...]
    not_run: Mapping[str, str]
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    budget_usd: float | None


class CompareVerbs(FreshnessVerbs, WritingVerbs):
    """compare, and what it would take."""

    def comparison_folder(self, request: CompareRequest) -> Path:
        """Where the experiment's replies and report are; the same request has the same."""
        if request.into is not None:
            return Path(request.into)
        digest = hashlib.sha256(json.dumps(request.experiment(), sort_keys=True).encode()).hexdigest()[:8]
        name = Path(request.questions).stem if request.questions else "generated"
        return self.home / "comparisons" / f"{name[:40]}-{digest}"

    def estimate_comparison(
        self, request: CompareRequest, *, progress: Callable[[CompareProgress], object] = lambda _: None
    ) -> Ahead:
        """What `compare` would ask and take; nothing is trained or written and no question is asked.

        A model on this machine is timed on one short reply.

        Where the questions are still to be made, it is what making them takes.

        Raises:
            GraftError: As `compare`, before its first question.
        """
        folder = self.comparison_folder(request)
        if request.questions is None and not is_made(folder):
            self._has_documents(request.collection)
            making = self._to_make(request)
            return Ahead(
                folder=folder,
                questions=wanted(request),
                warnings=("the questions are still to be made; what the arms take is told once they are there",),
                arms=(making,),
                training=(),
                cost_usd=making.cost_usd,
            )
        begun = self._begin(request, progress)
        contestants = self._contestants(request, begun, train=None)
        return self._ahead(request, begun, contestants, training=self._to_train(request, begun))

    def compare(
        self,
        request: CompareRequest,
        *,
        progress: Callable[[CompareProgress], object] = lambda _: None,
        announce: Callable[[Ahead], object] = lambda ahead: None,
    ) -> Comparison:
        """Ask every arm every question, and write compare.json, report.html and report.md.

        Killed, the same request goes on: a reply that is kept is not asked for again.

        Args:
            announce: Told what it will take before the first question is asked.
        Raises:
            UsageError: No question can be asked, an arm lacks what it needs, or a budget cannot be kept.
            NotFound: A model or the collection is not there.
            TrainingError: An arm's model cannot be trained.
        """
        from graft.comparing.measuring import records_of
        from graft.comparing.running import CompareProgress, ask_all, require_budget
        from graft.evaluation.sql import SqlRunner

        begun = self._begin(request, progress)
        created = self._created(begun.folder, request)
        contestants = self._contestants(request, begun, train=progress)
        kept = self._kept(begun.folder)
        before = self._ahead(request, begun, contestants, training=())
        require_budget(before.arms, begun.budget_usd)
        announce(before)
        replied = ask_all(
            contestants,
            begun.questions,
            kept,
            budget_usd=begun.budget_usd,
            first_question_usd=(before.cost_usd or 0.0) / len(begun.questions),
            progress=progress,
        )
        progress(CompareProgress(stage="scoring", done=len(replied.rows), total=len(begun.questions)))
        fresh: Mapping[str, Freshness] = {}
        if begun.changes:
            left = None if begun.budget_usd is None else max(0.0, begun.budget_usd - replied.spent_usd)
            fresh, asked_again = self._freshness(
                request, begun.changes, contestants, begun.folder, budget_usd=left, progress=progress
            )
            cut_off = asked_again.partial and f"of the changed facts, {asked_again.partial}"
            replied = replace(
                replied,
                spent_usd=replied.spent_usd + asked_again.spent_usd,
                partial=replied.partial or cut_off,
            )
        needs, judge = self._judging(request, begun, replied.spent_usd)
        with nullcontext() if request.database is None else SqlRunner(Path(request.database)) as runner:
            records = records_of(begun.questions, replied.rows, replace(needs, runner=runner))
        return self._measured(request, begun, created, contestants, records, replied, judge, fresh)

    def _begin(self, request: CompareRequest, progress: Callable[[CompareProgress], object]) -> _Begun:
        from graft.comparing.arms import shared_system
        from graft.comparing.asked import FEW, screened
        from graft.comparing.request import LEARN, arms_of
        from graft.evaluation.questions import read_questions
        from graft.evaluation.sql import SqlRunner
        from graft.tuning.grounding import questions_in

        if request.database is not None:
            with SqlRunner(Path(request.database)):
                pass  # refused now, and not after every question
        folder = self.comparison_folder(request)
        documents = self._has_documents(request.collection)
        warnings = []
        if request.questions is not None:
            path, spent = Path(request.questions), 0.0
        else:
            path, spent = self._made_questions(request, folder, progress)
            warnings.append(
                f"the questions were made from the documents by {request.model}: read {path} before you trust them"
            )
        asked = read_questions(path, limit=request.limit)
        train = () if request.train is None else self._examples(Path(request.train))
        to_learn = request.train is not None and questions_in(Path(request.train)) is not None
        names, not_run = arms_of(request, documents=documents, questions_to_learn=to_learn)
        learnt: dict[str, Sequence[Example]] = {}
        if request.train is not None:
            learnt[Path(request.train).name] = train
        for name in {request.tuned, request.retrieval_aware} - {None}:
            assert name is not None
            if any(LEARN.get(arm) for arm in names):
                examples, reason = self._learnt_by(name)
                learnt[name] = examples
                warnings += [] if reason is None else [reason]
        limits = self.settings.dataset
        kept = screened(asked.questions, learnt, near_duplicate=limits.near_duplicate, without_answer=asked.left_out)
        if len(kept.questions) < FEW:
            warnings.append(f"{len(kept.questions)} questions show only large differences")
        if not documents:
            warnings.append("there are no documents to retrieve from, so no arm reads any: graft add FOLDER")
        return _Begun(
            folder=folder,
            questions=kept.questions,
            train=tuple(train),
            system=shared_system(train or next(iter(learnt.values()), ())),
            names=names,
            not_run=not_run,
            changes=self._changes(request),
            warnings=(*warnings, *kept.warnings),
            budget_usd=None if request.budget_usd is None else max(0.0, request.budget_usd - spent),
        )

    def _created(self, folder: Path, request: CompareRequest) -> str:
        """When this experiment began; a request that goes on keeps its time."""
        note = folder / BEGUN
        told = request.experiment()
        if note.is_file():
            before: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
            if before.get("request") == told:
                return str(before["created"])
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"request": told, "created": created}, indent=1) + "\n", encoding="utf-8")
        return created

    def _held(self, collection: str | None) -> dict[str, int]:
        """How much there is to retrieve from."""
        found = self.store.collections(principals=self.principals)
        of = [one for one in found if collection in (None, one.name)]
        listed = self.store.documents(collection, principals=self.principals)
        tokens = sum(one.characters for one in listed) // _CHARACTERS_A_TOKEN
        return {
            "documents": sum(one.documents for one in of),
            "passages": sum(one.chunks for one in of),
            "tokens": tokens,
        }

    def _has_documents(self, collection: str | None) -> bool:
        found = self.store.collections(principals=self.principals)
        if collection is not None and collection not in {one.name for one in found}:
            have = ", ".join(one.name for one in found) or "none"
            raise NotFound(f"no collection {collection!r}; have {have}", fix="graft collections list")
        return any(one.documents for one in found if collection in (None, one.name))

    def _kept(self, folder: Path) -> KeptLines:
        from graft.evaluation.recording import KeptLines

        beside = sorted((self.home / "comparisons").glob(f"*/{REPLIES}"))
        return KeptLines(folder / REPLIES, field="reply", beside=[path for path in beside if path.parent != folder])

    def _ahead(
        self, request: CompareRequest, begun: _Begun, contestants: Sequence[Contestant], *, training: tuple[str, ...]
    ) -> Ahead:
        """What asking takes; training stands beside it in words."""
        estimates = self._estimates(request, begun, contestants, self._kept(begun.folder))
        costs = [one.cost_usd for one in estimates]
        times = [one.seconds for one in estimates]
        return Ahead(
            folder=begun.folder,
            questions=len(begun.questions),
            warnings=begun.warnings,
            arms=tuple(estimates),
            training=training,
            cost_usd=None if None in costs else sum(cost or 0.0 for cost in costs),
            seconds=None if None in times else sum(seconds or 0.0 for seconds in times),
        )

    def _estimates(
        self,
        request: CompareRequest,
        begun: _Begun,
        contestants: Sequence[Contestant],
        kept: KeptLines,
    ) -> list[ArmEstimate]:
        from graft.comparing.freshness import questions_of
        from graft.comparing.running import ArmEstimate, ahead
        from graft.models import Usage

        asked = (*begun.questions, *2 * questions_of(begun.changes))
        found = ahead(contestants, asked, kept, speeds=self._speeds(contestants))
        if request.judge is not None:
            open_ended = sum(question.kind in ("short", "text") for question in begun.questions)
            ways = sum(not one.control for one in contestants)
            calls = open_ended * (len(contestants) + 2 * max(0, ways - 1))
            tokens = Usage(calls * _JUDGED_TOKENS, calls * _JUDGED_REPLY)
            price = self._price(request.judge)
            found.append(
                ArmEstimate(
                    arm=f"judge {request.judge}",
                    questions=calls,
                    kept=0,
                    prompt_tokens=tokens.input_tokens,
                    reply_tokens=tokens.output_tokens,
                    cost_usd=0.0 if price is None else price(tokens),
                )
            )
        return found

    def _speeds(self, contestants: Sequence[Contestant]) -> dict[str, Speed]:
        """Of the models that run here; nobody is paid for a timing."""
        from graft.comparing.running import speed_of

        found = {}
        for name in sorted({one.model for one in contestants if one.model and one.price is None}):
            with suppress(GraftError):  # asking will tell
                found[name] = speed_of(self.model(name))
        return found

    def _judging(self, request: CompareRequest, begun: _Begun, spent_usd: float) -> tuple[Scores, Any]:
        """What scoring needs, and the judge with its meter; it is kept as replies are."""
        from graft.comparing.running import Metered
        from graft.evaluation.recording import RecordedModel
        from graft.evaluation.scoring import Scores

        if request.judge is None:
            return Scores(), None
        left = None if begun.budget_usd is None else max(1e-9, begun.budget_usd - spent_usd)
        metered = Metered(self.model(request.judge), left)
        recorded = RecordedModel(
            metered,
            begun.folder / "judgements.jsonl",
            configuration=json.dumps(self._identity(request.judge), sort_keys=True),
        )
        return Scores(judge=recorded), recorded

    def _measured(
        self,
        request: CompareRequest,
        begun: _Begun,
        created: str,
        contestants: Sequence[Contestant],
        records: Any,
        replied: Any,
        judge: Any,
        fresh: Mapping[str, Freshness],
    ) -> Comparison:
        from graft.comparing.findings import findings_of
        from graft.comparing.measuring import arm_of, fitness, judged_pairs, pairs_of, sample_words
        from graft.comparing.report import markdown, write_html
        from graft.comparing.values import VERSION, Comparison
        from graft.comparing.verdict import ranked, verdict_of

        arms = tuple(arm_of(one, records) for one in contestants) if records else ()
        arms = tuple(replace(arm, freshness=fresh.get(arm.name)) for arm in arms)
        pairs = pairs_of(arms, records)
        best = next(iter(ranked(arms)), None)
        known = [r.cost_usd for record in records for r in record.replies.values() if r.error is None]
        judged = judged_pairs(arms, records, judge) if judge is not None else ()
        kinds = sorted({record.kind for record in records})
        made = Comparison(
            version=VERSION,
            created=created,
            settings=self._repeatable(request, begun, contestants),
            questions=len(records),
            kinds={kind: sum(record.kind == kind for record in records) for kind in kinds},
            warnings=(*begun.warnings, *([] if request.judge is None else _silence(request.judge, records))),
            sample=sample_words(arms, records),
            arms=arms,
            pairs=pairs,
            judged=judged,
            records=records,
            verdict=verdict_of(arms, pairs, None if best is None else fitness(best.name, records)),
            findings=findings_of((*ranked(arms), *(arm for arm in arms if arm.control)), records),
            partial=replied.partial,
            cost_usd=None if None in known else sum(cost or 0.0 for cost in known),
        )
        _write(begun.folder / RESULT, json.dumps(made.to_json(), ensure_ascii=True, indent=1) + "\n")
        write_html(made, begun.folder / PAGE)
        _write(begun.folder / "report.md", markdown(made))
        return made

    def _repeatable(
        self, request: CompareRequest, begun: _Begun, contestants: Sequence[Contestant]
    ) -> dict[str, Any]:
        from graft.tuning.proving import versions

        files = {
            name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
            for name, path in (
                ("questions", request.questions),
                ("train", request.train),
                ("fresh", request.fresh),
                ("database", request.database),
            )
            if path is not None
        }
        stages = ("embedding", "chunking", "retrieval", "model", "answering", "tuning", "retrieval_aware")
        return {
            "command": request.command(),
            "request": request.to_json(),
            "documents": self._held(request.collection),
            "examples": len(begun.train),
            "arms": [one.name for one in contestants],
            "not_run": dict(begun.not_run),
            "system": begun.system,
            "sha256": files,
            "models": {name: self._identity(name) for name in sorted({c.model for c in contestants if c.model})},
            "settings": {stage: asdict(getattr(self.settings, stage)) for stage in stages},
            "versions": versions(),
        }


def _silence(judge: str, records: Sequence[Record]) -> list[str]:
    """How often the judge said nothing usable, in words."""
    replies = [reply for record in records for reply in record.replies.values() if reply.error is None]
    silent = [reply.unmeasured["judged"] for reply in replies if "judged" in reply.unmeasured]
    asked = len(silent) + sum("judged" in reply.scores for reply in replies)
    if not silent:
        return []
    return [f"the judge {judge} gave no judgement on {len(silent)} of {asked} replies: {silent[0]}"]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
