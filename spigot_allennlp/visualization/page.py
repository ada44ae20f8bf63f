"""
HTML pages that need nothing but themselves.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Optional

from spigot_allennlp.visualization.analysis import Analysis
from spigot_allennlp.visualization.comparison import Score
from spigot_allennlp.visualization.drawing import PENS, draw_sentence

# The browser itself then fetches nothing and runs nothing, whatever words a corpus has.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

_STYLE = """
body { font: 16px/1.5 system-ui, Arial, sans-serif; color: #1b1b1b; margin: 0 auto; padding: 1rem; max-width: 1400px }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere }
p { margin: .25rem 0; overflow-wrap: anywhere }
.note { color: #595959; max-width: 60rem }
.scroll { overflow-x: auto }
.sentence .scroll { border: 1px solid #ddd; margin: .25rem 0 }
.sentence svg { display: block }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .1rem .45rem; text-align: right; border: 1px solid #ddd }
th { font-weight: 600; background: #f5f5f5 }
thead th:first-child, tbody th { text-align: left }
.upright { font-size: .8125rem }
.upright :is(th, td) { padding: .1rem .3rem }
.upright thead th:not(:first-child) { writing-mode: vertical-rl; text-align: left }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: center }
.legend svg { vertical-align: middle }
.right { color: #333 } .wrong { color: #b04a00; font-weight: 600 }
#view-predicted:checked ~ main .missed, #view-gold:checked ~ main .spurious { display: none }
#view-predicted:checked ~ main :is(.gold-label, .not-equal),
#view-gold:checked ~ main :is(.predicted-label, .not-equal) { display: none }
"""

_VIEWS = (("both", "both"), ("predicted", "predicted alone"), ("gold", "gold alone"))


def page(title: str, content: Iterable[str], with_gold: bool) -> str:
    """
    # Parameters

    title : `str`
        Title of the page.
    content : `Iterable[str]`
        Sections, as HTML.
    with_gold : `bool`
        Whether drawings have gold arcs beside predicted ones: a legend and a switch between them go first.
    """
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1>",
    ]
    if with_gold:
        # Before what they switch: CSS does it, without a script.
        for value, text in _VIEWS:
            checked = " checked" if value == "both" else ""
            lines.append(f'<input type="radio" name="view" id="view-{value}"{checked}>')
            lines.append(f'<label for="view-{value}">{text}</label>')
        lines.append(_legend())
    return "\n".join([*lines, "<main>", *content, "</main></body></html>\n"])


def sentence_section(number: int, predicted: Analysis, gold: Optional[Analysis], score: Optional[Score] = None) -> str:
    """
    One instance: its id, its labels and its drawings.

    # Parameters

    number : `int`
        Number of the sentence in its file, from 1.
    predicted : `Analysis`
        Predicted annotation.
    gold : `Analysis`, optional
        Gold annotation; `None` where there is none.
    score : `Score`, optional (default = `None`)
        Score of the prediction.
    """
    heading = [str(number), predicted.sentence_id or (gold.sentence_id if gold else None)]
    if score is not None:
        heading.append(f"{score.measure} {score.value:.3f}")
    lines = [f'<section class="sentence" id="sentence-{number}"><h3>{escape(" · ".join(filter(None, heading)))}</h3>']
    if predicted.label is not None:
        lines.append(_label_line(predicted, None if gold is None else gold.label))
    for name, sentence in predicted.sentences.items():
        if name:
            lines.append(f'<p class="note">{escape(name.rstrip("_"))}</p>')
        gold_sentence = None if gold is None else gold.sentences.get(name)
        lines.append(f'<div class="scroll">{draw_sentence(sentence, gold_sentence)}</div>')
    return "\n".join([*lines, "</section>"])


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    shades: Optional[Sequence[Sequence[float]]] = None,
    upright: bool = False,
) -> str:
    """
    # Parameters

    header : `Sequence[str]`
        Names of the columns.
    rows : `Iterable[Sequence[Any]]`
        Rows whose first cell is a name; floats are rounded.
    shades : `Sequence[Sequence[float]]`, optional (default = `None`)
        Shade of each cell after the names, from 0 to 1 (darkest).
    upright : `bool`, optional (default = `False`)
        Whether the names of the columns stand upright, so that many columns fit beside each other.
    """
    lines = ["<thead><tr>", *(f'<th scope="col">{escape(name)}</th>' for name in header), "</tr></thead><tbody>"]
    for number, (name, *values) in enumerate(rows):
        cells = [f'<th scope="row">{escape(str(name))}</th>']
        for column, value in enumerate(values):
            shade = shades[number][column] if shades is not None else 0
            style = f' style="background: rgb(0 114 178 / {shade:.2f})"' if shade else ""
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            cells.append(f"<td{style}>{escape(text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    style = ' class="upright"' if upright else ""
    return f'<div class="scroll"><table{style}>{"".join(lines)}</tbody></table></div>'


def _label_line(predicted: Analysis, gold: Optional[str]) -> str:
    probability = predicted.probabilities.get(predicted.label)
    certain = "" if probability is None else f" ({probability:.2f})"
    state = "wrong" if gold is not None and gold != predicted.label else "right"
    line = f'label <b class="{state}">{escape(predicted.label)}</b>{certain}'
    if gold is not None:
        line += f", gold <b>{escape(gold)}</b> {'✗' if state == 'wrong' else '✓'}"
    return f"<p>{line}</p>"


def _legend() -> str:
    entries = []
    for status, pen in PENS.items():
        if status != "predicted":
            line = (
                '<svg width="40" height="10" aria-hidden="true"><path d="M0,5 H40" '
                f'stroke="{pen.color}" stroke-width="{pen.width}" stroke-dasharray="{pen.dashes}"/></svg>'
            )
            entries.append(f"<span>{line} {escape(pen.meaning)}</span>")
    return f'<p class="legend">{"".join(entries)}</p>'
