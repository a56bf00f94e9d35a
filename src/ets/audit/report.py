"""Findings as text, as JSON and as a page that shows servers side by side. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape

from ets.audit.finding import Finding
from ets.audit.findings import odd_one
from ets.report.page import STYLE

FORMAT = 1


def text(findings: Sequence[Finding], servers: Sequence[str]) -> Iterator[str]:
    """A line for each finding, worst first, with what follows from it below."""
    for finding in findings:
        yield f"{finding.harm:3}  {finding.words}"
        yield from (f"       └ {words}" for words in finding.consequences)
    yield summary(findings, servers)


def summary(findings: Sequence[Finding], servers: Sequence[str]) -> str:
    """One sentence."""
    names = ", ".join(servers)
    if not findings:
        return f"{names}: equal"
    one = "1 thing differs" if len(findings) == 1 else f"{len(findings)} things differ"
    odd = odd_one(findings, servers)
    return f"{names}: {one}" + (f"; {odd} is probably the odd one" if odd else "")


def plain(findings: Sequence[Finding], servers: Sequence[str]) -> str:
    """As JSON."""
    found = [asdict(finding) for finding in findings]
    odd = odd_one(findings, servers)
    document = {"format": FORMAT, "servers": list(servers), "odd": odd, "findings": found}
    return json.dumps(document, indent=2, sort_keys=True)


def page(findings: Sequence[Finding], servers: Sequence[str]) -> str:
    """As one HTML page, a column for each server."""
    head = "".join(f"<th>{escape(name)}</th>" for name in servers)
    rows = "\n".join(_row(finding, servers) for finding in findings)
    verdict = "bad" if findings else "well"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Audit</title><style>{STYLE}</style></head><body>
<h1>Audit</h1>
<p class="verdict {verdict}">{escape(summary(findings, servers))}</p>
<table><thead><tr><th class="n">harm</th><th>what differs</th>{head}</tr></thead><tbody>
{rows}
</tbody></table>
</body></html>
"""


def _row(finding: Finding, servers: Sequence[str]) -> str:
    cells = "".join(
        f'<td class="detail{" bad" if name in finding.odd else ""}">'
        f"{escape(finding.servers.get(name, ''))}</td>"
        for name in servers
    )
    below = "".join(f"<br>{escape(words)}" for words in finding.consequences)
    detail = f'<span class="detail">{below}</span>' if below else ""
    words = f"<td>{escape(finding.words)}{detail}</td>"
    return f'<tr><td class="n">{finding.harm}</td>{words}{cells}</tr>'
