"""Every row of the table in one run: ratios against a named peer, spreads, machine facts, JSON.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/all.py [--json runs/benchmarks.json]

Each row is a script of its own and runs in a process of its own: one row's threads and memory
are no other row's. How cost grows is `growth.py`, AFI `afi.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as scripts/afov_node

from compare import HEAD, Row, apart, machine

ROWS = (
    ("indices", 15), ("network", 9), ("training", 7), ("pairing", 15), ("reading", 5),
    ("message", 200), ("decoder", 30),
)  # fmt: skip


def measured(script: str, repeat: int) -> list[Row]:
    """The rows of one script."""
    rows: list[Row] = import_module(script).rows(repeat)
    return rows


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"))
    file = parser.parse_args().json
    facts = apart(machine)
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(HEAD)
    found = []
    for script, repeat in ROWS:
        for row in apart(measured, script, repeat):
            print(row, flush=True)
            found.append(row.to_dict())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": facts, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
