"""The tools of agents in the normal form: MCP servers, HTTP endpoints, Python functions."""

from __future__ import annotations

import shlex
from pathlib import Path

from muster.config.document import Place
from muster.target import Secret
from muster.teams.definition import McpServer, PythonTool, ToolSource, WebhookTool
from muster.teams.manifests.agent_models import AgentFields, McpServerSpec, ToolSpec
from muster.teams.manifests.context import Context

__all__ = ("tools_of",)

_NO_ARGUMENTS = {"type": "object", "properties": {}}


def tools_of(
    fields: AgentFields, place: Place, folder: Path, context: Context
) -> tuple[ToolSource, ...]:
    """All tools of the agent whose fields stand at `place`."""
    _complain_about_twins(fields, place, context)
    found: list[ToolSource] = []
    for number, server in enumerate(fields.mcpServers):
        made = _server(server, place.at("mcpServers", number), folder, context)
        if made is not None:
            found.append(made)
    for number, tool in enumerate(fields.tools):
        found.append(_tool(tool, place.at("tools", number), folder, context))
    for number, item in enumerate(fields.pythonTools):
        at = place.at("pythonTools", number)
        if isinstance(item, str):
            found.append(_python(PythonTool(path=item, search=folder), at, context))
        else:
            python = PythonTool(
                path=item.path,
                name=item.name,
                description=item.description,
                search=folder,
                timeout_seconds=item.timeoutSeconds,
                max_bytes=item.maxBytes,
            )
            found.append(_python(python, at.at("path"), context))
    return tuple(found)


def _complain_about_twins(fields: AgentFields, place: Place, context: Context) -> None:
    servers = [
        (item.name, place.at("mcpServers", number, "name"))
        for number, item in enumerate(fields.mcpServers)
    ]
    tools = [
        (item.name, place.at("tools", number, "name")) for number, item in enumerate(fields.tools)
    ]
    for number, item in enumerate(fields.pythonTools):
        at = place.at("pythonTools", number)
        path, name = (item, None) if isinstance(item, str) else (item.path, item.name)
        tools.append((name or path.rpartition(":")[2].rpartition(".")[2], at))
    for what, named in (("MCP servers", servers), ("tools", tools)):
        seen: set[str] = set()
        for name, at in named:
            if name in seen:
                context.findings.add(at, f'there are two {what} called "{name}"')
            seen.add(name)


def _server(spec: McpServerSpec, place: Place, folder: Path, context: Context) -> McpServer | None:
    findings = context.findings
    for gateway in ("arkAgentRef", "capabilityRef"):
        if getattr(spec, gateway) is not None:
            message = f'MCP server "{spec.name}" is left out: it needs the gateway of a cluster'
            findings.warn(place.at(gateway), message)
            return None
    headers = context.named_values(spec.headers, place.at("headers"))
    if spec.auth is not None:
        at = place.at("auth", "tokenSecretRef")
        token = context.secret(spec.auth.tokenSecretRef, "token", at)
        if "authorization" in map(str.lower, headers):
            findings.add(place.at("auth"), "headers already have an Authorization")
        if token is not None:
            headers["Authorization"] = Secret(f"Bearer {token}")
    command = _command(spec, place, context)
    return McpServer(
        name=spec.name,
        url=_url(spec.url, place.at("url"), context) if spec.url is not None else None,
        command=command,
        env=context.named_values(spec.env, place.at("env")),
        cwd=_cwd(spec, place, folder, context) if command else None,
        transport=spec.transport,
        headers=headers,
        allow=tuple(spec.allow) if spec.allow is not None else None,
        timeout_seconds=spec.timeoutSeconds,
        startup_timeout_seconds=spec.startupTimeoutSeconds,
        max_bytes=spec.maxBytes,
        guidance=spec.guidance,
    )


def _command(spec: McpServerSpec, place: Place, context: Context) -> tuple[str, ...]:
    if spec.command is None:
        return ()
    at = place.at("command")
    if context.safe:
        context.findings.add(at, "commands are not run in safe mode")
    if isinstance(spec.command, str):
        try:
            words = [(word, at) for word in shlex.split(spec.command)]
        except ValueError as error:
            context.findings.add(at, f"cannot be split into words: {error}")
            words = [(spec.command, at)]
    else:
        words = [(word, at.at(number)) for number, word in enumerate(spec.command)]
    words += [(word, place.at("args", number)) for number, word in enumerate(spec.args)]
    return tuple(context.findings.filled(word, where) for word, where in words)


def _cwd(spec: McpServerSpec, place: Place, folder: Path, context: Context) -> Path | None:
    if spec.cwd is None:
        return folder
    path = context.path(spec.cwd, folder, place.at("cwd"))
    if path is not None and not path.is_dir():
        context.findings.add(place.at("cwd"), f'no such folder: "{spec.cwd}" (looked for {path})')
    return path


def _tool(spec: ToolSpec, place: Place, folder: Path, context: Context) -> ToolSource:
    if spec.python is not None:
        python = PythonTool(
            path=spec.python,
            name=spec.name,
            description=spec.description or None,
            search=folder,
            timeout_seconds=spec.timeoutSeconds,
            max_bytes=spec.maxBytes,
        )
        return _python(python, place.at("python"), context)
    assert spec.url is not None
    schema = context.findings.schema(spec.inputSchema, place.at("inputSchema"))
    return WebhookTool(
        name=spec.name,
        url=_url(spec.url, place.at("url"), context),
        description=spec.description,
        method=spec.method,
        parameters=schema if schema is not None else _NO_ARGUMENTS,
        headers=context.named_values(spec.headers, place.at("headers")),
        timeout_seconds=30 if spec.timeoutSeconds is None else spec.timeoutSeconds,
        max_bytes=spec.maxBytes,
        allow_hosts=tuple(spec.allowHosts),
    )


def _python(tool: PythonTool, place: Place, context: Context) -> PythonTool:
    module, colon, name = tool.path.partition(":")
    if not (module and colon and name):
        context.findings.add(place, f'"{tool.path}" is not of the form package.module:function')
    if context.safe:
        context.findings.add(place, "Python functions are not run in safe mode")
    return tool


def _url(url: str, place: Place, context: Context) -> str:
    """A URL, which may be a template of the run's inputs."""
    filled = context.findings.filled(url, place)
    if "{{" in filled:
        template = context.findings.template(filled, place)
        for path in sorted(template.references):
            if path[:1] != ("input",) and path[:2] != ("pipeline", "input"):
                shown = ".".join(("", *path))
                context.findings.add(place, f"a URL sees .input only, not {shown}")
    elif not filled.lower().startswith(("http://", "https://")):
        context.findings.add(place, f'expected a URL (http:// or https://), found "{url}"')
    return filled
