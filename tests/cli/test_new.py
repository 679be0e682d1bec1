"""`muster new`: what it makes passes its own tests, is well written, and is never written over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from muster_project import Project

QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:xdist", "-k")
OWN, CONTRACT = "not contract", "contract"
"""A scaffold's own tests; and those of the conformance suite, which take ten seconds."""
RUFF = ("check", "--isolated", "--select", "B,E,F,I,N,PT,RET,RUF,SIM,UP,W", "--line-length", "100")


def tool(project: Project, folder: Path, *command: str, python: Path | None = None) -> str:
    """What `python -m COMMAND` prints in `folder`; it must succeed."""
    ended = subprocess.run(
        [str(python or sys.executable), "-m", *command],
        cwd=folder,
        env=project.environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def well_written(project: Project, folder: Path) -> None:
    tool(project, folder, "ruff", *RUFF, ".")
    tool(project, folder, "ruff", "format", "--isolated", "--line-length", "100", "--check", ".")
    assert "sample" not in "".join(
        str(path) + path.read_text().lower()
        for path in folder.rglob("*.*")
        if path.is_file() and not {".git", ".ruff_cache", "__pycache__"} & set(path.parts)
    )


# --- files of a project ---------------------------------------------------------------------------


def test_everything_made_in_one_project_passes_its_tests(project: Project) -> None:
    made = [
        project.run("new", "provider", "my-agent"),
        project.run("new", "provider", "talker", "--shape", "chat"),
        project.run("new", "provider", "aiohttp", "--shape", "http"),
        project.run("new", "grader", "short"),
        project.run("new", "grader", "my-agent"),
        project.run("new", "queue", "my-jobs"),
        project.run("new", "tool", "clock"),
        project.run("new", "suite", "first"),
        project.run("new", "team", "duo"),
    ]
    assert [ended.code for ended in made] == [0] * len(made)
    assert made[0].out == (
        "wrote .muster/providers/my_agent.py\n"
        "wrote tests/test_my_agent_provider.py\n"
        "wrote .muster/targets.yaml\n"
        "\n"
        "What to change is marked EDIT.\n"
        "\n"
        "Now: pytest tests/test_my_agent_provider.py && muster targets check my-agent\n"
    )
    # A file aiohttp.py would hide the library from all others.
    assert made[2].out.startswith("wrote .muster/providers/aiohttp_provider.py\n")
    assert "\n  - name: talker\n    provider: talker\n" in made[1].out
    assert yaml.safe_load((project.root / ".muster/targets.yaml").read_text()) == {
        "targets": [{"name": "my-agent", "provider": "my-agent"}]
    }
    said = tool(project, project.root, "pytest", *QUIET, OWN, "tests")
    assert re.search(r"^29 passed", said, re.MULTILINE), said
    well_written(project, project.root)
    code = [*(project.root / ".muster").rglob("*.py"), project.root / "clock.py"]
    for path in code:
        assert "EDIT" in path.read_text(), path
    typed = [str(path) for path in code if "my_agent" not in path.name or "providers" in path.parts]
    tool(project, project.root, "mypy", "--strict", "--cache-dir", os.devnull, *typed)

    assert project.run("targets", "check", "my-agent", "--prompt", "hi").out.endswith(
        "You said: hi\n"
    )
    assert made[2].out.endswith("test_aiohttp_provider.py && muster check provider aiohttp\n")
    for name in ("my-agent", "talker"):  # aiohttp: by the tests of the package below
        checked = project.run("check", "provider", name)
        assert checked.code == 0, checked.text
        assert re.search(r" [1-9]\d* passed, 0 failed, ", checked.text)
    url = ("--queue", "my-jobs:jobs")
    (task,) = project.run("tasks", "submit", "hi", *url).out.split()
    assert project.run("worker", "my-agent", "--until-empty", *url).code == 0
    assert project.run("tasks", "wait", task, *url).out == "You said: hi\n"
    rows = project.run("providers", "list", "--json").json()
    assert rows["failures"] == []
    own = {row["name"] for row in rows["providers"] if row["source"] == "project"}
    assert own == {"my-agent", "talker", "aiohttp"}
    assert project.eval("evals").code == 0
    assert set(project.statuses().values()) == {"ok"}
    assert project.run("test", "teams").out.endswith("3 passed, 0 failed\n")
    assert project.run("validate", "teams/duo/team.yaml").code == 0
    project.write(
        "own.eval.yaml",
        """
        target: my-agent
        tests: [{id: a, input: one two three, assertions: [{type: short, max_words: 5}]}]
        """,
    )
    assert project.eval("own.eval.yaml", "--output", "own").code == 0
    project.write("more.txt", "more\n")
    project.write(
        "files.eval.yaml",
        """
        target: my-agent
        tests:
          - id: a
            input: [{role: user, content: [{type: text, value: hi}, {type: file, value: more.txt}]}]
            assertions: [{type: contains, value: hi}]
        """,
    )
    refused = project.run("eval", "files.eval.yaml")
    assert refused.code != 0
    assert "does not support files" in refused.text
    project.write("teams/duo/clock.py", (project.root / "clock.py").read_text())
    team = (project.root / "teams/duo/team.yaml").read_text()
    with_tool = team.replace("Only facts.}", 'Only facts., pythonTools: ["clock:clock"]}')
    assert with_tool != team
    project.write("teams/duo/team.yaml", with_tool)
    assert project.run("run", "teams/duo/team.yaml", "--mock").code == 0


def test_the_settings_are_checked_where_they_stand(project: Project) -> None:
    project.run("new", "provider", "my-agent")
    targets = project.root / ".muster/targets.yaml"
    targets.write_text(targets.read_text() + "    greting: Hello\n")
    ended = project.run("validate", ".muster/targets.yaml")
    assert ended.code == 2
    assert ".muster/targets.yaml:4:5" in ended.text
    assert 'did you mean "greeting"?' in ended.text


def test_the_advice_to_a_project_that_has_targets(project: Project) -> None:
    kept = project.write("targets.yaml", "targets:\n  - {name: mine, provider: echo}\n")
    (project.root / "sub").mkdir()
    ended = project.run("new", "provider", "other", cwd=project.root / "sub")
    assert ended.code == 0
    assert f"To {kept}, below `targets:`, add\n\n  - name: other\n    provider: other" in ended.out
    assert not (project.root / "sub/.muster/targets.yaml").exists()
    kept.write_text(kept.read_text() + "  - name: other\n    provider: other\n")
    assert project.run("targets", "check", "other", cwd=project.root / "sub").code == 0


# --- packages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees what this one has, to install into."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    (site,) = (folder / "lib").glob("python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]
    (site / "around.pth").write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


def install(project: Project, folder: Path, python: Path) -> None:
    """Offline: nothing but the package itself is looked for."""
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    tool(project, folder, "pip", "--python", str(python), "install", *options, ".")


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (("provider", "my-model", "--shape", "http"), 8),
        (("provider", "my_plain"), 6),
        (("grader", "short-enough"), 4),
        (("queue", "my-jobs"), 3),
        (("tool", "clock"), 4),
        (("team", "duo"), 3),
        (("suite", "my-sums"), 3),
    ],
)
def test_a_package(project: Project, python: Path, arguments: tuple[str, ...], passed: int) -> None:
    kind, name = arguments[:2]
    ended = project.run("new", *arguments, "--package")
    assert ended.code == 0, ended.text
    folder = project.root / f"muster-{name.replace('_', '-')}"
    assert f"Now: cd {folder.name} && pip install -e '.[test]' && pytest" in ended.out
    well_written(project, folder)
    about = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert about["name"] == folder.name
    assert not {"license", "license-files"} & set(about)
    assert not list(folder.glob("LICENSE*"))
    steps = yaml.safe_load((folder / ".github/workflows/test.yml").read_text())
    assert [step["run"] for step in steps["jobs"]["test"]["steps"] if "run" in step] == [
        "pip install -e '.[test]'",
        "pytest",
    ]

    before = tool(project, folder, "pytest", *QUIET, OWN)
    skipped = ", 1 skipped" if kind != "tool" else ""
    assert f"{passed - bool(skipped)} passed{skipped}" in before
    install(project, folder, python)
    after = tool(project, folder, "pytest", *QUIET, OWN, python=python)
    assert f"{passed} passed" in after

    elsewhere = project.root / "elsewhere"
    elsewhere.mkdir()
    if kind == "provider":
        listed = tool(project, elsewhere, "muster", "providers", python=python)
        module = name.replace("-", "_")
        assert re.search(rf"^{name} +package +muster_{module}:\w+Provider$", listed, re.MULTILINE)
    if "http" in arguments:
        checked = tool(project, folder, "pytest", *QUIET, CONTRACT, python=python)
        found = re.search(r"^(\d+) passed, \d+ skipped", checked, re.MULTILINE)
        assert found, checked
        assert int(found[1]) > 25
    if kind == "team":
        listed = tool(project, elsewhere, "muster", "providers", python=python)
        assert re.search(r"^duo +package +muster_duo:create$", listed, re.MULTILINE)
        (elsewhere / "targets.yaml").write_text(
            "targets: [{name: both, provider: duo, provider_for_all: mock}]\n"
        )
        said = tool(project, elsewhere, "muster", "targets", "check", "both", python=python)
        assert said.startswith("ok    both")
    if arguments == ("provider", "my_plain"):
        said = tool(project, elsewhere, "muster", "targets", "check", name, python=python)
        assert said.startswith(f"ok    {name}")
    if kind == "suite":
        (elsewhere / "targets.yaml").write_text("targets: [{name: mine, provider: echo}]\n")
        own = ("muster", "eval", "my-sums:my-sums", "my-sums", "--target", "mine", "--safe")
        said = tool(project, elsewhere, *own, python=python)
        assert "100.0% (3/3)" in said
        (run,) = (project.root / ".muster" / "results").iterdir()  # and not beside the package
        record = json.loads((run / "run.json").read_text())
        assert record["suites"][0]["eval_path"] == "my-sums:my-sums.eval.yaml"
        tool(project, elsewhere, "muster", "grade", str(run), python=python)
        said = tool(project, elsewhere, "muster", "validate", "my-sums", python=python)
        assert said.startswith("ok  my-sums:my-sums.eval.yaml: 3 cases on echo")
        for wrong, hint in (
            ("my-sums:mysums", "it has my-sums:my-sums.eval.yaml"),
            ("my-sum", "near: my-sums"),
        ):
            command = [python, "-m", "muster", "eval", wrong]
            told = subprocess.run(
                command, cwd=elsewhere, capture_output=True, text=True, timeout=60, check=False
            )
            assert (told.returncode, hint in told.stderr) == (2, True), told.stderr
    if kind == "queue":
        checked = tool(project, folder, "pytest", *QUIET, CONTRACT, python=python)
        assert re.search(r"^24 passed, 3 deselected", checked, re.MULTILINE), checked
        url = ("--queue", "my-jobs:jobs")
        tool(project, elsewhere, "muster", "tasks", "submit", "hi", *url, python=python)
        said = tool(project, elsewhere, "muster", "worker", "echo", "--once", *url, python=python)
        assert said.endswith("1 done, 0 dead\n")
    if kind == "grader":
        suite = "target: echo\ntests: [{id: a, input: hi, assertions: [{type: short-enough}]}]\n"
        (elsewhere / "own.eval.yaml").write_text(suite)
        tool(project, elsewhere, "muster", "eval", "own.eval.yaml", python=python)


