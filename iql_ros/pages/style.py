"""How the page looks: one style sheet, light and dark, without anything from outside."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #5d6773; --line: #d9dee4; --card: #f6f8fa;
  --bar: #5b7fa6; --beyond: #d1495b; --limit: #d1495b;
  --good: #1a7f4b; --good-card: #eaf6ef; --look: #9a6100; --look-card: #fff6e3;
  --terminal: #1f9d66; --max_steps: #3b76c4; --log_end: #8b95a1; --hole: #e08a1e; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --ink: #e4e8ec; --soft: #98a3af; --line: #313840; --card: #1c2026;
  --bar: #7fa3cb; --beyond: #f07a8a; --limit: #f07a8a;
  --good: #5fcf95; --good-card: #14281e; --look: #f0b552; --look-card: #2b2313;
  --terminal: #3fc48a; --max_steps: #6fa3ea; --log_end: #76808b; --hole: #f0a848; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 24px 60px; max-width: 1120px; background: var(--paper);
  color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 40px 0 4px; font-size: 18px; border-bottom: 1px solid var(--line);
  padding-bottom: 4px; }
p.note, figcaption, .soft { color: var(--soft); font-size: 13px; }
p.note { margin: 4px 0 12px; }
code, .mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12.5px;
  overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; }
.tile { flex: 1 1 120px; background: var(--card); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 21px; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.verdict { border-left: 5px solid var(--good); background: var(--good-card);
  border-radius: 0 8px 8px 0; padding: 10px 18px; }
.verdict.look { border-color: var(--look); background: var(--look-card); }
.verdict h2 { border: 0; margin: 0; padding: 0; color: var(--good); font-size: 16px; }
.verdict.look h2 { color: var(--look); }
.verdict ol { margin: 6px 0 2px; padding-left: 22px; }
.verdict li { margin: 3px 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; min-width: 45%; max-width: 100%; margin: 8px 0;
  font-size: 13.5px; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 4px 22px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 9px 12px; }
figure header { display: flex; justify-content: space-between; gap: 8px; font-size: 13.5px; }
figure header b { overflow-wrap: anywhere; }
.flag { color: var(--look); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, "DejaVu Sans", sans-serif; }
.bar { fill: var(--bar); } .beyond { fill: var(--beyond); } .track { fill: var(--line); }
.axis { stroke: var(--line); stroke-width: 1; }
.limit { stroke: var(--limit); stroke-width: 1.2; stroke-dasharray: 4 3; }
.terminal { fill: var(--terminal); } .max_steps { fill: var(--max_steps); }
.log_end { fill: var(--log_end); } .hole { fill: var(--hole); }
.dots path { fill: none; stroke-linecap: round; stroke-width: 4.4; opacity: .75; }
.dots .terminal { stroke: var(--terminal); } .dots .max_steps { stroke: var(--max_steps); }
.dots .log_end { stroke: var(--log_end); } .dots .hole { stroke: var(--hole); }
.legend span { display: inline-block; margin-right: 18px; font-size: 13px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 6px; }
details summary { cursor: pointer; color: var(--soft); font-size: 13px; }
.line { fill: none; stroke: var(--bar); stroke-width: 1.6; }
.line.other { stroke: var(--look); }
.span { stroke: var(--bar); stroke-width: 3; stroke-linecap: round; opacity: .55; }
.point { fill: var(--bar); } .best { fill: var(--good); }
svg text.name { fill: var(--ink); }
.verdict.veto { border-color: var(--beyond); background: var(--look-card); }
.verdict.veto h2 { color: var(--beyond); }
.strand { fill: none; stroke: var(--bar); stroke-width: 1; opacity: .45; }
.strand.failed { stroke: var(--look); opacity: .8; }
.strand.worst { stroke: var(--beyond); stroke-width: 2; opacity: 1; }
.span.holds { stroke: var(--good); } circle.holds { fill: var(--good); }
.span.breaks { stroke: var(--beyond); } circle.breaks { fill: var(--beyond); }
b.good { color: var(--good); } b.bad { color: var(--beyond); }
.triple { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
video.film { display: block; width: 100%; border-radius: 6px; margin: 6px 0; }
b.good, b.bad, .nw { white-space: nowrap; }
.chip { display: inline-block; margin: 1px 6px 1px 0; padding: 0 8px; border-radius: 9px;
  background: var(--good-card); font-size: 12.5px; }
.chip.breaks { background: var(--look-card); color: var(--beyond); outline: 1px solid; }
"""
