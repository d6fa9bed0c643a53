"""The report's page as a Jinja template: a module, so that an edit reruns the stage like any other edit of code."""

from rewardline.report.css import STYLE
from rewardline.report.macros import MACROS

_HEADER = """
<header>
<h1>Reward model report</h1>
{% if subjects %}<p class="quiet">{{ subjects|join("; ") }}.</p>{% endif %}
{% for test in tests[:4] %}
<p class="verdict">{{ test.verdict }}</p>
{% endfor %}
{% if tests|length > 4 %}
<p class="quiet">The verdicts on the other {{ tests|length - 4 }} benchmarks stand in their sections.</p>
{% endif %}
{% if looks %}
<div class="look"><b>Worth a look</b><ul>
{% for look in looks[:8] %}
<li>{{ look }}</li>
{% endfor %}
</ul>
{% if looks|length > 8 %}
<details><summary>{{ looks|length - 8 }} more</summary><ul>
{% for look in looks[8:] %}
<li>{{ look }}</li>
{% endfor %}
</ul></details>
{% endif %}
</div>
{% endif %}
<p class="quiet">A reward model gives each answer a score. It is right about a pair when the answer that was chosen
scores higher than the one that was rejected; accuracy is the share of pairs that it is right about, ties half.
Intervals are 95%, from resampling whole prompts: they say how far chance in the choice of test prompts can move a
number.</p>
<nav>
{% if tests|length > 1 %}<a href="#overview">Overview</a>{% endif %}
{% for test in tests %}
<a href="#{{ test.anchor }}">{{ test.title|sentence }}</a>
{% endfor %}
{% if suspects %}<a href="#suspects">Labels to check</a>{% endif %}
{% if curves or drifts %}<a href="#training">Training</a>{% endif %}
{% if mixtures or tokens %}<a href="#data">Data</a>{% endif %}
{% if trainings %}<a href="#provenance">Provenance</a>{% endif %}
</nav>
</header>
"""

_OVERVIEW = """
{% if tests|length > 1 %}
<section id="overview">
<h2>Overview</h2>
<p>Accuracy with its 95% interval. Compare within a column: each column is a test of its own.</p>
<div class="wide"><table>
<thead><tr><th class="name">run</th>{% for test in tests %}<th>{{ test.title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for colour, name, cells in matrix %}
<tr><td class="name">{{ dot(colour) }}{{ name }}</td>{% for cell in cells %}<td>{{ rates(cell) }}</td>{% endfor %}</tr>
{% endfor %}
<tr class="seed"><td class="name">length only</td>
{% for test in tests %}<td>{{ test.board.entries[0].total.length|percent }}</td>{% endfor %}
</tr>
</tbody></table></div>
</section>
{% endif %}
"""

