"""XQuAD -> how the claim verifier does on text that it was never tuned on.

    python -m benchmarks.bench_claims [--language de] [--show]

A true claim is a question's short answer, read together with its question and held against the paragraph it
is from and its two neighbours. False ones: the answer with one number, date or name changed; and, much
harder, the right answer to ANOTHER question about the same paragraph ("swapped"), where every word stands in
the source and only the question tells that it is the wrong one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours
from benchmarks.figures import Figure, markdown_table, write_part

COMMAND = "make bench"
TRUE = "true"


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the paragraphs, and (kind, claim): kind is TRUE, or how the claim was made false."""

    question: str
    paragraphs: tuple[str, ...]
    claims: tuple[tuple[str, str], ...]


def read_cases(path: Path) -> list[Case]:
    """Every question of one language's file, in order."""
    from graft.testing.claims import all_names

    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    names = list(all_names([p["context"] for article in articles for p in article["paragraphs"]]))
    cases: list[Case] = []
    for article in articles:
        texts = [p["context"] for p in article["paragraphs"]]
        for number, paragraph in enumerate(article["paragraphs"]):
            around = (texts[number], *texts[max(0, number - 1) : number], *texts[number + 1 : number + 2])
            pairs = [(qa["question"], qa["answers"][0]["text"]) for qa in paragraph["qas"]]
            for question, answer in pairs:
                others = [other for _, other in pairs if other != answer]
                cases.append(Case(question, around, tuple(_claims(answer, others, names))))
    return cases


def _claims(answer: str, others: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    from graft.testing.claims import falsify

    yield TRUE, answer
    for false in falsify(answer, other_names=names):
        if false.kind != "negation":  # a phrase without a verb has none to negate
            yield f"{false.kind} changed", false.text
    own = answer.lower()
    for other in others:
        if _kind(other) == _kind(answer) != "" and other.lower() not in own and own not in other.lower():
            yield f"{_kind(answer)} swapped", other
            return


def _kind(answer: str) -> str:
    from graft.citing.facts import dates, names, quantities

    kinds = {"date": dates(answer), "number": quantities(answer), "name": names(f"is {answer}")}
    return next((kind for kind, found in kinds.items() if found), "")


def count(cases: Sequence[Case], *, show: bool) -> Counter[tuple[str, bool]]:
    """(kind, flagged) -> number."""
    from graft.citing.verifying import Verdict, verify
    from graft.citing.windows import Passage

    embedder = ours.open_graft_embedder("int8")
    counts: Counter[tuple[str, bool]] = Counter()
    for case in cases:
        passages = [Passage(text) for text in case.paragraphs]
        claims = [claim for _, claim in case.claims]
        results = verify(claims, passages, embed=embedder.embed, question=case.question)
        for (kind, claim), found in zip(case.claims, results, strict=True):
            flagged = found.verdict is not Verdict.SUPPORTED
            counts[kind, flagged] += 1
            if show and flagged is (kind == TRUE):
                print("WRONG", kind, case.question, "=>", claim, found)
    return counts


def share(counts: Counter[tuple[str, bool]], kinds: Sequence[str]) -> float:
    """Flagged of all claims of these kinds."""
    flagged = sum(counts[kind, True] for kind in kinds)
    return flagged / (flagged + sum(counts[kind, False] for kind in kinds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", default="en", choices=["en", "de", "es", "ru"])
    parser.add_argument("--show", action="store_true", help="print what was judged wrongly")
    given = parser.parse_args()
    data = Path(os.environ.get("GRAFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    counts = count(read_cases(data / "qa" / "xquad" / f"xquad.{given.language}.json"), show=given.show)
    kinds = sorted({kind for kind, _ in counts})
    table = markdown_table(
        [f"claims ({given.language})", "number", "flagged", "share"],
        [[k, counts[k, True] + counts[k, False], counts[k, True], f"{share(counts, [k]):.3f}"] for k in kinds],
    )
    print(table)
    if given.language != "en":
        return
    values = {
        "claims.heldout_false_flagged": (share(counts, [k for k in kinds if k.endswith("changed")]), 0.95, "higher"),
        "claims.heldout_swapped_flagged": (
            share(counts, [k for k in kinds if k.endswith("swapped")]),
            None,
            "higher",
        ),
        "claims.heldout_true_flagged": (share(counts, [TRUE]), 0.05, "lower"),
    }
    made = {}
    for name, (value, target, better) in values.items():
        ratio = None if target is None else round(value / target, 3)
        made[name] = Figure(
            ours=round(value, 4), peer=target, peer_name="target" if target else None,
            ratio=ratio, low=ratio, high=ratio, unit="share", better=better, command=COMMAND,
        )  # fmt: skip
    write_part("claims", made, table=table, rows=[])


if __name__ == "__main__":
    main()
