"""Makes the helpers beside the tests importable, and serves targets of a test's own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from serving_parts import Serve  # noqa: E402


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """`await serve({name: provider}, …)` is a running HTTP server of these targets."""
    async with AsyncExitStack() as stack:
        yield Serve(tmp_path, stack)
