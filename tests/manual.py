"""The manual as tests see it: its pages, their blocks, and the project that these make."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.targets import load_catalog
from muster.providers import providers
from muster.providers.presets import PRESETS
from muster.targets import TargetPool

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").rglob("README.md"))

SHELL = ("sh", "console")
"""Kinds of blocks that hold commands."""

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<kind>[\w-]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
FILE = re.compile(r"# file: (\S+)\n")
EXIT = re.compile(r"\s+# exit (\d+)$")
HOME = "/home/ada"
"""The manual's projects lie in `project` there."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    note: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if it says so."""
        if self.note.startswith("file: "):
            return self.note.removeprefix("file: ")
        named = FILE.match(self.text)
        return named[1] if named else None

    @property
    def place(self) -> str:
        """For messages: page and line."""
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            name_of(page),
            text.count("\n", 0, found.start()) + 1,
            found["kind"],
            found["note"] or "",
            found["text"],
        )
        for found in FENCE.finditer(text)
    ]


def section_of(page: str, title: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"{page} has no section {title}"
    return match[1]


def first_column(section: str) -> list[str]:
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


class Project:
    """The folder that a page's examples make."""

    def __init__(self, folder: Path) -> None:
        self.around = folder
        self.folder = folder / "project"
        self.folder.mkdir()
        home = folder / "home"
        home.mkdir()
        keys = {key for preset in PRESETS.values() for key in preset.key_variables}
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self.env = {
            **dict.fromkeys([*keys, "ANTHROPIC_API_KEY", "AGENT_KEY"], "key-of-the-test"),
            "PATH": path,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": "",
        }

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def check_file(self, block: Block) -> None:
        name = str(block.file)
        if block.kind == "python":
            ast.parse(block.text, filename=block.place)
        elif name.endswith((".json", ".jsonl")):
            assert all(json.loads(line) for line in block.text.splitlines())
        elif _is_targets(block) and "mistakes" not in name:
            self._open_targets(self.folder / name)

    def _open_targets(self, path: Path) -> None:
        env = load_environment(path.parent, self.env)
        catalog = load_catalog(path.parent, explicit=path, env=env)
        registry = providers.for_project(find_project(path.parent).provider_folders)
        assert registry.failures == []
        pool = TargetPool(catalog, registry)
        assert catalog.names
        for name in catalog.names:
            pool.open(name)
        # An example shows the way that needs no warning.
        if ".agentv" not in path.parts:
            assert catalog.warnings == ()

    def run_block(self, block: Block) -> None:
        for written, expected in _commands(block):
            told = EXIT.search(written)
            code = int(told[1]) if told is not None else 0
            command = EXIT.sub("", written)
            if block.note == "dry run":
                command = re.sub(r"\bmuster eval\b", "muster eval --dry-run", command)
            elif block.note == "checkout":
                command = self._of_make(command)
            ended = self._run(["/bin/sh", "-c", command])
            said = f"{block.place}: $ {command}\n{ended.stdout}"
            assert ended.returncode == code, said
            if expected:
                actual = [line for line in ended.stdout.splitlines() if not PROGRESS.match(line)]
                wanted = _pattern(expected)
                assert re.fullmatch(wanted, self._plain("\n".join(actual))), f"{said}\n{wanted}"

    def _of_make(self, command: str) -> str:
        """What `make TARGET` does, set up aside, with the run kept here."""
        target = command.removeprefix("make ")
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        recipe = re.search(rf"^{target}:.*\n\t\$\(BIN\)/(muster .*)$", rules, re.MULTILINE)
        assert recipe, f"no recipe of {target} that runs muster"
        return f"cd {ROOT} && {recipe[1]} --output {self.around / 'run'}"

    def run_python(self, block: Block) -> None:
        script = self.folder / f"example_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        ended = self._run([sys.executable, str(script)])
        assert ended.returncode == 0, f"{block.place}\n{ended.stdout}"

    def run_remaining_suites(self, commands: str) -> None:
        """The suites that no command of the page names pass as they stand."""
        for path in sorted(self.folder.rglob("*.eval.yaml")):
            if path.name not in commands and ".muster/results" not in str(path):
                ended = self._run([sys.executable, "-m", "muster", "eval", str(path)])
                assert ended.returncode == 0, f"{path.name}\n{ended.stdout}"

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def _plain(self, text: str) -> str:
        return _plain(text.replace(str(self.around.resolve()), HOME))


PROGRESS = re.compile(r"^\d+/\d+  \d+ passed ")
"""On a terminal this line is gone when the run ends; elsewhere it stays."""


def _is_targets(block: Block) -> bool:
    return bool(re.search(r"^(- )?(targets|providers):", block.text, re.MULTILINE)) and not (
        re.search(r"^(tests|scenarios):", block.text, re.MULTILINE)
    )


def _commands(block: Block) -> list[tuple[str, str]]:
    """Each command with its output, if the block tells it."""
    if block.kind == "sh":
        lines = block.text.replace("\\\n", " ").splitlines()
        lines = [re.sub(r"\s+# (?!exit \d).*", "", line) for line in lines]
        return [(line, "") for line in lines if line.strip() and not line.startswith("#")]
    assert block.text.startswith("$ "), f"{block.place}: a console block begins with `$ `"
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def _plain(text: str) -> str:
    """Without what differs from run to run: times, rates, widths of columns."""
    text = re.sub(r"\d{8}-\d{6}-([a-z]+)(-\d+)?", r"TIME-\1", text)
    text = re.sub(r"\d+(\.\d+)? (ms|s)\b", "TIME", text)
    text = re.sub(r"─+", "─", text)
    text = re.sub(r"[ \t]+", " ", text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _pattern(expected: str) -> str:
    return "(?s)" + ".*?".join(re.escape(part) for part in _plain(expected).split("…"))
