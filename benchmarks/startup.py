"""What it takes until the command says something, and what `import muster` costs.

    python benchmarks/startup.py [--rounds N]

Whole processes beside a Python that does nothing; byte code is written in the first round, as it
is for a user from the second time on.
"""

from __future__ import annotations

from dataclasses import replace

from measure import MUSTER, PYTHON, Contender, Row, command_line, folder, measure, rows_of, tell
from peers.install import startup_peers

COMMAND_MS = 150
IMPORT_MS = 60


def main() -> None:
    """Measure the command and the import."""
    options = command_line(__doc__).parse_args()
    contenders = [
        Contender("bare", [PYTHON, "-c", "pass"]),
        Contender("muster --help", [MUSTER, "--help"]),
        Contender("muster --version", [MUSTER, "--version"]),
        Contender("import muster", [PYTHON, "-c", "import muster"]),
        *startup_peers(options.peers),
    ]
    with folder() as cwd:
        found = measure(contenders, rounds=options.rounds or 21, cwd=cwd)
    rows: list[Row] = []
    for row in rows_of("start-up", found, unit="ms"):
        limit = {"import muster": IMPORT_MS}.get(row.contender, COMMAND_MS)
        if "muster" not in row.contender:
            rows.append(row)
            continue
        rows.append(replace(row, target=f"≤ {limit} ms", met=row.value <= limit))
    tell(rows, options)


if __name__ == "__main__":
    main()
