"""`muster init`: a small project that runs at once, offline."""

from __future__ import annotations

from pathlib import Path

import click

from muster.errors import UsageError

__all__ = ("init",)

_TEMPLATE = Path(__file__).parent / "project_template"

_IGNORED = (".muster/results/", ".muster/runs.db*", ".muster/events.*", ".env")


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def init(folder: Path, force: bool) -> None:
    """Make a project that runs at once, offline: targets, a small agent, and a suite."""
    files = sorted(path for path in _TEMPLATE.rglob("*") if path.is_file())
    files = [path for path in files if path.suffix in (".py", ".yaml")]
    places = {path: folder / path.relative_to(_TEMPLATE) for path in files}
    taken = [str(place) for place in places.values() if place.exists()]
    if taken and not force:
        raise UsageError(f"already there: {', '.join(taken)}; nothing was written (--force does)")
    for path, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        click.echo(f"wrote {place}")
    _ignore_results(folder)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo(f"\nNow: {enter}muster eval evals")


def _ignore_results(folder: Path) -> None:
    """Keep results, the journal and keys out of version control."""
    path = folder / ".gitignore"
    lines = path.read_text().splitlines() if path.exists() else []
    missing = [line for line in _IGNORED if line not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing]) + "\n")
        click.echo(f"{'extended' if lines else 'wrote'} {path}")
