"""An extra's name -> the words that install it, as this Graft was installed itself.

It does not know what is in an extra.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """The command for a person; from a clone, which is installed editable, that of the clone.

    >>> install("tune").startswith("pip install ") and "[tune]" in install("tune")
    True
    """
    clone = _clone()
    return f"pip install 'graft-llm[{extra}]'" if clone is None else f"pip install -e '{clone}[{extra}]'"


@lru_cache(1)
def _clone() -> str | None:
    """Folder of the clone that Graft runs from, by PEP 610; None where it was installed from an index."""
    try:
        told = json.loads(distribution("graft-llm").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    if not told.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlsplit(str(told["url"])).path)
