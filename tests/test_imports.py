"""What is imported when: nothing before it is needed. No times are measured here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"

COMMAND = """
import sys
from muster.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
"""


def modules_after(code: str, *arguments: str, cwd: Path | None = None) -> set[str]:
    """The top-level names in `sys.modules` at the end of a Python that ran `code`, those that are
    there without it, the standard library's and muster's left out."""
    loaded = _modules(code, arguments, cwd)
    without = {name.partition(".")[0] for name in _modules("", (), cwd)}
    found = {name.partition(".")[0] for name in loaded}
    return found - without - sys.stdlib_module_names - {"muster", "__mp_main__"}


def _modules(code: str, arguments: tuple[str, ...], cwd: Path | None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + SHOW, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return names


def test_import_muster_imports_nothing_of_others() -> None:
    assert modules_after("import muster") == set()


def test_import_muster_imports_no_other_module_of_ours() -> None:
    loaded = _modules("import muster", (), None)
    assert [name for name in loaded if name.startswith("muster")] == ["muster"]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_click_alone(option: str) -> None:
    assert modules_after(COMMAND, option) == {"click"}


def test_help_imports_no_command() -> None:
    loaded = _modules(COMMAND, ("--help",), None)
    assert {name for name in loaded if name.startswith("muster.")} == {
        "muster.cli",
        "muster.cli.main",
        "muster.errors",
    }
    assert "asyncio" not in loaded


def project(folder: Path) -> None:
    (folder / "agent.py").write_text("async def answer(request):\n    return request.question\n")
    (folder / "targets.yaml").write_text(
        "targets:\n  - {name: mine, provider: function, function: 'agent:answer'}\n"
    )
    (folder / "suite.eval.yaml").write_text(
        "tests: cases.jsonl\nassertions:\n  - {type: contains, value: hello}\n"
    )
    (folder / "cases.jsonl").write_text('{"id": "one", "input": "hello there"}\n')


def test_eval_of_a_function_imports_what_it_needs_and_no_more(tmp_path: Path) -> None:
    project(tmp_path)
    loaded = modules_after(COMMAND, "eval", "suite.eval.yaml", "--target", "mine", cwd=tmp_path)
    assert {"agent", "click", "msgspec", "pydantic", "yaml"} <= loaded
    assert (
        loaded
        & {
            "aiohttp",
            "dotenv",
            "genai_prices",
            "jinja2",
            "jmespath",
            "jsonschema",
            "pandas",
            "regex",
            "rich",
        }
        == set()
    )


def test_eval_of_a_function_loads_no_other_provider_or_grader(tmp_path: Path) -> None:
    project(tmp_path)
    loaded = _modules(COMMAND, ("eval", "suite.eval.yaml", "--target", "mine", "-q"), tmp_path)
    rest = {
        "muster.providers.chat",
        "muster.providers.cli",
        "muster.providers.http",
        "muster.providers.mock",
        "muster.providers.openai",
        "muster.providers.transport",
        "muster.evals.graders.json",
        "muster.evals.graders.numeric",
        "muster.evals.graders.regex",
        "muster.evals.suites.dataset_csv",
        "muster.evals.suites.promptfoo",
        "muster.pricing",
    }
    assert rest & set(loaded) == set()
