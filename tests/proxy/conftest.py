"""Makes the helpers beside the tests importable, and runs proxies within the test's own loop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from proxy_parts import Start  # noqa: E402


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(to=…, record=…, rules=…)` is a running proxy."""
    async with AsyncExitStack() as stack:
        yield Start(tmp_path, stack)
