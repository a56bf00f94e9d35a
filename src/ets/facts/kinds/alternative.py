"""Debian's alternatives: which program a common name stands for (update-alternatives(1))."""

from __future__ import annotations

KIND = "alternative"
ASK = (("update-alternatives", "--get-selections"),)


def parse(text: str) -> dict[str, dict[str, str]]:
    """``program`` is what it stands for; ``chosen`` whether a person or the priority did."""
    rows = (line.split(None, 2) for line in text.splitlines())
    return {
        row[0]: {"program": row[2], "chosen": "by hand" if row[1] == "manual" else "by priority"}
        for row in rows
        if len(row) == 3
    }
