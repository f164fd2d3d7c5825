"""Trainings of a benchmark that are done, in a file, so that it can be stopped and goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Rows, one JSON line each; in memory alone without a file."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if file is not None and file.exists():
            self.rows = [json.loads(line) for line in file.read_text().splitlines()]

    def find(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """The first row that has all of this, if one was done before."""
        same = (r for r in self.rows if all(k in r and r[k] == v for k, v in wanted.items()))
        return next(same, None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as out:
                out.write(json.dumps(row) + "\n")
