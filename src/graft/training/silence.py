"""Libraries that talk -> quiet: the doors decide what is shown.

It does not hide errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graft.errors import TrainingError
from graft.extras import install


def need_tune() -> None:
    """Raises: TrainingError where the `tune` extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "peft", "trl", "gguf") if find_spec(name) is None]
    if missing:
        raise TrainingError(f"tuning needs {', '.join(missing)}", fix=install("tune"))


@contextmanager
def quiet() -> Iterator[None]:
    """Run transformers, peft and TRL without their progress bars, notices and warnings.

    Raises:
        TrainingError: They are not installed.
    """
    need_tune()
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
