"""The public names: each is there, is documented, and stands in the manual."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import muster

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
ALIASES = {"CallTool"}
"""Type aliases, which have no docstring of their own."""


def named_in_the_manual() -> set[str]:
    table = PAGE[PAGE.index("## All public names") :]
    return set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))


def test_the_manual_lists_exactly_the_public_names() -> None:
    assert named_in_the_manual() == set(muster.__all__)


@pytest.mark.parametrize("name", sorted(set(muster.__all__) - {"__version__"}))
def test_public_name(name: str) -> None:
    value = getattr(muster, name)
    assert name in dir(muster)
    if name in ALIASES:
        return
    assert value.__module__.startswith("muster.")
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own
    # The docstring that `dataclass` makes is only the signature.
    assert not own.startswith(f"{name}(")


@pytest.mark.parametrize("name", sorted(set(muster.__all__) - ALIASES - {"__version__"}))
def test_public_methods_are_documented(name: str) -> None:
    value = getattr(muster, name)
    if not inspect.isclass(value):
        return
    for member, made in vars(value).items():
        if not member.startswith("_") and (inspect.isfunction(made) or isinstance(made, property)):
            assert made.__doc__, f"{name}.{member}"


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'muster' has no attribute 'evalute'"):
        muster.evalute  # noqa: B018


def test_importing_muster_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import muster; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(new - set(sys.stdlib_module_names) - {'muster'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.strip() == ""


def test_the_manual_names_every_argument() -> None:
    table = PAGE[PAGE.index("| argument | meaning |") : PAGE.index("Mistakes raise")]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    for function in (muster.evaluate, muster.aevaluate):
        assert sorted(named) == sorted(inspect.signature(function).parameters)
