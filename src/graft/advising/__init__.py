"""what is needed, what was measured, what things cost -> retrieval, tuning, both or neither, with the reasons.

It does not know workspaces, models or how anything is shown.

>>> from graft.advising import Needs, advise
>>> advise(Needs(teach=("format", "style", "skill"), knowledge="none", examples=2_000)).arm
'tuned'
"""

from graft.advising.advice import Advice, advise
from graft.advising.needs import QUESTIONS, Needs, Question, needs_from, read_needs
from graft.advising.prices import Prices, read_prices, shipped_prices
from graft.advising.report import Report, read_report, report_from

__all__ = [
    "QUESTIONS",
    "Advice",
    "Needs",
    "Prices",
    "Question",
    "Report",
    "advise",
    "needs_from",
    "read_needs",
    "read_prices",
    "read_report",
    "report_from",
    "shipped_prices",
]
