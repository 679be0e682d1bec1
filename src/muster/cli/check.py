"""`muster check`: is a provider right? Offline, and for nothing."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from muster.cli.options import json_option, targets_option
from muster.errors import UsageError

__all__ = ("check",)


@click.group()
def check() -> None:
    """Check what you have written against the rules it must keep."""


@check.command("provider")
@click.argument("name", required=False, metavar="NAME|TARGET")
@targets_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting, as YAML; {url} and {key} stand for the environment's. Repeatable.",
)
@click.option(
    "--dialect",
    metavar="MODULE:NAME",
    help="What its service speaks, when that is neither OpenAI's, Anthropic's nor plain JSON.",
)
@click.option("--rule", "rules", multiple=True, metavar="ID", help="Only this rule. Repeatable.")
@click.option("--list", "list_rules", is_flag=True, help="List the rules, and check nothing.")
@json_option()
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def provider(
    *,
    name: str | None,
    targets_file: Path | None,
    settings: tuple[str, ...],
    dialect: str | None,
    rules: tuple[str, ...],
    list_rules: bool,
    as_json: bool,
    markdown: bool,
) -> int:
    """Check a provider against the rules that every provider must keep.

    It is put into an environment on this machine that records what is asked, and fails in every way
    a service may fail. NAME is a target of targets.yaml, or a provider by itself. Nothing is paid:
    its base_url and its keys are replaced by the environment's, and connections to other machines
    are refused. Exit code 1 when a rule is broken.
    """
    from muster.testing.pointing import target_named
    from muster.testing.running import check_provider, rules_named

    if as_json and markdown:
        raise UsageError("--json and --markdown are two forms of one report: choose one")
    chosen = rules_named(rules)
    if list_rules:
        _list(chosen, as_json, markdown)
        return 0
    if name is None:
        raise UsageError("say which target or provider is to be checked (or --list)")
    pointed = target_named(
        name,
        Path.cwd(),
        targets_file=targets_file,
        settings=_settings(settings),
        dialect=_dialect(dialect) if dialect is not None else None,
    )
    for note in pointed.notes:
        click.echo(f"note: {note}", err=True)
    # As Ctrl-C does, it ends the calls under way, processes included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _Progress(len(chosen)) as progress:
        run = check_provider(pointed.subject, chosen, on_result=progress.on_result)
    from muster.testing.report import as_json as json_of
    from muster.testing.report import as_markdown, as_text

    if as_json:
        click.echo(_json(json_of(run)))
    else:
        click.echo(as_markdown(run) if markdown else as_text(run), nl=not markdown)
    return 1 if run.failed else 0


def _dialect(spec: str) -> Any:
    """The dialect at `module:name`, a class or an object, found from this folder."""
    from muster.importing import load_object
    from muster.testing.dialects import Dialect

    found = load_object(spec, search=Path.cwd())
    made = found() if isinstance(found, type) else found
    methods = (name for name, value in vars(Dialect).items() if callable(value))
    parts = [*Dialect.__annotations__, *(name for name in methods if not name.startswith("_"))]
    missing = [name for name in parts if not hasattr(made, name)]
    if missing:
        raise UsageError(
            f"--dialect {spec}: it has no {', '.join(missing)}; a subclass of "
            "muster.testing.Plain has all that a dialect needs"
        )
    return made


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` as settings; dots in a key lead into mappings."""
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        path, equals, written = text.partition("=")
        if not equals or not path:
            raise UsageError(f'--set {text}: expected KEY=VALUE, e.g. "model=gpt-4o-mini"')
        # In braces would be a mapping to YAML.
        try:
            value = written if written.startswith("{url}") else yaml.safe_load(written)
        except yaml.YAMLError:
            raise UsageError(f"--set {path}: the value is not YAML: {written}") from None
        here = found
        *folders, last = path.split(".")
        for folder in folders:
            here = here.setdefault(folder, {})
            if not isinstance(here, dict):
                raise UsageError(f"--set {path}: {folder} is a value already")
        here[last] = value
    return found


def _list(rules: Sequence[Any], as_json: bool, markdown: bool) -> None:
    from muster.testing.report import rules_as_markdown

    if as_json:
        names = ("id", "title", "why", "mend")
        click.echo(_json([{name: getattr(rule, name) for name in names} for rule in rules]))
    elif markdown:
        click.echo(rules_as_markdown(rules), nl=False)
    else:
        for rule in rules:
            click.echo(f"{rule.id:34} {rule.title}")


class _Progress:
    """One line on a terminal that tells how far it is; elsewhere nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.failed = 0
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._lock = threading.Lock()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self.done:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def on_result(self, result: Any) -> None:
        """One more rule; called on other threads."""
        with self._lock:
            self.done += 1
            self.failed += result.outcome.status == "failed"
            if self._live:
                failed = f", {self.failed} failed" if self.failed else ""
                sys.stderr.write(f"\r\x1b[K{self.done}/{self.total}{failed}  {result.rule.id}")
                sys.stderr.flush()


def _json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False)
