"""What the parts of the report's template share, as Jinja macros."""

MACROS = """
{% macro dot(colour) %}<i style="background:{{ colour }}"></i>{% endmacro %}
{% macro swatches(legend) %}
<p class="legend">
{% for colour, name in legend %}<span>{{ dot(colour) }}{{ name }}</span> {% endfor %}
</p>
{% endmacro %}
{% macro figure(one, kind="") %}
<figure class="{{ kind }}"><figcaption><b>{{ one.title }}</b> {{ one.caption }}</figcaption>{{ one.svg }}</figure>
{% endmacro %}
{% macro figures(some) %}
<div class="figures">
{% for one in some %}{{ figure(one) }}{% endfor %}
</div>
{% endmacro %}
{% macro head(cells) %}
<thead><tr>
{% for cell in cells %}<th{% if loop.first %} class="name"{% endif %}>{{ cell }}</th>{% endfor %}
</tr></thead>
{% endmacro %}
{% macro table(cells, rows) %}
<div class="wide"><table>{{ head(cells) }}<tbody>
{% for row in rows %}
<tr>{% for cell in row %}<td{% if loop.first %} class="name"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro text(one) %}
<div class="text" dir="auto">{{ one.shown }}
{%- if one.more %} <small>... and {{ one.more|count }} more characters</small>{% endif %}</div>
{% endmacro %}
{% macro example(one) %}
<details class="pair"><summary><b>{{ one.number }}</b> <bdi>{{ one.opening }}</bdi>
<small class="detail">{{ one.facts }}</small></summary>
<div>
{% for role, turn in one.turns %}<div class="turn"><small>{{ role }}</small>{{ text(turn) }}</div>{% endfor %}
<div class="answers">
{% for answer, colour in [(one.answers[0], "#0072b2"), (one.answers[1], "#d55e00")] %}
<div class="turn" style="border-color:{{ colour }}"><b>{{ answer.label }}</b> <small>{{ answer.note }}</small>
{{ text(answer.text) }}</div>
{% endfor %}
</div></div></details>
{% endmacro %}
{% macro rates(one) %}
{% if one %}<b>{{ one.accuracy|percent }}</b> <small>{{ one|span }}</small>{% else %}-{% endif %}
{% endmacro %}
{% macro track(bar, half, colour) %}
<div class="track">
{% if bar %}
{% set start, size, place, length = bar %}
<span class="half" style="left:{{ half }}%"></span>
{% if length >= 0 %}<span class="length" style="left:{{ length }}%"></span>{% endif %}
<span class="range" style="left:{{ start }}%;width:{{ size }}%;background:{{ colour }}"></span>
<span class="dot" style="left:{{ place }}%;background:{{ colour }}"></span>
{% endif %}
</div>
{% endmacro %}
"""
