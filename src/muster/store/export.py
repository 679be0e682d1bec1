"""A run as plain data, and runs as the cases of a suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from muster.config.interpolation import odd_variable, variables_in
from muster.errors import UsageError, nearest
from muster.store.reading import JournalReader
from muster.store.records import SUCCEEDED, RunRecord, RunView, StepRecord

__all__ = ("SCHEMA_VERSION", "run_as_data", "suite_cases", "suite_text")

SCHEMA_VERSION = 1
"""Of what `run_as_data` gives."""

_JUDGED_BY = {"type": "equals", "value": "{{ answer }}"}


def run_as_data(view: RunView) -> dict[str, Any]:
    """A run's fields, its `steps` with their `calls` and `events`, the run's own `events`, and
    `approvals`."""
    steps = []
    for step in view.steps:
        calls = [call.to_dict() for call in view.calls if call.step_id == step.id]
        events = [event.to_dict() for event in view.events if event.step_id == step.id]
        steps.append({**step.to_dict(), "calls": calls, "events": events})
    data = {"schema_version": SCHEMA_VERSION, **view.run.to_dict()}
    if view.token_usage is not None:
        data["token_usage"] = view.token_usage.to_dict()
    if view.cost_usd is not None:
        data["cost_usd"] = view.cost_usd
    data |= view.totals.left_out()
    return {
        **data,
        "steps": steps,
        "events": [event.to_dict() for event in view.events if event.step_id is None],
        "approvals": [approval.to_dict() for approval in view.approvals],
    }


# --- runs as cases ------------------------------------------------------------------------------


def suite_cases(
    journal: JournalReader, runs: Iterable[RunRecord], step: str | None = None
) -> list[dict[str, Any]]:
    """A test for each run, or for each answer of its step `step`.

    The input is the run's input as JSON, or the step's prompt; what is expected is the output.

    Raises:
        UsageError: a run or a step has no output that could be expected.
    """
    tests = []
    for run in runs:
        tests += [_case_of_run(run)] if step is None else _cases_of_step(journal, run, step)
    _make_ids_differ(tests)
    return tests


def _case_of_run(run: RunRecord) -> dict[str, Any]:
    if run.status != SUCCEEDED or not (run.output or "").strip():
        told = run.status if run.status != SUCCEEDED else "succeeded without an output"
        raise UsageError(
            f"run {run.id}: {told}, so that there is nothing to expect of a test; "
            "--step NAME takes an answer of one of its steps"
        )
    asked = json.dumps(run.input, ensure_ascii=False)
    return _case(run.id, asked, str(run.output), {"run": run.id, "team": run.team})


def _cases_of_step(journal: JournalReader, run: RunRecord, name: str) -> list[dict[str, Any]]:
    rows = journal.steps(run.id)
    own = [row for row in rows if row.name == name]
    if not own:
        known = list(dict.fromkeys(row.name for row in rows))
        near = nearest(name, known)
        told = f'did you mean "{near[0]}"?' if near else f"it has: {', '.join(known) or 'none'}"
        raise UsageError(f'run {run.id} has no step "{name}" ({told})')
    good = [row for row in own if row.status == SUCCEEDED and row.prompt and row.output]
    if not good:
        raise UsageError(
            f'run {run.id}: step "{name}" has no answer to expect; it is {own[-1].status}'
        )
    loops = any(row.iteration for row in good)
    return [_case_of_step(run, row, loops) for row in good]


def _case_of_step(run: RunRecord, row: StepRecord, loops: bool) -> dict[str, Any]:
    name = f"{run.id}/{row.name}"
    metadata: dict[str, Any] = {"run": run.id, "team": run.team, "step": row.name}
    if row.item is not None:
        name += f"/item-{row.item}"
        metadata["item"] = row.item
    if loops:
        name += f"/iteration-{row.iteration}"
        metadata["iteration"] = row.iteration
    if row.agent is not None:
        metadata["agent"] = row.agent
    return _case(name, str(row.prompt), str(row.output), metadata)


def _case(name: str, asked: str, answer: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    # As variables: what a variable holds is not looked at again, so braces in it mean nothing.
    return {
        "id": name,
        "vars": {"question": asked, "answer": answer},
        "input": "{{ question }}",
        "expected_output": "{{ answer }}",
        "metadata": dict(metadata),
    }


def _make_ids_differ(tests: list[dict[str, Any]]) -> None:
    seen: Counter[str] = Counter()
    for test in tests:
        seen[test["id"]] += 1
        if seen[test["id"]] > 1:
            test["id"] += f"/{seen[test['id']]}"


# --- cases as a file ----------------------------------------------------------------------------


def suite_text(tests: list[dict[str, Any]], path: Path) -> str:
    """The suite for the file `path`, in the form that its name says.

    Raises:
        UsageError: the name ends otherwise, or YAML cannot hold one of the texts.
    """
    if path.suffix == ".jsonl":
        rows = ({**test, "assertions": [_JUDGED_BY]} for test in tests)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f'{path}: the name of a suite ends in .yaml or .jsonl, not "{path.suffix}"'
        )
    for test in tests:
        for text in test["vars"].values():
            if variables_in(text) or odd_variable(text):
                raise UsageError(
                    f"{path}: {test['id']} holds text like ${{{{ NAME }}}}, which in YAML is a "
                    f"variable of the environment; write {path.stem}.jsonl, where it is text"
                )
    return _yaml({"assertions": [_JUDGED_BY], "tests": tests})


def _yaml(data: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes every value: what looks like a number in one YAML is text in another."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    def text(dumper: Dumper, value: _Value) -> yaml.Node:
        style = "|" if "\n" in value else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style=style)

    Dumper.add_representer(_Value, text)
    Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    dumped: str = yaml.dump(
        _quoted(data), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096
    )
    return dumped


class _Value(str):
    __slots__ = ()


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return _Value(value)
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    return [_quoted(item) for item in value] if isinstance(value, list) else value