# --- names, and what is there ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("provider", "openai"), '"openai" is a built-in provider; another name is needed'),
        (("provider", "google"), '"google" is a built-in provider; another name is needed'),
        (("grader", "contains"), '"contains" is a built-in grader; another name is needed'),
        (("provider", "../evil"), '"../evil" cannot name a provider'),
        (("provider", "My Model"), '"my-model" would do'),
        (("provider", "a:b"), '"a-b" would do'),
        (("grader", "9lives"), '"lives" would do'),
        (("team", "x\ny"), '"x-y" would do'),
        (("suite", ""), '"" cannot name a suite'),
        (("provider", "é" * 5000), "at most 40 characters"),
        (("queue", "sqlite"), '"sqlite" is a built-in queue; another name is needed'),
        (("tool", "class"), "it is a word of Python's"),
        (("tool", "class", "--package"), "it is a word of Python's"),
        (("team", "openai", "--package"), '"openai" is a built-in provider'),
        (("tool", "click"), "its file would hide the module click"),
        (("tool", "json"), "its file would hide the module json"),
    ],
)
def test_a_name_that_cannot_be(project: Project, arguments: tuple[str, ...], said: str) -> None:
    before = sorted(project.root.rglob("*"))
    for more in ((), ("--force",)):
        ended = project.run("new", *arguments, *more)
        assert ended.code == 2
        assert ended.err.startswith("error: ")
        assert said in ended.err
        assert len(ended.err) < 400
    assert sorted(project.root.rglob("*")) == before


