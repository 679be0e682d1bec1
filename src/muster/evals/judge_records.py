"""What is known of judges: measured by `muster judge check`, kept in `.muster/judges`, shown beside
the scores that they give later."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import MusterError
from muster.evals.agreement import VoteTally, net_preference, share
from muster.evals.results import CaseResult
from muster.evals.stats import Estimate

__all__ = (
    "JudgeId",
    "JudgeTotals",
    "find_record",
    "identity",
    "order_report",
    "store_record",
    "told",
)

FOLDER = Path(".muster") / "judges"


class JudgeId(msgspec.Struct, frozen=True, order=True):
    """Who judges, and what it is asked."""

    target: str
    """The target; of several, all of them, joined by `+`; asked n times, with `×n`."""
    model: str | None
    prompt_hash: str

    @property
    def file_name(self) -> str:
        """The name of its record; readable, and different for different judges."""
        import hashlib

        said = f"{self.target}\0{self.model}\0{self.prompt_hash}"
        name = re.sub(r"[^\w.+-]+", "-", self.target).strip("-.")[:60] or "judge"
        return f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}.json"


def identity(details: Mapping[str, Any]) -> JudgeId | None:
    """Who gave a score with these details; `None` if no judge did."""
    rows = _rows(details, "judges") or _rows({"judge": [details.get("judge")]}, "judge")
    rows = [row for row in rows if "prompt_hash" in row and "target" in row]
    if not rows:
        return None
    targets = list(dict.fromkeys(str(row["target"]) for row in rows))
    models = list(dict.fromkeys(str(row["model"]) for row in rows if row.get("model")))
    name = "+".join(targets)
    if len(rows) > len(targets):
        name += f"×{len(rows) // len(targets)}"
    return JudgeId(name, "+".join(models) or None, str(rows[0]["prompt_hash"]))


def _rows(details: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The mappings in the list called so; a grader of one's own may say there what it likes."""
    rows = details.get(name)
    if not isinstance(rows, list | tuple):
        return []
    return [row for row in rows if isinstance(row, Mapping)]


def told(estimate: Estimate | None) -> dict[str, Any] | None:
    """The published form of an estimate; `null` where there is none."""
    if estimate is None or math.isnan(estimate.value):
        return None
    interval = estimate.interval
    return {
        "value": estimate.value,
        "interval": list(interval) if interval is not None else None,
        "n": estimate.n,
    }


def order_report(n: int, consistent: int, first: int, second: int) -> dict[str, Any]:
    """What the order of two answers did in `n` comparisons."""
    return {
        "consistent": told(share(consistent, n)),
        "position_bias": {
            "drawn_to_first": first,
            "drawn_to_second": second,
            "net": told(net_preference(first, second, n)),
        },
    }


def store_record(root: Path, judge: JudgeId, record: Mapping[str, Any]) -> Path:
    """Keep what was measured of a judge, in place of what was known before.

    Raises:
        MusterError: the file cannot be written.
    """
    path = root / FOLDER / judge.file_name
    draft = path.with_suffix(".json.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def find_record(root: Path, judge: JudgeId) -> dict[str, Any] | None:
    """What was measured of the judge; `None` if nothing was, or the file is broken."""
    path = root / FOLDER / judge.file_name
    try:
        record = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    keys = ("target", "model", "prompt_hash")
    if not isinstance(record, dict) or any(record.get(key) != getattr(judge, key) for key in keys):
        return None
    return record


class _Judge(msgspec.Struct):
    verdicts: int = 0
    graders: dict[str, None] = msgspec.field(default_factory=dict)
    judged: dict[str, None] = msgspec.field(default_factory=dict)
    """The targets whose answers it judged."""
    votes: VoteTally = msgspec.field(default_factory=VoteTally)
    duels: int = 0
    consistent: int = 0
    drawn_to: Counter[str] = msgspec.field(default_factory=Counter)
    """Places that the order of two answers spoke for."""

    def add(self, name: str, target: str, details: Mapping[str, Any]) -> None:
        self.verdicts += 1
        self.graders[name] = None
        self.judged[target] = None
        votes = [row for row in _rows(details, "judges") if "passed" in row]
        passes = sum(bool(row["passed"]) for row in votes)
        self.votes.add(passes, len(votes) - passes)
        for duel in _rows(details, "duels"):
            self.duels += 1
            self.consistent += duel.get("consistent") is True
            self.drawn_to[str(duel.get("drawn_to"))] += 1

    def pairs(self) -> dict[str, Any] | None:
        """What the order did, of a judge that compared answers."""
        if not self.duels:
            return None
        first, second = self.drawn_to["first"], self.drawn_to["second"]
        return order_report(self.duels, self.consistent, first, second)


class JudgeTotals:
    """The judges of a run: the verdicts of each, how far votes agree, and what is known of it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        """The project, whose records are looked at."""
        self._judges: dict[JudgeId, _Judge] = {}

    def add(self, result: CaseResult) -> None:
        """Look at the scores of one result."""
        if not result.judge_calls:
            return
        rows = [*result.scores]
        for turn in result.turns or ():
            rows += turn.get("scores", ())
        for name, details in _judged(rows):
            judge = identity(details)
            if judge is None:
                continue
            self._judges.setdefault(judge, _Judge()).add(name, result.target, details)

    def to_list(self) -> list[dict[str, Any]]:
        """The published form: `judges` of `run.json`."""
        rows = []
        for judge, known in self._judges.items():
            checked = None if self.root is None else find_record(self.root, judge)
            rows.append(
                {
                    "target": judge.target,
                    "model": judge.model,
                    "prompt_hash": judge.prompt_hash,
                    "graders": list(known.graders),
                    "judged": list(known.judged),
                    "verdicts": known.verdicts,
                    "pairs": known.pairs(),
                    "agreement": known.votes.to_dict() if known.votes.answers else None,
                    "check": checked,
                }
            )
        return rows


def _judged(rows: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and details of the scores that a judge gave, those of nested graders too."""
    for row in rows if isinstance(rows, list | tuple) and depth < 20 else ():
        if not isinstance(row, Mapping):
            continue
        details = row.get("details")
        if isinstance(details, Mapping):
            yield str(row.get("name")), details
            yield from _judged(details.get("scores"), depth + 1)
        yield from _judged(row.get("scores"), depth + 1)
