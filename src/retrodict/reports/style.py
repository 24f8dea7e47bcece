"""How pages and figures look: one set of colours, legible on light and on dark."""

from __future__ import annotations

#: Colours of series, told apart also by people who do not see red and green alike.
SERIES = ("#3f74b5", "#d8843a", "#4a9b7f", "#b0699a", "#8a8f98")
RIGHT, WRONG = SERIES[2], "#c8553d"

#: Drawn in these by matplotlib, then exchanged for the page's own variables, so that a figure follows the reader's light or dark.
INK, FAINT, PAPER = "#1f2430", "#8b909a", "#fdfcfa"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)"}

CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #565c69; --faint: #8b909a; --paper: #fdfcfa; --card: #f3f1ec;
  --line: #e2ded6; --link: #2f62a3; --good: #2f7d63; --bad: #b4442c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e4de; --soft: #b0aca4; --faint: #87847e; --paper: #17191d;
  --card: #202329; --line: #33373f; --link: #86b0e4; --good: #6fc2a5; --bad: #ec8a74; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 62rem; margin: 0 auto; padding: 4rem 1.5rem 6rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.015em; font-weight: 650; margin: 0 0 .8rem; }
h2 { font-size: 1.35rem; letter-spacing: -.008em; font-weight: 640; margin: 3.6rem 0 .7rem; padding-top: 1.4rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; font-weight: 640; margin: 2rem 0 .4rem; }
p, ul { max-width: 44rem; margin: .6rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
.lead { font-size: 1.15rem; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin: 1.8rem 0;
  background: var(--line);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { background: var(--paper); padding: 1rem 1.2rem; }
.facts b { display: block; font-size: 1.5rem; line-height: 1.3; font-weight: 620; font-variant-numeric: tabular-nums; }
.facts span { font-size: .85rem; line-height: 1.35; color: var(--soft); display: block; }
.scroll { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; min-width: 24rem; }
th { text-align: left; font-weight: 600; font-size: .83rem; color: var(--soft); vertical-align: bottom; }
th, td { padding: .45rem 1.6rem .45rem 0; border-bottom: 1px solid var(--line); }
thead th { border-bottom-color: var(--faint); }
.number { text-align: right; padding-left: .6rem; }
caption, figcaption { caption-side: bottom; text-align: left; color: var(--soft); font-size: .87rem; line-height: 1.5;
  max-width: 44rem;
  padding-top: .6rem; }
figure { margin: 1.6rem 0; }
figure > svg { display: block; max-width: 100%; height: auto; }
figure > svg text { font-family: inherit !important; }
figure img, figure video { display: block; max-width: 100%; border-radius: 6px; background: var(--card); }
.pixels { image-rendering: pixelated; width: 100%; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1.6rem; margin: 1.6rem 0;
  align-items: start; }
.row figure { margin: 0; }
.note { border-left: 3px solid var(--faint); background: var(--card); padding: .7rem 1.1rem; border-radius: 0 8px 8px 0;
  max-width: 46rem;
  margin: 1.2rem 0; }
.note.good { border-color: var(--good); } .note.bad { border-color: var(--bad); }
.good-text { color: var(--good); font-weight: 600; } .bad-text { color: var(--bad); font-weight: 600; }
code, pre { font: .87em/1.55 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { background: var(--card); padding: .1em .35em; border-radius: 4px; }
pre { background: var(--card); padding: .9rem 1.1rem; border-radius: 8px; overflow-x: auto; }
pre code { background: none; padding: 0; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--faint); font-size: .85rem; }
@media print { main { padding: 0; max-width: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""
