"""The handbook's page about the site file knows every key, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from ets.site import schema

PAGE = (Path(__file__).parents[2] / "docs" / "site-file.md").read_text()

#: heading in the page → table
TABLES: dict[str, type[schema.Table]] = {
    "## `[site]`": schema.SiteTable,
    "## `[networks.lan]`": schema.StationsNetworkTable,
    "## `[[servers]]`": schema.ServerTable,
    "## `[stations]`": schema.StationsTable,
    "## `[[stations.known]]`": schema.StationTable,
    "## `[images.NAME]`": schema.ImageTable,
    "## `images.NAME.files`": schema.FileTable,
    "## `[clone]`": schema.CloneTable,
}


def section(heading: str) -> str:
    start = PAGE.index(heading)
    return PAGE[start : PAGE.find("\n## ", start + 1)]


def test_every_key_is_explained_and_no_other() -> None:
    for heading, table in TABLES.items():
        rows = re.findall(r"^\| `([a-z_]+)` \|", section(heading), re.MULTILINE)
        assert sorted(rows) == sorted(table.model_fields), heading
    assert "`dns.servers`" in PAGE
    assert "`time.servers`" in PAGE


def test_required_keys_and_defaults_are_true() -> None:
    for heading, table in TABLES.items():
        for key, told in re.findall(
            r"^\| `([a-z_]+)` \| ([^|]*) \|", section(heading), re.MULTILINE
        ):
            assert (told == "required") == (key in table.REQUIRED), (heading, key)
            default = table.model_fields[key].default
            if default is None:
                continue
            shown = str(default).lower() if isinstance(default, bool) else f"{default}"
            shown = shown.removesuffix(".0")
            assert told in {f"`{shown}`", f'`"{shown}"`'}, (heading, key)
