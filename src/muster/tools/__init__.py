"""Tools that an agent may call: from MCP servers, webhooks and Python."""
