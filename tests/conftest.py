"""Fixtures that every test may use: real weights, pulled once; the shared data where it is present."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from graft.embedding import Embedder
from graft.embedding.registry import open_embedder
from graft.settings import EmbeddingSettings, model_cache
from graft.workspace import Workspace

# A shell's background job inherits an ignored SIGINT, and so would every process that the Ctrl-C tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# LiteLLM asks the network for its price table when it is imported, unless it is told not to beforehand.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# How long a machine takes for an example says nothing of the program.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
HANDBOOK = SAMPLES / "handbook"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test data, which not every machine has."""
    folder = Path(os.environ.get("GRAFT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set GRAFT_DATA")
    return folder


@pytest.fixture(scope="session")
def models() -> Path:
    """The cache that holds the embedder's and the small chat model's weights.

    They are pulled by a process of their own: in this one, a connection beyond the machine fails the test.
    """
    for name in ("all-minilm-l6-v2", "smollm2-135m"):
        subprocess.run([sys.executable, "-m", "graft", "models", "pull", name], check=True, stdout=subprocess.DEVNULL)
    return model_cache()


@pytest.fixture(scope="session")
def embedder(models: Path) -> Embedder:
    return open_embedder(EmbeddingSettings(), cache=models)


@pytest.fixture
def workspace(tmp_path: Path, models: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "home") as opened:
        yield opened


@pytest.fixture(scope="session")
def handbook(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Workspace]:
    """A workspace that holds the sample handbook; not to be changed."""
    with Workspace(tmp_path_factory.mktemp("handbook")) as opened:
        assert not opened.add([str(HANDBOOK)]).failed
        yield opened
