"""Runs that promptfoo has written, with Muster's names for their tests and prompts.

Results of promptfoo stand in the order in which answers came, and name neither tests nor prompts.
Their places in the configuration tell them apart, as Muster's names do; so a run of promptfoo and
one of Muster, of the same configuration, can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import UsageError
from muster.evals.foreign_runs import number_of, text_of, whole_of
from muster.evals.results import EXECUTION_ERROR, OK, QUALITY_FAILURE
from muster.evals.scored import Scored, ScoredRun

__all__ = ("promptfoo_run",)

_FAILED_TO_RUN = 2
"""promptfoo's `failureReason`: 0 none, 1 an assertion, 2 an error."""

_ROW_OF_CSV = re.compile(r"Row #\d+")
"""What promptfoo describes a row by that has no description."""

_Row = dict[str, Any]


def promptfoo_run(path: Path, data: Any) -> ScoredRun:
    """What `promptfoo eval --output FILE.json` wrote, versions 2 and 3.

    Tests are named as Muster names those of a promptfoo configuration: by `vars.id`, their
    description, or their number; prompts by their label, their file, or their number.

    Raises:
        UsageError: it is something else.
    """
    rows = _rows(data)
    if rows is None:
        raise UsageError(
            f"{path}: not the results of a run: neither a baseline nor what "
            "`promptfoo eval --output` writes"
        )
    head = _mapping(data["results"])
    config = _mapping(data.get("config"))
    run = ScoredRun(name=path.stem, path=path, kind="promptfoo", results=[])
    run.started_at = text_of(head.get("timestamp"))
    suite = str(config.get("description") or ("promptfoo" if config else path.stem))
    tests = _test_ids(rows, config, _repeats(data, config))
    prompts = _prompt_names(rows, head.get("prompts"), config.get("prompts"))
    counted: dict[tuple[str, str | None, str], int] = {}
    for row, test_id, prompt in zip(rows, tests, prompts, strict=True):
        key = (test_id, prompt, _provider(row.get("provider")))
        repeat = counted.get(key, 0)
        counted[key] = repeat + 1
        run.results.append(_result(row, suite, key, repeat))
    return run


def _rows(data: Any) -> list[_Row] | None:
    """The results, wherever the version has them."""
    found = data.get("results") if isinstance(data, dict) else None
    if isinstance(found, dict):
        found = found.get("results")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        return None
    return found if all("success" in row or "score" in row for row in found) else None


def _result(row: _Row, suite: str, key: tuple[str, str | None, str], repeat: int) -> Scored:
    test_id, prompt, target = key
    score, passed = number_of(row.get("score")), row.get("success") is True
    reason = row.get("failureReason")
    broken = reason == _FAILED_TO_RUN
    if reason is None:  # version 2: an error that no assertion has told of
        broken = bool(row.get("error")) and not row.get("gradingResult")
    broken = broken or score is None
    cluster = _mapping(_mapping(row.get("testCase")).get("metadata")).get("cluster")
    return Scored(
        test_id=test_id,
        suite=suite,
        target=target,
        execution_status=EXECUTION_ERROR if broken else OK if passed else QUALITY_FAILURE,
        score=None if broken else score,
        repeat=repeat,
        prompt=prompt,
        cluster=None if cluster is None else str(cluster),
        cost_usd=number_of(row.get("cost")),
        duration_ms=number_of(row.get("latencyMs")),
    )


# --- tests ----------------------------------------------------------------------------------------


class _Test(msgspec.Struct, frozen=True, eq=False):
    """A test, once for all its repeats."""

    first: int
    """The place of its first row, among all tests' rows."""
    name: str | None
    """`vars.id`, or its description."""


def _test_ids(rows: Sequence[_Row], config: Mapping[str, Any], repeats: int | None) -> list[str]:
    """The id of each row's test.

    Each repeat has a place (`testIdx`) of its own. Places of the same content are repeats of one
    test: so many as `repeats` says; more are another test of that content. Where it does not say,
    all of them are of one.
    """
    places: dict[bytes, list[int]] = {}
    found = []
    for at, row in enumerate(rows):
        content = _content(row)
        known = places.setdefault(content, [])
        place = whole_of(row.get("testIdx"))
        place = at if place is None else place
        if place not in known:
            known.append(place)
        found.append((content, place))
    tests: dict[tuple[bytes, int], _Test] = {}
    names = {_content(row): _name(row) for row in rows}
    for content, known in places.items():
        known.sort()
        each = repeats or len(known)
        for start in range(0, len(known), each):
            test = _Test(known[start], names[content])
            mine = known[start : start + each]
            tests |= dict.fromkeys(((content, place) for place in mine), test)
    in_order = sorted(dict.fromkeys(tests.values()), key=lambda test: test.first)
    ids = _ids([test.name for test in in_order], _spread(config))
    by_test = dict(zip(in_order, ids, strict=True))
    return [by_test[tests[key]] for key in found]


