"""Debian packages: their versions, and what is unusual about their state (dpkg-query(1))."""

from __future__ import annotations

KIND = "package"
FORMAT = "${binary:Package}\t${db:Status-Want}\t${db:Status-Status}\t${Version}\n"
ASK = (("dpkg-query", "--show", f"--showformat={FORMAT}"),)


def parse(text: str) -> dict[str, dict[str, str]]:
    """Packages that are there in whole or in part. ``state`` is told only where it is not
    *installed*, ``held`` only where it is."""
    rows = (line.split("\t") for line in text.splitlines())
    found = {}
    for name, want, status, version in (row for row in rows if len(row) == 4):
        if status in ("not-installed", "config-files"):
            continue
        about = {"version": version}
        if status != "installed":
            about["state"] = status
        if want == "hold":
            about["held"] = "yes"
        found[name] = about
    return found
