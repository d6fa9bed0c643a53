"""The report's style sheet: a module, so that an edit reruns the stage like any other edit of code."""

STYLE = """
:root { color-scheme: light; --ink: #222; --quiet: #666; --line: #ddd;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 66rem; background: #fff; color: var(--ink);
  font: 15px/1.5 var(--font); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; }
p, ul { max-width: 48rem; margin: .4rem 0 .8rem; }
nav, small, .quiet, figcaption { color: var(--quiet); }
nav a { margin-right: 1rem; color: inherit; }
small { font-size: .85em; white-space: nowrap; font-weight: normal; }
small.detail { white-space: normal; }
.verdict { font-size: 1.1rem; }
.look { border-left: 3px solid #E69F00; padding-left: .9rem; margin: 1rem 0; }
.look ul { padding-left: 1.1rem; margin: .2rem 0; }
.wide { overflow-x: auto; overflow-wrap: normal; margin: .5rem 0 1rem; }
.tall { overflow-y: auto; max-height: 38rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th { font-weight: 600; text-align: right; vertical-align: bottom; border-bottom: 1px solid #999; }
td { text-align: right; border-bottom: 1px solid #eee; vertical-align: top; }
th, td { padding: .25rem .9rem .25rem 0; }
td, th.name { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.name, .words { text-align: left; }
td.words { white-space: normal; min-width: 9rem; }
.wrap td.name { white-space: normal; min-width: 6rem; overflow-wrap: anywhere; }
td.long { white-space: normal; min-width: 14rem; max-width: 40rem; overflow-wrap: anywhere; text-align: left; }
.seed td { color: var(--quiet); border-bottom-color: #f5f5f5; }
.seed b { font-weight: normal; }
.seed td.name { padding-left: 1.2rem; }
i { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .4em; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.track { position: relative; width: 10rem; height: 1.2rem; color: var(--quiet); font-weight: normal; }
.track span { position: absolute; top: 0; }
.track .half { height: 100%; border-left: 1px dashed #bbb; }
.track .length { top: 10%; height: 80%; width: 2px; background: #777; }
.track .range { top: calc(50% - 1px); height: 2px; }
.track .dot { top: calc(50% - 4.5px); width: 9px; height: 9px; margin-left: -4.5px; border-radius: 50%; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem 2.5rem; }
.figures > div { min-width: 0; }
figure { margin: 0; max-width: 34rem; display: flex; flex-direction: column; justify-content: space-between; }
figure.top { justify-content: flex-start; }
figcaption { font-size: .88rem; line-height: 1.4; margin-bottom: .4rem; }
figcaption b { color: var(--ink); }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: var(--font); }
.bar { width: 16rem; max-width: 40vw; }
.bar span { display: block; height: .8rem; margin-top: .3rem; background: #9ecae1; min-width: 1px; }
summary { cursor: pointer; color: var(--quiet); margin: .5rem 0; }
ul.plain { list-style: none; padding: 0; }
.pair { border-bottom: 1px solid #eee; max-width: 60rem; }
.pair summary { color: var(--ink); margin: .35rem 0; }
.pair summary b { display: inline-block; min-width: 3.6rem; font-variant-numeric: tabular-nums; }
.pair > div { margin: .5rem 0 1rem; }
.text { white-space: pre-wrap; unicode-bidi: isolate; margin: .2rem 0; max-height: 22rem; overflow-y: auto; }
.turn { border-left: 3px solid var(--line); padding-left: .9rem; margin: .5rem 0; font-size: .93rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: .5rem 1.5rem; }
@media (max-width: 40rem) { body { padding: 1rem; } table { font-size: .85rem; } .track { width: 7rem; } }
@media print {
  html { font-size: 10.5px; } body { max-width: none; padding: 0; font-size: 1rem; }
  figure, tr, .pair, .turn { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .tall, .text { max-height: none; } .wide { overflow: visible; } nav { display: none; }
}
"""
