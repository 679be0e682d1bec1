"""Install the peers into a folder that is thrown away afterwards, and run them on the workloads.

What is installed is the newest that the registries have; the versions are told with the figures.
A peer that cannot be installed is left out, and said to be.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from measure import Contender

__all__ = ("client_python", "install", "install_clients", "startup_peers", "whole_run_peers")

HERE = Path(__file__).parent
PYTHON_PEERS = {"braintrust": "with_braintrust.py", "pydantic-evals": "with_pydantic_evals.py"}
# Each in an environment of its own: some of them hold back the versions of others.
CLIENT_PEERS = {
    "openai": ("openai[aiohttp]>=3,<4",),
    "anthropic": ("anthropic>=2,<3",),
    "litellm": ("litellm[mcp]>=1.83,<2",),  # without `mcp` it makes no tool calls
    "any-llm-sdk": ("any-llm-sdk[openai,anthropic]>=1,<2",),
    "pydantic-ai-slim": ("pydantic-ai-slim[openai,anthropic]>=2,<3",),
    "openai-agents": ("openai-agents>=0.20,<1",),
    "langchain-core": (
        "langchain-core>=1,<2",
        "langchain-openai>=1,<2",
        "langchain-anthropic>=1,<2",
    ),
}
INSTALL_SECONDS = 400
PEER_ROUNDS = 3

_QUIET = (
    ("PROMPTFOO_DISABLE_TELEMETRY", "1"),
    ("PROMPTFOO_DISABLE_UPDATE", "1"),
    ("PROMPTFOO_DISABLE_REMOTE_GENERATION", "1"),
    ("BRAINTRUST_DISABLE_AUTO_LOGIN", "1"),
)


def install(folder: Path) -> list[str]:
    """Put the peers into `folder`; their names with versions, or why one is missing."""
    python = folder / "venv/bin/python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    told = []
    for name in PYTHON_PEERS:
        argv = [str(python), "-m", "pip", "install", "--quiet", name]
        told.append(_installed(name, argv, folder, lambda n=name: _python_version(python, n)))
    if shutil.which("npm") is None:
        told.append("promptfoo: not measured, npm is not there")
    else:
        (folder / "package.json").write_text("{}")
        argv = ["npm", "install", "--no-audit", "--no-fund", "--silent", "promptfoo"]
        told.append(_installed("promptfoo", argv, folder, lambda: _npm_version(folder)))
    return told


def install_clients(folder: Path) -> list[str]:
    """Put the clients of models' APIs into `folder`, an environment each; told as by `install`."""
    told = []
    for name, wanted in CLIENT_PEERS.items():
        python = client_python(folder, name)
        if not python.exists():
            venv.create(python.parents[1], with_pip=True)
        argv = [str(python), "-m", "pip", "install", "--quiet", *wanted]
        told.append(_installed(name, argv, folder, lambda p=python, n=name: _python_version(p, n)))
    return told


def client_python(folder: Path, name: str) -> Path:
    """The interpreter of a client's environment."""
    return folder / "clients" / name / "bin/python"


def _installed(name: str, argv: list[str], folder: Path, version: object) -> str:
    print(f"installing {name} …", file=sys.stderr)
    try:
        subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        return f"{name}: not measured, its installation failed ({type(error).__name__})"
    assert callable(version)
    return f"{name} {version()}"


def _python_version(python: Path, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _npm_version(folder: Path) -> str:
    package = folder / "node_modules/promptfoo/package.json"
    version: str = json.loads(package.read_text())["version"]
    return version


def whole_run_peers(peers: Path | None, task: str, workers: int, cwd: Path) -> list[Contender]:
    """The installed peers on a workload whose cases are in `cwd`."""
    if peers is None:
        return []
    contenders = []
    python = str(peers / "venv/bin/python")
    for name, script in PYTHON_PEERS.items():
        if _has(peers, name):
            argv = [python, str(HERE / script), task, "cases.jsonl", str(workers)]
            contenders.append(Contender(name, argv, rounds=PEER_ROUNDS, extra_env=_QUIET))
    if _promptfoo(peers).exists():
        contenders.append(_promptfoo_run(peers, task, workers, cwd))
    return contenders


def _has(peers: Path, name: str) -> bool:
    module = name.replace("-", "_")
    return any((peers / "venv").glob(f"lib/python*/site-packages/{module}"))


def _promptfoo(peers: Path) -> Path:
    return peers / "node_modules/.bin/promptfoo"


def _promptfoo_run(peers: Path, task: str, workers: int, cwd: Path) -> Contender:
    """`promptfoo eval`, its results written to its own database and to a file, as it does."""
    shutil.copy(HERE / "promptfoo_provider.js", cwd)
    with (cwd / "cases.jsonl").open() as lines:
        tests = [{"vars": {"question": json.loads(line)["input"]}} for line in lines]
    config = {
        "prompts": ["{{question}}"],
        "providers": [{"id": "file://promptfoo_provider.js", "config": {"task": task}}],
        "defaultTest": {"assert": [{"type": "contains", "value": "question"}]},
        "tests": tests,
    }
    (cwd / "promptfooconfig.json").write_text(json.dumps(config))
    argv = [str(_promptfoo(peers)), "eval", "--config", "promptfooconfig.json", "--no-cache"]
    argv += ["--no-progress-bar", "--no-table", "--max-concurrency", str(workers)]
    argv += ["--output", "{out}/results.json"]
    home = (("PROMPTFOO_CONFIG_DIR", str(cwd / "promptfoo-home")),)

    def check(out: Path) -> None:
        stats = json.loads((out / "results.json").read_text())["results"]["stats"]
        if stats["successes"] != len(tests):
            raise SystemExit(f"promptfoo: {stats}")

    rounds = 1 if len(tests) > 1000 else PEER_ROUNDS
    return Contender("promptfoo", argv, check, rounds, _QUIET + home)


def startup_peers(peers: Path | None) -> list[Contender]:
    """Their commands, those that have one; and their imports."""
    if peers is None:
        return []
    python = str(peers / "venv/bin/python")
    contenders = [
        Contender(f"import {module}", [python, "-c", f"import {module}"], rounds=PEER_ROUNDS)
        for name in PYTHON_PEERS
        if _has(peers, name)
        for module in (name.replace("-", "_"),)
    ]
    if _promptfoo(peers).exists():
        argv = [str(_promptfoo(peers)), "--version"]
        contenders.append(
            Contender("promptfoo --version", argv, rounds=PEER_ROUNDS, extra_env=_QUIET)
        )
    return contenders