_TEST = """
{% for test in tests %}
{% set several = test.board.entries|length > 1 %}
<section id="{{ test.anchor }}">
<h2>{{ test.title|sentence }}</h2>
{% if loop.index > 4 %}<p>{{ test.verdict }}</p>{% endif %}
<div class="wide"><table>
<thead><tr><th class="name">run</th><th>accuracy</th>
<th><div class="track"><span style="left:0">{{ "%.0f"|format(100 * test.track[0]) }}%</span>
<span style="right:0">{{ "%.0f"|format(100 * test.track[1]) }}%</span></div></th>
<th>length<br>only</th><th>pairs</th><th>loss</th><th>chosen<br>mean</th><th>rejected<br>mean</th>
{% if several %}<th class="words">against the best</th>{% endif %}
</tr></thead>
<tbody>
{% for row in test.rows %}
<tr{% if row.is_seed %} class="seed"{% endif %}><td class="name">{{ dot(row.colour) }}{{ row.name }}</td>
<td>{{ rates(row.rates) }}</td><td>{{ track(row.bar, test.half, row.colour) }}</td>
<td>{{ row.rates.length|percent }}</td><td>{{ row.rates.n|count }}</td>
{% for number in row.numbers %}<td>{{ number }}</td>{% endfor %}
{% if several %}<td class="words">{{ row.standing }}</td>{% endif %}
</tr>
{% endfor %}
</tbody></table></div>
{% if loop.first %}
<p class="quiet">Dot and line: accuracy and its interval. Grey bar: length only, the accuracy of always picking the
longer answer. Dashed: 50%, coin flips.
{% if test.rows|selectattr("is_seed")|list %}
The row above its seeds has the means of their accuracies and of their intervals.
{% endif %}
{% if several and test.paired %}
Against the best: the difference in accuracy pair by pair, in points, with its 95% interval; within noise where that
holds 0. It is sharper than two intervals side by side, as all runs judge the same pairs; for a run with several
seeds it has the chance between seeds in it, which few seeds leave wide.
{% elif several %}
Overlapping intervals mean that this table does not tell two runs apart, not that they are equal: both judge the same
pairs, so a comparison pair by pair may still find a difference.
{% endif %}
</p>
{% endif %}
{% if test.differences %}
<details><summary>All differences, pair by pair</summary>
<div class="wide"><table><thead><tr><th class="name">run</th><th class="name">against</th><th>points</th>
<th>95% interval</th><th></th><th class="words"></th></tr></thead><tbody>
{% for row in test.differences %}
<tr><td class="name">{{ row.shown.first }}</td><td class="name">{{ row.shown.second }}</td>
<td><b>{{ row.shown.difference|points }}</b></td><td>{{ row.shown|interval_points }}</td>
<td>{{ track(row.bar + (-1,), test.zero, "#333333") }}</td>
<td class="words">{{ "within noise" if row.shown.within_noise }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if test.undrawn %}<p class="quiet">... and {{ test.undrawn }} more in <code>comparisons.json</code>.</p>{% endif %}
</details>
{% endif %}
{% if test.legend and (test.judged.figures or test.subsets) %}
{{ swatches(test.legend) }}
{% if test.board.entries|length > test.legend|length %}
<p class="quiet">The figures show the best {{ test.legend|length }} of {{ test.board.entries|length }} runs.</p>
{% endif %}
{% endif %}
{% if test.judged.figures %}{{ figures(test.judged.figures) }}{% endif %}
{% if test.judged.head %}
{{ table(test.judged.head, test.judged.rows) }}
<details><summary>What these numbers mean</summary>
<ul class="quiet">
<li><b>Sure on average</b>: the mean probability that the run gives to the answers it prefers. Far above
<b>right</b> it is overconfident. The <b>calibration error</b> is the mean distance between the two over ten bins.</li>
<li><b>Best temperature</b>: margins divided by it fit the labels best; above 1 the run is too sure, below 1 too modest.
<b>Error at it</b> is the calibration error that is left then.</li>
<li><b>Length taken out</b>: the accuracy with pairs whose longer answer is chosen and pairs whose shorter one is
counting the same. A run that sees only length gets 50%.</li>
<li><b>Score follows length</b>: the rank correlation of differences in score and in length, from &minus;1 to 1.</li>
<li><b>Best of several</b>: how often the best of three or more answers to a prompt has the highest score, and what
<b>chance</b> would give.</li>
</ul></details>
{% endif %}
{% if test.judged.sections %}
<h3>As published</h3>
<p>The benchmark's own figures, by its own arithmetic: compare these with a public leaderboard.</p>
{{ table(*test.judged.sections) }}
{% endif %}
{% if test.subsets %}
<h3>By subset</h3>
<div class="figures">
{{ figure(test.subsets.figure, "top") }}
<div>
<div class="wide tall"><table class="wrap">{{ head(["subset", "pairs"] + test.subsets.names + ["length only"]) }}<tbody>
{% for name, n, cells, length in test.subsets.rows %}
<tr><td class="name">{{ name }}</td><td>{{ n|count }}</td>
{% for cell in cells %}<td>
{% if cells|length == 1 %}{{ rates(cell) }}{% elif cell %}{{ cell.accuracy|percent }}{% else %}-{% endif %}
</td>{% endfor %}
<td>{{ length|percent }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if test.subsets.left_out %}
<p class="quiet">... and {{ test.subsets.left_out|count }} stronger subsets; all are in <code>metrics.json</code>.</p>
{% endif %}
</div>
</div>
{% endif %}
{% if test.distributions %}
<h3>Scores and margins</h3>
<details{% if loop.first %} open{% endif %}><summary>How the scores lie</summary>
<p>The further apart the two humps, the better; only differences count, the zero point is arbitrary. Margins left of 0,
dark, are the pairs that a run gets wrong. The outermost bars hold all that lies beyond. Of several seeds the first is
shown.</p>
{{ swatches([(chosen, "chosen"), (rejected, "rejected"), ("#777777", "margin: chosen minus rejected")]) }}
{{ figures(test.distributions[:6]) }}
{% if test.distributions|length > 6 %}
<details><summary>The other runs</summary>
{{ figures(test.distributions[6:]) }}
{% if test.left_out %}<p class="quiet">... and {{ test.left_out }} more runs.</p>{% endif %}
</details>
{% endif %}
</details>
{% endif %}
{% if test.hardest %}
<h3>The hardest pairs</h3>
<p>What <b>{{ test.hardest_run }}</b> gets most wrong, by its margin:
{{ "hacks that it prefers by far." if test.probes else "mistakes of the model, or labels that are wrong." }}
Open a line to read the pair.</p>
{% for one in test.hardest %}{{ example(one) }}{% endfor %}
{% endif %}
</section>
{% endfor %}
"""

