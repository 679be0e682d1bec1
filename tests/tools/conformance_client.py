"""Muster's MCP client as the conformance suite wants to run it: `conformance_client.py URL`.

Lists the tools of the server at the URL, and calls each once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from muster.provider import Tool
from muster.tools.base import ToolFailed, open_toolbox
from muster.tools.definitions import McpServer
from muster.tools.mcp import McpServers

VALUES: Mapping[str, Any] = {"number": 2, "integer": 2, "string": "x", "boolean": True}


def arguments_for(tool: Tool) -> dict[str, Any]:
    properties = tool.parameters.get("properties") or {}
    return {name: VALUES.get(schema.get("type")) for name, schema in properties.items()}


async def main(url: str) -> int:
    server = McpServer(name="suite", url=url, transport="streamable-http")
    async with McpServers() as servers:
        box = await open_toolbox([server], servers=servers)
        print(box.warnings, file=sys.stderr)
        for tool in box.tools:
            try:
                print(await box.call(tool.name, arguments_for(tool)), file=sys.stderr)
            except ToolFailed as error:
                print(f"error: {error}", file=sys.stderr)
        return 1 if box.warnings else 0


sys.exit(asyncio.run(main(sys.argv[-1])))
