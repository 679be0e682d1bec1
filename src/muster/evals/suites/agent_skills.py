"""Agent Skills' `evals.json` as a suite: prompts, and expectations that a model judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.config.document import Document, Location, Place
from muster.errors import ConfigError, Problem, nearest
from muster.evals.suites.moved import MovedDocument

__all__ = ("agent_skills",)

_TOP = ("skill_name", "evals", "$schema", "version", "description")
_EVAL = ("id", "name", "prompt", "expected_output", "assertions", "expectations", "files")


def agent_skills(document: Document) -> dict[str, Any]:
    """The suite's `data` and `place`.

    `prompt` is the input, `expected_output` the criteria, `assertions` and `expectations` the
    rubric, `files` the input files; `skill_name` is the tag `skill=NAME`.

    Raises:
        ConfigError: something in it has no such form.
    """
    reader = _Reader(document)
    data = reader.suite()
    if reader.problems:
        raise ConfigError(reader.problems)
    return {"data": data, "place": Place(MovedDocument(data, document, reader.moved))}


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.moved: dict[Location, Location] = {("tests",): ("evals",)}

    def suite(self) -> dict[str, Any]:
        given: Mapping[str, Any] = self.document.data
        self._known((), given, _TOP)
        data: dict[str, Any] = {}
        skill = given.get("skill_name")
        if isinstance(skill, str) and skill.strip():
            data |= {"name": skill.strip(), "tags": {"skill": skill.strip()}}
            self.moved |= {("name",): ("skill_name",), ("tags",): ("skill_name",)}
        if given.get("description") is not None:
            data["description"] = given["description"]
        evals = given["evals"]
        if not isinstance(evals, list):
            self._complain(("evals",), "expected a list of evals")
            return data
        data["tests"] = [self._test(item, number) for number, item in enumerate(evals)]
        return data

    def _test(self, item: Any, number: int) -> dict[str, Any]:
        old, new = ("evals", number), ("tests", number)
        if not isinstance(item, dict):
            self._complain(old, "expected an eval: a mapping with prompt and expectations")
            return {}
        self._known(old, item, _EVAL)
        if not isinstance(item.get("prompt"), str):
            self._complain(old, '"prompt" is required, as text')
        name = item.get("id", item.get("name"))
        test: dict[str, Any] = {"id": str(name if name is not None else number + 1)}
        for source, field in (
            ("prompt", "input"),
            ("expected_output", "criteria"),
            ("files", "input_files"),
        ):
            if item.get(source):
                test[field] = item[source]
                self.moved[*new, field] = (*old, source)
        lists = [key for key in ("assertions", "expectations") if item.get(key)]
        if len(lists) == 2:
            self._complain(
                (*old, lists[1]), '"assertions" and "expectations" are the same; keep one'
            )
        elif lists:
            test["assertions"] = item[lists[0]]
            self.moved[*new, "assertions"] = (*old, lists[0])
        return test

    def _known(self, at: Location, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in given:
            if key not in known:
                near = nearest(str(key), known)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
                text = f'unknown field "{key}" ({hint})'
                self.problems.append(self.document.problem((*at, key), text, of_key=True))

    def _complain(self, at: Location, message: str) -> None:
        self.problems.append(self.document.problem(at, message))
