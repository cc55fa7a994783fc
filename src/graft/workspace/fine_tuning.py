"""Tuning as OpenAI's clients ask for it: an uploaded file in, a job, and a model that its maker alone can use."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.errors import NotFound, UsageError
from graft.workspace.files import FILE, FileVerbs
from graft.workspace.jobs import JobVerbs

if TYPE_CHECKING:
    from graft.jobs import Job, JobRun
    from graft.tuning import TuneRequest
    from graft.tuning.values import Proof

TUNE = "tune"
RESULTS_PURPOSE = "fine-tune-results"
_CURVE = Path("run") / "curve.jsonl"
_LONGEST_PART = 24


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A step of a training: losses in nats a token; `dev_loss` where it was measured at this step."""

    step: int
    loss: float
    dev_loss: float | None
    tokens: int | None


class FineTuningVerbs(JobVerbs, FileVerbs):
    """Queue a tuning on uploaded files; look at it."""

    def fine_tune(
        self,
        training_file: str,
        model: str,
        *,
        validation_file: str | None = None,
        suffix: str = "",
        overrides: Mapping[str, object] | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> Job:
        """Queue a tuning for a worker; the model belongs to those who act.

        Args:
            training_file, validation_file: Ids of uploaded files of examples.
            suffix: A part of the model's name; it has one of its own in any case.
            overrides: Values of [tuning].
            told: What the job's readers want to read again.
        Raises:
            NotFound: A file or the model is not there, or not theirs.
            UsageError: A file was uploaded for something else, or the model is kept by a provider.
        """
        request = self.plan_fine_tuning(training_file, model, validation_file=validation_file, suffix=suffix)
        payload = {
            "request": request.to_json(),
            "overrides": dict(overrides or {}),
            "principals": sorted(self.principals),
            "owns": sorted(self.owns),
            "files": {"training": training_file, "validation": validation_file, "suffix": suffix, **(told or {})},
        }
        return self.jobs.submit(TUNE, payload, title=f"tune {model} on {Path(request.train).name} as {request.name}")

    def bases(self) -> list[str]:
        """Models whose weights are here and are nobody's tuning: what `fine_tune` takes."""
        return [one.name for one in self.models() if one.kind == "chat" and one.ready and self._is_base(one.name)]

    def plan_fine_tuning(
        self,
        training_file: str,
        model: str,
        *,
        validation_file: str | None = None,
        suffix: str = "",
        mapping: Mapping[str, str] | None = None,
        proof: Proof = "none",
    ) -> TuneRequest:
        """A tuning on uploaded files under a name of its own, for `prepare_tuning` and `tune_job`; see `fine_tune`.

        Raises:
            NotFound, UsageError: As `fine_tune`.
        """
        from graft.tuning import TuneRequest

        train = self._examples_file(training_file)
        dev = None if validation_file is None else self._examples_file(validation_file)
        self._require_base(model)
        return TuneRequest(
            name=f"ft-{_plain(model)}{_plain(suffix, '-')}-{secrets.token_hex(4)}",
            model=model,
            train=str(train),
            dev=None if dev is None else str(dev),
            mapping=mapping,
            proof=proof,
        )

    def fine_tuning_job(self, id: str) -> Job:
        """Raises:
        NotFound: It is not there, not theirs, or no tuning.
        """
        job = self.jobs.get(id)
        if job.kind != TUNE:
            raise NotFound(f"no job {id!r}", fix="list them to see what is there")
        return job

    def fine_tuning_jobs(self) -> list[Job]:
        """Theirs, the newest first."""
        return [job for job in self.jobs.list() if job.kind == TUNE]

    def fine_tuning_curve(self, job: Job) -> list[CurvePoint]:
        """The steps so far; empty before the first."""
        folder = None if job.result is None else Path(str(job.result["folder"]))
        if folder is None:
            folder = self._unfinished_folder(job)
        try:
            lines = [] if folder is None else (folder / _CURVE).read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError:
            return []
        steps = [json.loads(line) for line in lines if line.endswith("\n")]
        return [
            CurvePoint(
                step=int(one["step"]), loss=one["loss"], dev_loss=one.get("dev_loss"), tokens=one.get("tokens")
            )
            for one in steps
            if one.get("loss") is not None
        ]

    def _unfinished_folder(self, job: Job) -> Path | None:
        """The run of a job that is under way, by its model's name, which no other run has."""
        name = str(job.payload["request"]["name"])
        versions = [path for path in (self.home / "tuned" / name).glob("*") if path.name.isdigit()]
        return max(versions, key=lambda path: int(path.name), default=None)

    def _examples_file(self, id: str) -> Path:
        found = self.objects.get(FILE, id, principals=self.principals)
        if found.body["purpose"] != "fine-tune":
            raise UsageError(
                f"{id} was uploaded for {found.body['purpose']!r}", fix='upload it with purpose="fine-tune"'
            )
        return self.file_path(id)

    def _require_base(self, model: str) -> None:
        """A base that can be tuned here by somebody who only knows its name: no path, no provider's money."""
        able = self.bases()
        if model not in able:
            raise NotFound(
                f"no model {model!r} that can be tuned here; have {', '.join(able) or 'none'}",
                fix="graft models list",
            )

    def _is_base(self, name: str) -> bool:
        spec = self._added_models().get(name)
        return spec is None or (spec.kind != "api" and spec.run is None)

    def _tune_job(self, run: JobRun, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        result = super()._tune_job(run, payload)
        if "files" not in payload:
            return result
        with self._acting(run, payload) as workspace:
            assert isinstance(workspace, FineTuningVerbs)
            points = workspace.fine_tuning_curve(dataclasses.replace(self.jobs.get(run.id), result=result))
            content = base64.b64encode(_as_csv(points).encode())  # as OpenAI's own results come
            stored = workspace.put_file(
                "step_metrics.csv", io.BytesIO(content), purpose=RESULTS_PURPOSE, most_bytes=len(content)
            )
        return {**result, "result_files": [stored.id]}


def _plain(text: str, before: str = "") -> str:
    """What of a text can stand in a model's name.

    >>> _plain("My süpport bot!", "-")
    '-My-s-pport-bot'
    """
    kept = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:_LONGEST_PART].strip("-.")
    return f"{before}{kept}" if kept else ""


def _as_csv(points: Sequence[CurvePoint]) -> str:
    """OpenAI's columns, without the accuracies, which are not measured."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("step", "train_loss", "valid_loss"))
    rows.writerows((one.step, one.loss, "" if one.dev_loss is None else one.dev_loss) for one in points)
    return out.getvalue()
