"""A function that asks the environment, as `provider: function` takes it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from relay_command import length_of, posted, read

from muster.providers.prompt import render_prompt


async def answer(url: str, request: Any) -> dict[str, Any]:
    """The environment's answer to a request."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(posted(render_prompt(request), url))
        head = await reader.readuntil(b"\r\n\r\n")
        return read(head, await reader.readexactly(length_of(head)))
    finally:
        writer.close()


def __getattr__(name: str) -> Any:
    """`relay:at_8080` is the function that asks the port 8080."""
    if not name.startswith("at_"):
        raise AttributeError(name)
    return partial(answer, f"http://127.0.0.1:{name.removeprefix('at_')}")