_SUSPECTS = """
{% if suspects %}
<section id="suspects">
<h2>Labels to check</h2>
<p>Pairs whose rejected answer most of the runs prefer, and by far: the ones most likely mislabelled if the runs
are good, and what they all find hard if not. How many of the runs say so stands first.
{% if suspects_found > suspects|length %} These are the first {{ suspects|length }} of
{{ suspects_found|count }}; all are in <code>suspects.parquet</code>.{% endif %}</p>
{% for one in suspects %}{{ example(one) }}{% endfor %}
</section>
{% endif %}
"""

_TRAINING = """
{% if curves or drifts %}
<section id="training">
<h2>Training</h2>
{% if curves %}
{% if legend|length > 1 %}{{ swatches(legend) }}{% endif %}
{{ figures(curves) }}
{% endif %}
{% if drifts %}
<h3>Do the scores drift?</h3>
<p>Training ties down only the difference between two scores, so the means of both may wander together. That costs no
accuracy, but whoever uses the score itself (reinforcement learning, a threshold) wants it near 0, and
<code>centering</code> holds it there.</p>
{{ swatches([(chosen, "chosen"), (rejected, "rejected")]) }}
{{ figures(drifts) }}
{% endif %}
</section>
{% endif %}
"""

_DATA = """
{% if mixtures or tokens %}
<section id="data">
<h2>Data</h2>
{% for one in mixtures %}
<h3>{{ one.name }}</h3>
<div class="wide"><table><tbody>
{% for bar in one.funnel %}
<tr><td class="name">{{ bar.label }}</td><td>{{ bar.value }}</td>
<td><div class="bar"><span style="width:{{ bar.width }}%"></span></div></td></tr>
{% endfor %}
</tbody></table></div>
{% if one.facts %}<p>{{ one.facts|join(" ") }}</p>{% endif %}
{% if one.rejects %}
<p>What was left out, and why; <code>rejects.parquet</code> names each row.</p>
<div class="wide"><table>
<thead><tr><th class="name">reason</th><th>rows</th><th>of all rows</th>
{% if one.pair_rejects %}<th>pairs of other rows</th>{% endif %}
<th class="words">for example</th></tr></thead>
<tbody>
{% for reject in one.rejects %}
<tr><td class="name">{{ reject.reason }}</td><td>{{ reject.rows }}</td><td>{{ reject.share }}</td>
{% if one.pair_rejects %}<td>{{ reject.pairs }}</td>{% endif %}
<td class="long">
{% for where, what in reject.examples %}
<div>{{ where }} <small class="detail">{{ what }}</small></div>
{% endfor %}
</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% for title, cells, rows in one.tables %}
<details><summary>{{ one.name }} {{ title }}</summary>{{ table(cells, rows) }}</details>
{% endfor %}
{% endfor %}
{% if tokens %}
<h3>Tokens</h3>
<p>A comparison is a prompt with all its answers. What its answers have in common at the start, the shared prefix, is
stored and computed once; saved is what that spares against each pair written out in full. Truncated pairs lost the
oldest part of their prompt to the length limit; dropped pairs did not fit, or became equal as tokens.</p>
{{ table(*tokens) }}
{% endif %}
</section>
{% endif %}
"""

_PROVENANCE = """
{% if trainings %}
<section id="provenance">
<h2>Provenance</h2>
<p>What is needed to repeat each run.</p>
{{ table(*trainings) }}
{% for part in provenance %}
<details{% if loop.first %} open{% endif %}><summary>{{ part.title|sentence }}</summary>
{% if part.different %}
<p>What differs between the runs:</p>
{{ table([part.title] + trained, part.different) }}
{% endif %}
{% if part.common %}
{% if part.different %}<p>What all runs have in common:</p>{% endif %}
<div class="wide"><table><tbody>
{% for key, value in part.common %}
<tr><td class="name">{{ key }}</td><td class="long">{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
</details>
{% endfor %}
</section>
{% endif %}
"""

TEMPLATE = f"""{MACROS.strip()}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Reward model report</title>
<style>{STYLE}</style>
</head>
<body>
{_HEADER}
<main>
{_OVERVIEW}{_TEST}{_SUSPECTS}{_TRAINING}{_DATA}{_PROVENANCE}
</main>
</body>
</html>
"""
"""What `rewardline.report` fills in; its variables are the arguments of `render` there. Autoescaping must be on."""
