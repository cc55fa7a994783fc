"""Files of examples: check, dedupe, split, generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graft.workspace.opened import Opened

if TYPE_CHECKING:
    from graft.dataset.checking import CheckReport
    from graft.dataset.dedupe import Deduped
    from graft.dataset.questions import Estimate, Generated, Price, Progress, Source
    from graft.dataset.splitting import SplitFiles


class DatasetVerbs(Opened):
    """Files of examples."""

    def check_dataset(
        self,
        path: Path | str,
        *,
        mapping: Mapping[str, str] | None = None,
        model: str | None = None,
        context_tokens: int | None = None,
        splits: Sequence[Path | str] = (),
        benchmarks: Sequence[Path | str] = (),
        personal: bool = True,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> CheckReport:
        """What would spoil a training on the file; see `dataset.checking.check`.

        Args:
            model: Counts tokens and sets the context; without it, lengths are estimated.
        """
        from graft.dataset.checking import Against, check

        opened = None if model is None else self.model(model)
        against = Against(
            count_tokens=None if opened is None else opened.count_tokens,
            context_tokens=context_tokens
            or (self.settings.model.context_tokens if opened is None else opened.context_tokens),
            splits=splits,
            benchmarks=benchmarks,
            personal=personal,
        )
        return check(path, against, mapping=mapping, limits=self.settings.dataset, progress=progress)

    def dedupe_dataset(
        self,
        path: Path | str,
        output: Path | str,
        *,
        mapping: Mapping[str, str] | None = None,
        near: bool = True,
        threshold: float | None = None,
    ) -> Deduped:
        """Write the file without duplicates, and without lines that are no examples; see `dataset.dedupe.dedupe`."""
        from graft.dataset.dedupe import dedupe
        from graft.dataset.reading import read_examples
        from graft.dataset.writing import write_examples

        limits = self.settings.dataset
        reading = read_examples(path, mapping=mapping, limits=limits)
        found = dedupe(reading.examples, near=near, threshold=threshold or limits.near_duplicate)
        result = replace(found, unread=reading.unread)
        write_examples(output, result.kept)
        return result

    def split_dataset(
        self,
        path: Path | str,
        *,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int = 0,
        mapping: Mapping[str, str] | None = None,
        output: Path | str | None = None,
        renew: bool = False,
    ) -> SplitFiles:
        """Write train, dev and test parts of examples or questions, with frozen ids; see `dataset.splitting`."""
        from graft.dataset.splitting import split_file
        from graft.tuning.grounding import questions_in

        return split_file(
            path,
            fractions=fractions,
            seed=seed,
            mapping=mapping,
            output=output,
            renew=renew,
            limits=self.settings.dataset,
            questions=None if mapping else questions_in(Path(path)),
        )

    def estimate_dataset(
        self,
        n: int,
        *,
        model: str | None = None,
        collection: str | None = None,
        seed: int = 0,
        price: Price | None = None,
    ) -> Estimate:
        """What generating n questions will take; asks the model nothing.

        Args:
            price: Of the model's tokens; by default what LiteLLM's table says of a hosted one.
        """
        from graft.dataset.generating import estimate

        return estimate(self._generating(model, collection, price), n, seed=seed)

    def generate_dataset(
        self,
        path: Path | str,
        n: int,
        *,
        model: str | None = None,
        collection: str | None = None,
        seed: int = 0,
        budget_usd: float | None = None,
        price: Price | None = None,
        progress: Callable[[Progress], object] = lambda progress: None,
    ) -> Generated:
        """Write questions made from documents, as examples to `path` and as a question file beside it.

        A run that was interrupted goes on; see `dataset.generating.generate_files`.
        """
        from graft.dataset.generating import generate_files

        return generate_files(
            self._generating(model, collection, price), n, path, seed=seed, budget_usd=budget_usd, progress=progress
        )

    def _generating(self, model: str | None, collection: str | None, price: Price | None) -> Source:
        from graft.dataset.questions import Source

        return Source(
            store=self.store,
            embedder=self.embedder,
            model=self.model(model),
            principals=self.principals,
            retrieval=self.settings.retrieval,
            collection=collection,
            price=price or self._listed_price(model or self.settings.model.default),
        )

    def _listed_price(self, name: str) -> Price | None:
        from graft.dataset.questions import Price
        from graft.models import Usage

        price = self._price(name)
        if price is None:
            return None
        asked, told = price(Usage(1_000_000, 0)), price(Usage(0, 1_000_000))
        return None if asked is None or told is None else Price(input_usd=asked, output_usd=told)
