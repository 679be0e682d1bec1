"""The manual's tables name exactly what there is: fields, kinds of error, options, libraries."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

import muster
from manual import ROOT, Project, blocks_of, first_column, section_of
from muster.cli.main import cli
from muster.evals.results import CaseResult, read_run
from muster.provider import (
    BadProviderOutput,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
)


def test_fields_of_a_result() -> None:
    section = section_of("results.md", "A line of `results.jsonl`")
    always, sometimes = (
        set(first_column(table)) for table in section.split("| field | meaning |")[1:]
    )
    required = set(msgspec.json.schema(CaseResult)["$defs"]["CaseResult"]["required"])
    assert always == required
    assert sometimes == set(CaseResult.__struct_fields__) - required


def test_the_line_that_is_shown(tmp_path: Path) -> None:
    project = Project(tmp_path)
    blocks = blocks_of(ROOT / "docs" / "results.md")
    (suite,) = (block for block in blocks if block.file == "sums.eval.yaml")
    (shown,) = (json.loads(block.text) for block in blocks if block.kind == "json")
    project.write(str(suite.file), suite.text)
    muster.evaluate(project.folder / str(suite.file), output=tmp_path / "run", workers=1)
    with (tmp_path / "run" / "results.jsonl").open() as lines:
        line = json.loads(next(lines))
    for row in (shown, line):
        assert row.pop("duration_ms") > 0
        assert row["scores"][0].pop("duration_ms") > 0
        assert row.pop("started_at").endswith("+00:00")
    assert shown == line


def test_kinds_of_error() -> None:
    family = [
        value
        for value in vars(muster.provider).values()
        if isinstance(value, type) and issubclass(value, ProviderError)
    ]
    own = {"grader_error", "dependency_failed", "internal_error"}
    named = first_column(section_of("results.md", "Kinds of error"))
    assert sorted(named) == sorted({error.kind for error in family} | own)
    rows = section_of("results.md", "Kinds of error")
    for error in (RateLimited, ProviderUnavailable, ProviderTimeout, BadProviderOutput):
        assert re.search(rf"^\| `{error.kind}` .*\| yes", rows, re.MULTILINE)
        assert error.retries_help
    assert len(re.findall(r"\| yes", rows)) == 4


def test_fields_of_a_run(tmp_path: Path) -> None:
    cases = [{"id": "a", "input": "a", "assert": [{"type": "equals", "value": "a"}]}]
    evaluation = muster.evaluate(cases, lambda question: question, output=tmp_path / "run")
    record = read_run(evaluation.folder)
    section = section_of("results.md", "`run.json`")
    named = set(first_column(section))
    assert set(record) == named
    for name in ("suites", "targets"):
        (row,) = re.findall(rf"^\| `{name}` \| each (.*) \|$", section, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(record[name][0]), name
    totals = first_column(section_of("results.md", "Totals"))
    assert sorted(totals) == sorted(record["totals"]["targets"][0])


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = {
        "At run time": project["project"]["dependencies"],
        "Extras": [name for extra, names in extras.items() if extra != "all" for name in names],
        "To build": project["dependency-groups"]["build"],
        "To develop": project["dependency-groups"]["dev"],
    }
    for title, requirements in wanted.items():
        named = set(re.findall(r"`([\w-]+)`", section_of("dependencies.md", title)))
        names = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
        assert [name for name in names if name not in named] == [], title
    listed = first_column(section_of("dependencies.md", "At run time"))
    assert len(listed) == len(project["project"]["dependencies"])


def test_every_dependency_of_the_core_is_used() -> None:
    modules = {"genai-prices": "genai_prices", "python-dotenv": "dotenv", "pyyaml": "yaml"}
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in first_column(section_of("dependencies.md", "At run time")):
        module = modules.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", source, re.MULTILINE), name


def test_which_errors_are_retried() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (yes|no) \|$",
        section_of("providers/errors.md", "Errors and retries"),
        re.MULTILINE,
    )
    assert len(rows) == 11
    for name, retried in rows:
        assert getattr(muster, name).retries_help == (retried == "yes"), name


def commands_under(command: click.Command, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """The command and all its subcommands, each by what is typed for it."""
    found = {" ".join(path): command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found |= commands_under(child, (*path, name))
    return found


@pytest.mark.parametrize("name", commands_under(cli))
def test_every_option_of_a_command(name: str) -> None:
    section = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    if name:
        start = section.index(f"\n## `muster {name.split(maxsplit=1)[0]}`\n")
        section = section[start:].split("\n## ")[1]
        assert f"muster {name}" in section
    for option in commands_under(cli)[name].params:
        if isinstance(option, click.Option):
            for spelling in option.opts:
                if spelling.startswith("--"):
                    assert re.search(rf"[`\[ ]{spelling}\b", section), spelling


# --- the design -----------------------------------------------------------------------------------


def test_floors_of_the_design_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    checked = [{name.strip().removeprefix("muster.") for name in row.split("|")} for row in layers]
    rows = re.findall(r"^\| (`.*`) \|", section_of("design.md", "The floors"), re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == checked
    rooms = [path for path in (ROOT / "src" / "muster").iterdir() if path.suffix in ("", ".py")]
    modules = {path.stem for path in rooms if not path.stem.startswith("_")}
    assert set().union(*checked) == modules


def test_rooms_of_the_design_are_there() -> None:
    section = section_of("design.md", "The rooms")
    source = ROOT / "src" / "muster"
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 5
    for row in rows:
        room, files = row.strip("| ").split(" | ")
        folder = source / room.strip("`")
        assert folder.is_dir(), room
        for name in re.findall(r"`([\w*]+)`", files):
            assert list(folder.glob(f"{name}.py")) or name in ("ResolvedTarget", "Case"), name
