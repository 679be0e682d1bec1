"""Targets for others to use: over the stdio protocol, as an OpenAI-compatible server, as MCP tools.

`served` makes targets ready; `stdio`, `openai_api` and `mcp_server` are the three faces; `http`
is the server that stands guard before the latter two.
"""
