"""Results as Parquet, for data frames and databases; needs the extra `parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muster.reports.columns import COLUMNS, flat_row, grader_columns
from muster.reports.overview import Overview

__all__ = ("write_parquet",)

_BATCH = 1_000


def write_parquet(overview: Overview, path: Path) -> None:
    """Write all results, a thousand at a time."""
    import pyarrow
    import pyarrow.parquet

    kinds = {
        "text": pyarrow.large_string(),
        "json": pyarrow.large_string(),
        "whole": pyarrow.int64(),
        "number": pyarrow.float64(),
        "flag": pyarrow.bool_(),
    }
    graders = grader_columns(overview)
    columns = COLUMNS | dict.fromkeys(graders.values(), "number")
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    batch: dict[str, list[Any]] = {name: [] for name in columns}
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pyarrow.table(batch, schema=schema))
            for values in batch.values():
                values.clear()

        for run, result in overview.rows():
            row = flat_row(overview, run, result, graders)
            for name, values in batch.items():
                values.append(row.get(name))
            if len(batch["run"]) == _BATCH:
                flush()
        if batch["run"]:
            flush()