def _ids(names: Sequence[str | None], spread: set[str]) -> Iterator[str]:
    """Ids of tests in their order; `spread` are the names of those that variables with lists have
    made several of."""
    counted: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name is None:
            yield f"test-{number}"
            continue
        counted[name] = counted.get(name, 0) + 1
        if name in spread:
            yield f"{name}-{counted[name]}"
        else:
            yield name if counted[name] == 1 else f"{name} ({number})"


def _content(row: _Row) -> bytes:
    """What makes a test another one."""
    test = _mapping(row.get("testCase"))
    told = [_variables(row), test.get("description") or row.get("description"), test.get("assert")]
    return msgspec.json.encode(told, order="sorted")


def _name(row: _Row) -> str | None:
    description = _mapping(row.get("testCase")).get("description") or row.get("description")
    if isinstance(description, str) and _ROW_OF_CSV.fullmatch(description):
        description = None
    name = _variables(row).get("id") or description
    return (str(name).strip() or None) if isinstance(name, str | int) else None


def _variables(row: _Row) -> Mapping[str, Any]:
    return _mapping(row.get("vars") or _mapping(row.get("testCase")).get("vars"))


def _repeats(data: _Row, config: Mapping[str, Any]) -> int | None:
    """How often each test was run, where the file says so."""
    for place in (data.get("runtimeOptions"), config.get("evaluateOptions")):
        found = whole_of(_mapping(place).get("repeat"))
        if found is not None and found > 0:
            return found
    return None


def _spread(config: Mapping[str, Any]) -> set[str]:
    """Descriptions of tests that have a list for a variable's value."""
    tests = config.get("tests")
    found = set()
    for test in tests if isinstance(tests, list) else ():
        description = _mapping(test).get("description")
        values = _mapping(_mapping(test).get("vars")).values()
        if isinstance(description, str) and any(isinstance(value, list) for value in values):
            found.add(description.strip())
    return found


# --- prompts --------------------------------------------------------------------------------------


def _prompt_names(rows: Sequence[_Row], listed: Any, configured: Any) -> list[str | None]:
    """The name of each row's prompt; `None` where all rows have the same."""
    prompts = _listed(listed) or list(
        dict.fromkeys((_label(row.get("prompt")), "") for row in rows)
    )
    names = _named(prompts, configured if isinstance(configured, list) else [])
    if len(names) < 2:
        return [None] * len(rows)
    places = _places(listed)
    by_label: dict[str, str] = {}
    for (label, _), name in zip(prompts, names, strict=True):
        by_label.setdefault(label, name)
    found: list[str | None] = []
    for row in rows:
        label = _label(row.get("prompt"))
        at = places.get(whole_of(row.get("promptIdx")))
        known = at is not None and at < len(prompts) and prompts[at][0] == label
        found.append(names[at] if known and at is not None else by_label.get(label, label))
    return found


def _listed(listed: Any) -> list[tuple[str, str]]:
    """Label and template of the prompts of the provider that has most."""
    by_provider: dict[str, list[tuple[str, str]]] = {}
    for prompt in listed if isinstance(listed, list) else ():
        if isinstance(prompt, dict):
            told = (_label(prompt), str(prompt.get("raw") or ""))
            by_provider.setdefault(str(prompt.get("provider")), []).append(told)
    return max(by_provider.values(), key=len, default=[])


def _places(listed: Any) -> dict[int | None, int]:
    """By `promptIdx`: which of its provider's prompts it is."""
    counted: dict[str, int] = {}
    found: dict[int | None, int] = {}
    for at, prompt in enumerate(listed if isinstance(listed, list) else ()):
        provider = str(_mapping(prompt).get("provider"))
        found[at] = counted.get(provider, 0)
        counted[provider] = found[at] + 1
    return found


def _named(prompts: Sequence[tuple[str, str]], configured: Sequence[Any]) -> list[str]:
    """What Muster calls the prompts: by label, else by file, else by number.

    promptfoo labels a text by itself, and what a file holds by `FILE: text`.
    """
    files = [
        label.removesuffix(f": {raw}") if raw and label.endswith(f": {raw}") else None
        for label, raw in prompts
    ]
    names: list[str] = []
    number = 0
    for at, (label, raw) in enumerate(prompts):
        file = files[at]
        if file is None or at == 0 or files[at - 1] != file:
            number += 1
        if file is not None:
            several = files.count(file) > 1
            names.append(f"{file}#{files[: at + 1].count(file)}" if several else file)
        elif label == raw:
            same = [place for place, entry in enumerate(configured, 1) if entry == raw]
            before = sum(1 for earlier in prompts[:at] if earlier == (label, raw))
            names.append(f"prompt-{same[before] if before < len(same) else number}")
        else:
            names.append(label)
    return names


def _label(prompt: Any) -> str:
    if isinstance(prompt, dict):
        return str(prompt.get("label") or prompt.get("raw") or "")
    return str(prompt or "")


def _provider(provider: Any) -> str:
    if isinstance(provider, dict):
        return str(provider.get("label") or provider.get("id") or "provider")
    return str(provider or "provider")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
