"""`muster targets`: list them, show one, and check that they answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from muster.cli.options import json_option, safe_option, targets_option, timeout_option
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import Masker, environment_secrets, masked_config, secret_values
from muster.config.targets import TargetCatalog, load_catalog
from muster.errors import MusterError, UsageError
from muster.plain import one_line
from muster.provider import ProviderError, ProviderRequest
from muster.providers import providers
from muster.reports.terminal import format_money, format_table
from muster.targets import TargetPool

__all__ = ("targets",)


@dataclass(slots=True)
class _Targets:
    catalog: TargetCatalog
    pool: TargetPool
    warnings: list[str]
    env: Mapping[str, str]

    def shown(self, text: str) -> str:
        """What a target says, fit for a terminal: in one line, without secrets."""
        secrets = environment_secrets(self.env)
        for target in self.pool.resolved:
            secrets |= secret_values(target.config)
        return one_line(Masker(secrets).mask(text))

    def warn(self) -> None:
        """Tell what is amiss; the catalog learns of some of it only when a target is resolved."""
        for line in dict.fromkeys([*self.warnings, *self.catalog.warnings]):
            click.echo(f"warning: {line}", err=True)


def _open(targets_file: Path | None, *, safe: bool) -> _Targets:
    here = Path.cwd()
    env = load_environment(here)
    catalog = load_catalog(here, explicit=targets_file, env=env, safe=safe)
    registry = providers.for_project(find_project(here).provider_folders, safe=safe)
    return _Targets(catalog, TargetPool(catalog, registry), registry.failures, env)


@click.group()
def targets() -> None:
    """List, show and check targets."""


@targets.command("list")
@targets_option
@json_option()
def list_targets(targets_file: Path | None, as_json: bool) -> None:
    """List the targets of the project, with their providers."""
    found = _open(targets_file, safe=True)
    rows = [found.catalog.outline(name) for name in found.catalog.names]
    found.warn()
    if as_json:
        click.echo(_json({"file": str(found.catalog.path or ""), "targets": rows}))
        return
    if not rows:
        click.echo("no targets: write a targets.yaml, or begin with `muster init`", err=True)
        return
    click.echo(
        format_table(
            ("target", "provider", "judge", "note"),
            [
                [row[column] or "–" for column in ("name", "provider", "judge_target", "note")]
                for row in rows
            ],
        )
    )
    click.echo(f"\n{found.catalog.path}")


@targets.command("show")
@click.argument("name")
@targets_option
@safe_option
def show(name: str, targets_file: Path | None, safe: bool) -> None:
    """Show how a target is understood: variables filled in, secrets masked."""
    found = _open(targets_file, safe=safe)
    target = found.catalog.resolve(name)
    found.warn()
    data: dict[str, Any] = {
        "name": target.name,
        "provider": target.provider,
        "judge_target": target.judge_target,
        "workers": target.workers,
        "timeout_seconds": target.timeout_seconds,
        "max_retries": target.retry.max_retries,
        "fallback_targets": list(target.fallback_targets),
        "base_dir": str(target.base_dir),
        "config": masked_config(target),
    }
    click.echo(_json({key: value for key, value in data.items() if value not in (None, [])}))


@targets.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@targets_option
@safe_option
@click.option(
    "--prompt", default="Reply with the word: ready", show_default=True, help="What is asked."
)
@timeout_option("each call", default=60.0)
def check(
    names: tuple[str, ...], targets_file: Path | None, safe: bool, prompt: str, timeout: float
) -> int:
    """Make one real call to each target (all, without a NAME) and say how it went.

    This may cost money. Exit code 1 when a target does not answer.
    """
    found = _open(targets_file, safe=safe)
    chosen = list(names) or list(found.catalog.names)
    if not chosen:
        raise UsageError("no target to check: write a targets.yaml, or give a provider's name")
    return asyncio.run(_check_all(found, chosen, prompt, timeout))


async def _check_all(found: _Targets, names: list[str], prompt: str, timeout: float) -> int:
    try:
        good = [await _check(found, name, prompt, timeout) for name in names]
        found.warn()
    finally:
        await found.pool.aclose()
    return 0 if all(good) else 1


async def _check(found: _Targets, name: str, prompt: str, timeout: float) -> bool:
    try:
        target = found.pool.open(name)
    except MusterError as error:
        click.echo(f"FAIL  {name}: {error}")
        return False
    start = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            response = await target.provider.invoke(ProviderRequest(question=prompt))
    except ProviderError as error:
        click.echo(f"FAIL  {name}: {error.kind}: {found.shown(str(error))}")
        return False
    except TimeoutError:
        click.echo(f"FAIL  {name}: no answer within {timeout:g} s")
        return False
    took = (time.perf_counter() - start) * 1000
    usage = response.token_usage
    said = found.shown(response.text)
    parts = [f"ok    {name}: {took:.0f} ms"]
    if response.model:
        parts.append(response.model)
    if usage is not None:
        parts.append(f"{usage.input} + {usage.output} tokens")
    if response.cost_usd is not None:
        parts.append(format_money(response.cost_usd))
    if response.target_used not in (None, name):
        parts.append(f"answered by {response.target_used}")
    click.echo(", ".join(parts) + f"\n      {said[:160]}")
    return True


def _json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False, default=str)
