"""compare without a question file: the model writes one from the documents, to be read by a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from graft.errors import UsageError
from graft.workspace.contestants import ContestantVerbs

if TYPE_CHECKING:
    from graft.comparing.request import CompareRequest
    from graft.comparing.running import ArmEstimate, CompareProgress

EXAMPLES, PAID = "generated.jsonl", "generated.json"
USUAL = 50
"""Questions that are made where no limit is set."""


def wanted(request: CompareRequest) -> int:
    """How many questions are to be made."""
    return request.limit or USUAL


def is_made(folder: Path) -> bool:
    """Whether an experiment's questions are there."""
    from graft.dataset.generating import question_file

    return question_file(folder / EXAMPLES).is_file()


class WritingVerbs(ContestantVerbs):
    """Questions made from the documents, once for an experiment."""

    def _to_make(self, request: CompareRequest) -> ArmEstimate:
        """What making them takes at most; it asks no model."""
        from graft.comparing.running import ArmEstimate

        found = self.estimate_dataset(wanted(request), model=request.model, collection=request.collection)
        return ArmEstimate(
            arm=f"{request.model}, which writes them",
            questions=found.calls,
            kept=0,
            prompt_tokens=found.input_tokens,
            reply_tokens=found.output_tokens,
            cost_usd=0.0 if self._price(request.model) is None else found.cost_usd,
        )

    def _made_questions(
        self, request: CompareRequest, folder: Path, progress: Callable[[CompareProgress], object]
    ) -> tuple[Path, float]:
        """The question file, made where it is not there, and the dollars that it took.

        Raises:
            UsageError: The model writes no question that can be kept, or the budget cannot be.
        """
        from graft.comparing.running import CompareProgress, require_budget
        from graft.dataset.generating import question_file

        made, paid = question_file(folder / EXAMPLES), folder / PAID
        if not made.is_file():
            making = self._to_make(request)
            require_budget([making], request.budget_usd)
            folder.mkdir(parents=True, exist_ok=True)
            n = wanted(request)
            written = self.generate_dataset(
                folder / EXAMPLES,
                n,
                model=request.model,
                collection=request.collection,
                budget_usd=request.budget_usd if making.cost_usd else None,
                progress=lambda p: progress(CompareProgress(stage="making questions", done=p.kept, total=n)),
            )
            if not written.questions:
                made.unlink()
                why = "; ".join(f"{count} {reason}" for reason, count in written.dropped.items())
                raise UsageError(
                    f"{request.model} wrote no question that can be kept, of {written.tried} passages: {why}",
                    fix="--questions FILE with your own, or a better --model",
                )
            paid.write_text(json.dumps({"cost_usd": written.cost_usd}) + "\n", encoding="utf-8")
        told = json.loads(paid.read_text(encoding="utf-8")) if paid.is_file() else {}
        return made, float(told.get("cost_usd") or 0.0)
