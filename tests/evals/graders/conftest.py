"""Graders are tested as users reach them: from an entry of `assertions` to a score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.config.document import Document, parse_yaml
from muster.evals.case import Case
from muster.evals.graders import graders
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.graders.load import bind_graders
from muster.evals.scoring import Graded, ScoreRow, grade_all
from muster.provider import Message, ProviderResponse


@pytest.fixture
def bind(tmp_path: Path) -> Callable[..., tuple[BoundGrader, ...]]:
    """`bind(yaml_or_entries)`: the graders of the list; YAML gets the name `suite.yaml`."""

    def bind(entries: Any, **options: Any) -> tuple[BoundGrader, ...]:
        document = Document({"assertions": entries}, None)
        if isinstance(entries, str):
            document = parse_yaml(entries, tmp_path / "suite.yaml")
        settings = {
            "document": document,
            "location": ("assertions",),
            "base_dir": tmp_path,
            "project_root": tmp_path,
            "registry": graders,
        }
        return bind_graders(document.data["assertions"], **(settings | options))

    return bind


@pytest.fixture
def graded(bind: Callable[..., tuple[BoundGrader, ...]]) -> Callable[..., Graded]:
    """`graded(entry, output, expected=…, **response)`: what the one grader says of the answer."""

    def graded(
        entry: dict[str, Any],
        output: str,
        expected: str | None = None,
        *,
        took_ms: float | None = None,
        **response: Any,
    ) -> Graded:
        context = GradeContext(
            output=output,
            case=Case(id="c", suite="s", input=(Message("user", "?"),)),
            response=ProviderResponse(output, **response),
            expected_output=() if expected is None else (Message("assistant", expected),),
            duration_ms=took_ms,
        )
        found = grade_all(bind([entry]), context)
        assert isinstance(found, Graded)
        return found

    return graded


@pytest.fixture
def judged(graded: Callable[..., Graded]) -> Callable[..., ScoreRow]:
    """As `graded`, and the grader must not have failed: its row."""

    def judged(*args: Any, **options: Any) -> ScoreRow:
        found = graded(*args, **options)
        assert found.error is None
        return found.rows[0]

    return judged