def test_what_cannot_be_made(project: Project) -> None:
    ended = project.run("new", "agent", "a")
    assert ended.code == 2
    assert "there are: provider, grader, queue, tool, suite, team" in ended.err


@pytest.mark.parametrize("kind", ["provider", "grader", "queue", "tool", "suite", "team"])
def test_nothing_is_written_over(project: Project, kind: str) -> None:
    assert project.run("new", kind, "mine").code == 0
    files = [path for path in project.root.rglob("*") if path.is_file()]
    for path in files:
        path.write_text("pass  # mine\n")
    ended = project.run("new", kind, "mine")
    assert ended.code == 2
    assert "nothing was written (--force does)" in ended.err
    assert {path.read_text() for path in files} == {"pass  # mine\n"}
    assert project.run("new", kind, "mine", "--force").code == 0
    kept = [path.name for path in files if path.read_text() == "pass  # mine\n"]
    assert kept == (["targets.yaml"] if kind == "provider" else [])


def test_one_file_that_is_there_keeps_all_others_from_being_written(project: Project) -> None:
    project.write("tests/test_mine_provider.py", "")
    ended = project.run("new", "provider", "mine")
    assert ended.err == (
        "error: already there: tests/test_mine_provider.py; nothing was written (--force does)\n"
    )
    assert not (project.root / ".muster/providers").exists()


def test_a_name_that_another_file_registers(project: Project) -> None:
    project.write(
        ".muster/providers/others.py",
        "import muster\nmuster.register('mine', lambda target: str.upper)\n",
    )
    ended = project.run("new", "provider", "mine")
    assert ended.code == 2
    assert 'there is a provider "mine" already: ' in ended.err
    assert ".muster/providers/others.py" in ended.err


def test_a_dangling_link_is_not_followed(project: Project) -> None:
    (project.root / "evals").mkdir()
    (project.root / "evals/first.eval.yaml").symlink_to(project.root.parent / "outside.yaml")
    assert project.run("new", "suite", "first").code == 2
    assert not (project.root.parent / "outside.yaml").exists()


def test_another_folder(project: Project) -> None:
    ended = project.run("new", "team", "duo", "--folder", "shop")
    assert ended.code == 0
    assert ended.out.endswith(
        "Now: cd shop && muster test teams/duo && muster run teams/duo/team.yaml --mock\n"
    )
    assert project.run("test", "teams/duo", cwd=project.root / "shop").code == 0
