"""``ets check`` and ``ets schema`` as a person and as a program sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).with_name("site_pair.toml").read_text()
EXAMPLES = Path(__file__).parents[2] / "examples"


def ets(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [sys.executable, "-m", "ets", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "bad.toml"
    text = DATA.replace('stations = "10.77.0.11"', 'station = "[red]10.77.0.11"')
    path.write_text(text.replace("weight = 1\n", "weight = 0\n", 1))
    return path


def test_a_site_that_is_well() -> None:
    done = ets("check", EXAMPLES / "campus.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Site campus" in done.stdout
    assert "300 known stations" in done.stdout
    assert len(done.stdout.splitlines()) <= 24


def test_the_readme_shows_what_is_printed() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    start = readme.index("    $ ets check examples/pair.toml\n")
    shown = readme[start : readme.index("    …\n", start)].splitlines()[1:]
    printed = {line.strip() for line in ets("check", EXAMPLES / "pair.toml").stdout.splitlines()}
    told = [line.strip().removeprefix("examples/") for line in shown]
    assert len(told) == 5
    for line in told:
        assert any(other.endswith(line) for other in printed), line


def test_a_site_that_is_well_as_json() -> None:
    done = ets("check", "--json", EXAMPLES / "campus.toml")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["problems"] == []
    assert [server["name"] for server in said["site"]["servers"]] == [
        "ada", "bohr", "curie", "darwin", "euler",
    ]  # fmt: skip
    assert sum(server["first_for"] for server in said["site"]["servers"]) == 300
    assert sum(server["guests"]["addresses"] for server in said["site"]["servers"]) == 2043


def test_problems_are_printed_with_exit_code_2(bad: Path) -> None:
    done = ets("check", bad)
    assert done.returncode == 2
    assert "3 problems" in done.stdout
    assert 'servers[0].station (line 37) = "[red]10.77.0.11"' in done.stdout
    assert "did you mean stations?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_problems_as_json(bad: Path) -> None:
    done = ets("check", "--json", bad)
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert said["site"] is None
    assert [problem["where"] for problem in said["problems"]] == [
        "servers[0].stations (line 33)",
        "servers[0].weight (line 35)",
        "servers[0].station (line 37)",
    ]


def test_a_file_that_is_not_there() -> None:
    done = ets("check", "/nonexistent/site.toml")
    assert done.returncode == 2
    assert "No such file" in done.stdout


def test_the_schema_knows_every_key_and_describes_it() -> None:
    done = ets("schema")
    assert done.returncode == 0
    schema: dict[str, Any] = json.loads(done.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["required"]) == {"site", "networks", "servers", "stations", "images"}
    tables = [schema, *schema["$defs"].values()]
    for table in tables:
        assert table["additionalProperties"] is False or table["title"] == "ETS site file"
        for name, key in table["properties"].items():
            assert "null" not in json.dumps(key), name
            assert "$ref" in key or "description" in key or name == "images", name


def test_the_schema_fits_the_examples() -> None:
    """Every key of every example is in the schema, where the example has it."""
    import tomllib

    schema = json.loads(ets("schema").stdout)

    def fits(value: Any, part: dict[str, Any], where: str) -> None:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        if isinstance(value, dict) and "properties" in part:
            assert set(part.get("required", ())) <= set(value), where
            for key, inner in value.items():
                assert key in part["properties"], f"{where}.{key}"
                fits(inner, part["properties"][key], f"{where}.{key}")
        elif isinstance(value, dict):
            (inner_part,) = part["patternProperties"].values()
            for key, inner in value.items():
                fits(inner, inner_part, f"{where}.{key}")
        elif isinstance(value, list):
            assert part["type"] == "array", where
            for inner in value:
                fits(inner, part["items"], where)
        else:
            kinds = {str: "string", bool: "boolean", int: "integer", float: "number"}
            assert part.get("type") in {kinds[type(value)], "number"}, where

    for path in EXAMPLES.glob("*.toml"):
        fits(tomllib.loads(path.read_text()), schema, path.stem)
