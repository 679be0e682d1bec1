"""The protocol's own conformance suite, against Muster as the client.

It is npm's `@modelcontextprotocol/conformance`, which needs Node 22 and is not among the packages
of `tests/node`: the tests run where the command `conformance` is on the PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp")

CLIENT = Path(__file__).parent / "conformance_client.py"


@pytest.fixture(scope="module")
def conformance() -> str:
    command, node = shutil.which("conformance"), shutil.which("node")
    if command is None or node is None:
        pytest.skip("the command `conformance` (npm @modelcontextprotocol/conformance) is not here")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 22:
        pytest.skip(f"the conformance suite needs Node 22; this is {version.strip()}")
    return command


@pytest.mark.node
@pytest.mark.parametrize(
    ("scenario", "passed"), [("initialize", 1), ("tools_call", 1), ("sse-retry", 3)]
)
def test_scenario(conformance: str, scenario: str, passed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [conformance, "client", "--command", f"{sys.executable} {CLIENT}", "--scenario", scenario],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (found,) = re.findall(r"Passed: (\d+)/(\d+), (\d+) failed, (\d+) warnings", said)
    assert found == (str(passed), str(passed), "0", "0")
