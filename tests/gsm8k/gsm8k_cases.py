"""The problems of GSM8K as tests; see `gsm8k.eval.yaml`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def cases() -> Iterator[dict[str, Any]]:
    """One test a problem; the expected output ends in the line `A: <number>`."""
    with Path(os.environ["MUSTER_GSM8K"]).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            yield {
                "id": f"gsm8k-{number:04}",
                "input": row["question"],
                "expected_output": row["ground_truth"],
            }
