"""`muster serve-provider`: targets for other programs to use."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from muster.cli.options import ABOVE_ZERO, guard_options, safe_option, targets_option
from muster.cli.signals import on_signals
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.targets import load_catalog
from muster.errors import MusterError, UsageError
from muster.providers import providers
from muster.targets import TargetPool

__all__ = ("serve_provider",)

TOKEN_VARIABLE = "MUSTER_SERVE_TOKEN"  # noqa: S105 - its name, not its value
MIN_TOKEN = 8
MEGABYTE = 2**20


@click.command("serve-provider")
@click.argument("names", nargs=-1, required=True, metavar="TARGET...")
@click.option("--stdio", is_flag=True, help="The stdio protocol, for one target. The default.")
@click.option(
    "--http", metavar="[HOST:]PORT", help="OpenAI's chat completions; each target is a model."
)
@click.option("--mcp", is_flag=True, help="An MCP server over standard input and output.")
@click.option(
    "--mcp-http", metavar="[HOST:]PORT", help="An MCP server over streamable HTTP, at /mcp."
)
@targets_option
@safe_option
@click.option(
    "--token",
    metavar="TOKEN",
    help=f"What HTTP clients send as their key. Better: ${TOKEN_VARIABLE}. Default: a new one.",
)
@click.option("--no-token", is_flag=True, help="Answer every program on this machine.")
@guard_options
@click.option(
    "--max-body",
    type=ABOVE_ZERO,
    default=32.0,
    show_default=True,
    metavar="MB",
    help="The largest HTTP body.",
)
@click.option(
    "--tool-timeout",
    type=ABOVE_ZERO,
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a target waits for a tool that an HTTP client calls.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long calls under way may take when the server is stopped.",
)
def serve_provider(**given: Any) -> int:
    """Let other programs use targets: as a stdio provider, an OpenAI-compatible server, or MCP.

    \b
    muster serve-provider fast                        # the stdio protocol
    muster serve-provider fast careful --http 8093    # http://127.0.0.1:8093/v1
    muster serve-provider fast careful --mcp          # tools ask_fast, ask_careful
    muster serve-provider fast --mcp-http 8094        # http://127.0.0.1:8094/mcp

    HTTP clients need the token that is told on standard error, or given in MUSTER_SERVE_TOKEN.
    The first Ctrl-C (or SIGTERM) lets the calls under way end, for --grace seconds; the second one
    cuts them off.

    Exit codes: 0 stopped, and nothing was cut off; 2 bad usage or files; 130 (143 after SIGTERM)
    calls were cut off.
    """
    face = _face(given)
    names = tuple(dict.fromkeys(given["names"]))
    if face == "stdio" and len(names) > 1:
        raise UsageError("the stdio protocol serves one target; --http and --mcp serve several")
    # Those that the targets start need not know it.
    token = given["token"] or os.environ.pop(TOKEN_VARIABLE, None)
    opening = _Opening(names, given["targets_file"], given["safe"])
    if face in ("stdio", "mcp"):
        return asyncio.run(_serve_pipes(face, opening, given["grace"]))
    host, port = _address(given[face], face)
    from muster.serving.http import HttpSettings

    settings = HttpSettings(
        host=host,
        port=port,
        token=_token(token, opening, no_token=given["no_token"], host=host),
        allow_hosts=given["allow_hosts"],
        max_connections=given["max_connections"],
        max_requests=given["max_requests"],
        max_body=int(given["max_body"] * MEGABYTE),
    )
    return asyncio.run(_serve_http(face, opening, settings, given["grace"], given["tool_timeout"]))


def _face(given: dict[str, Any]) -> str:
    chosen = [name for name in ("stdio", "http", "mcp", "mcp_http") if given[name]]
    if len(chosen) > 1:
        options = " and ".join("--" + name.replace("_", "-") for name in chosen)
        raise UsageError(f"{options} do not go together: choose one")
    return chosen[0] if chosen else "stdio"


def _address(text: str, face: str) -> tuple[str, int]:
    """`8093`, `localhost:8093`, `[::1]:8093`."""
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (colon and not host):
        raise UsageError(
            f"--{face.replace('_', '-')}: expected a port or HOST:PORT, found {text!r}"
        )
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@dataclass(frozen=True)
class _Opening:
    """How to come to the targets; within the loop that will ask them."""

    names: tuple[str, ...]
    targets_file: Path | None
    safe: bool

    def env(self) -> dict[str, str]:
        return load_environment(Path.cwd())

    def open(self, secrets: Iterable[str] = ()) -> tuple[TargetPool, Any]:
        """The pool, to be closed, and the targets."""
        from muster.serving.served import ServedTargets

        here, env = Path.cwd(), self.env()
        known = env.pop(TOKEN_VARIABLE, None)
        catalog = load_catalog(here, explicit=self.targets_file, env=env, safe=self.safe)
        registry = providers.for_project(find_project(here).provider_folders, safe=self.safe)
        pool = TargetPool(catalog, registry)
        secrets = [*secrets, *([known] if known else [])]
        served = ServedTargets(pool, self.names, env=env, secrets=secrets)
        for line in dict.fromkeys([*registry.failures, *catalog.warnings]):
            _tell(f"warning: {line}")
        return pool, served


def _token(given: str | None, opening: _Opening, *, no_token: bool, host: str) -> str | None:
    """The token that clients must send; `None` for everybody."""
    from muster.serving.access import is_loopback

    if no_token:
        if not is_loopback(host):
            raise UsageError(f"--no-token is for this machine alone, and {host} is not it")
        return None
    given = given or opening.env().get(TOKEN_VARIABLE)
    if given is None:
        import secrets

        made = secrets.token_urlsafe(24)
        _tell(f"token: {made}")
        return made
    if len(given) < MIN_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        raise UsageError(
            f"the token must have {MIN_TOKEN} or more printable ASCII characters, and no spaces"
        )
    return given


def _tell(text: str) -> None:
    click.echo(text, err=True)


# --- over HTTP ----------------------------------------------------------------------------------


async def _serve_http(
    face: str, opening: _Opening, settings: Any, grace: float, tool_seconds: float
) -> int:
    from muster.serving.http import HttpServer

    stop, hurry = asyncio.Event(), asyncio.Event()
    received = on_signals(stop.set, hurry.set)
    pool, targets = opening.open([settings.token] if settings.token else [])
    try:
        async with _http_face(face, targets, tool_seconds) as side:
            server = HttpServer(side.answer, settings, tell=_tell)
            port = await server.start()
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            _tell(f"serving {', '.join(targets.names)} at http://{host}:{port}{side.path}")
            await stop.wait()
            waiting = await side.stop()
            cut = await server.stop(grace, hurry) + waiting
    finally:
        await pool.aclose()
    if cut:
        _tell(f"calls that were cut off: {cut}")
    return 128 + received[0] if cut else 0


def _http_face(face: str, targets: Any, tool_seconds: float) -> Any:
    """The answering side: its handler, where it is, and how it ends."""
    if face == "http":
        from muster.serving.openai_api import openai_face

        return openai_face(targets, tell=_tell, tool_seconds=tool_seconds)
    _need_mcp()
    from muster.serving.mcp_server import mcp_http_face

    return mcp_http_face(targets, tell=_tell)


# --- over standard input and output -------------------------------------------------------------


async def _serve_pipes(face: str, opening: _Opening, grace: float) -> int:
    if face == "mcp":
        _need_mcp()
        from muster.serving.mcp_server import serve_stdio
    else:
        from muster.serving.stdio import serve_stdio
    stop, hurry = asyncio.Event(), asyncio.Event()
    received = on_signals(stop.set, hurry.set)
    pool, targets = opening.open()
    try:
        cut = await serve_stdio(targets, tell=_tell, stop=stop, hurry=hurry, grace=grace)
    finally:
        await pool.aclose()
    return 128 + received[0] if cut and received else 0


def _need_mcp() -> None:
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise MusterError(
            "an MCP server needs the `mcp` package: pip install 'muster-ai[mcp]'\n"
            f"  (it is missing in {sys.prefix})"
        )
