"""One page that needs nothing else: no script, no other file, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ets.report.promises import Promise, figure
from ets.report.svg import colour, render
from ets.report.timeline import Timeline

STYLE = """
:root { color-scheme: light dark; --ink:#1c2024; --soft:#5b6570; --faint:#c9ced4; --paper:#fff;
  --rule:#e3e6ea; --well:#1a7f45; --bad:#c62828; --fault:#d9730d; --quick:#7d8b99;
  --s0:#2f6fd0; --s1:#d98a00; --s2:#3a9d5d; --s3:#9b4fc0; --s4:#c2456f; --s5:#4a9aa8; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ed; --soft:#9aa5b1; --faint:#4a525b;
  --paper:#15181c; --rule:#2a3037; --well:#5ac486; --bad:#ff7b72; --fault:#f0a35a;
  --quick:#7f8c99; --s0:#6ea3f5; --s1:#eab04a; --s2:#6cc98b; --s3:#c48be6; --s4:#ec86a8;
  --s5:#7cc7d3; } }
body { font:16px/1.5 system-ui, "DejaVu Sans", sans-serif; color:var(--ink);
  background:var(--paper); max-width:1220px; margin:2rem auto; padding:0 20px; }
h1 { font-size:1.6rem; margin:0 0 .2rem; } h2 { font-size:1.15rem; margin:2.2rem 0 .6rem; }
p.sub, figcaption, td.detail { color:var(--soft); } p.sub { margin:.2rem 0; }
.verdict { font-weight:600; } .well { color:var(--well); } .bad { color:var(--bad); }
figure { margin:0; overflow-x:auto; } figcaption { font-size:.88rem; margin-top:.5rem; }
svg { width:100%; min-width:820px; height:auto; display:block;
  font:12px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill:var(--ink); } svg .small { fill:var(--soft); font-size:10.5px; }
svg .mid { text-anchor:middle; } svg .name { font-weight:600; font-size:14px; }
svg .label { font-weight:600; fill:var(--fault); } svg .worst { font-size:10.5px; fill:var(--bad);
  paint-order:stroke; stroke:var(--paper); stroke-width:3px; }
svg .fault { fill:var(--fault); opacity:.13; } svg .edge { stroke:var(--fault); opacity:.55; }
svg .tick, svg .moment { stroke:var(--soft); } svg .rule { stroke:var(--rule); }
svg .quick { stroke:var(--quick); stroke-width:1.1; fill:none; }
svg .stall { fill:var(--bad); opacity:.75; } svg .error { fill:var(--bad); }
.key { display:inline-block; width:.8em; height:.8em; border-radius:2px; margin:0 .35em 0 1em; }
table { border-collapse:collapse; width:100%; font-size:.95rem; }
th { text-align:left; color:var(--soft); font-weight:500; } td.n, th.n { text-align:right;
  font-variant-numeric:tabular-nums; white-space:nowrap; }
th, td { padding:.4rem .7rem .4rem 0; border-bottom:1px solid var(--rule); vertical-align:top; }
td.detail { font-size:.88rem; } td.v { white-space:nowrap; font-weight:600; }
"""


def verdict(promise: Promise) -> str:
    """``held`` or ``NOT HELD``, in words for those who see no colours."""
    return '<td class="v well">✓ held</td>' if promise.held else '<td class="v bad">✗ not held</td>'


def table(promises: Sequence[Promise]) -> str:
    """The promises with their figures."""
    rows = "\n".join(
        f'<tr><td>{escape(p.name)}</td><td class="n">{escape(p.shown)}</td>'
        f'<td class="n">≤ {figure(p.limit)} {escape(p.unit)}</td>{verdict(p)}'
        f'<td class="detail">{escape(p.detail)}</td></tr>'
        for p in promises
    )
    head = (
        '<tr><th>promise</th><th class="n">measured</th><th class="n">limit</th>'
        "<th></th><th>how it was seen</th></tr>"
    )
    return f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>"


def summary(promises: Sequence[Promise]) -> str:
    """One sentence."""
    held = sum(promise.held for promise in promises)
    well = promises and held == len(promises)
    words = (
        f"All {held} promises were held."
        if well
        else f"{held} of {len(promises)} promises were held."
    )
    return f'<p class="verdict {"well" if well else "bad"}">{words}</p>'


def render_page(title: str, promises: Sequence[Promise], timeline: Timeline) -> str:
    """The whole page as HTML text."""
    keys = "".join(
        f'<span class="key" style="background:{colour(timeline.servers, name)}"></span>'
        f"{escape(name)}"
        for name in timeline.servers
    )
    facts = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in timeline.facts
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
{summary(promises)}
<h2>What the stations saw</h2>
<figure>{render(timeline)}
<figcaption>Each stroke is one read of a block never read before; the taller, the slower
(logarithmic, 1 ms to 20 s). Red: longer than 0.1 s, as wide as it lasted; the figure is the longest
read after each fault. The band below a row shows which server its blocks came
from:{keys}. Columns are faults, from their beginning until they were healed.</figcaption></figure>
<h2>Promises</h2>
{table(promises)}
<h2>The site</h2>
<table><tbody>{facts}</tbody></table>
</body></html>
"""
