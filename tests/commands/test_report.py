"""`allennlp report`: what a model gets right and wrong on a file, as a page; and the page in a browser."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

import pytest
from allennlp.commands import main
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.commands.report import write_report
from spigot_allennlp.visualization import page as sentence_page
from spigot_allennlp.visualization import read_predictions, sentence_section
from spigot_allennlp.visualization.report import confusion_table
from tests.conftest import FIXTURES, PROJECT_ROOT
from tests.training.small import configuration, write_corpus

PARSER = FIXTURES / "models" / "syntactic_parser.tar.gz"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# What a browser makes of a page, in each of its views; the page itself runs no scripts.
HARNESS = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="page" srcdoc="{page}" width="{width}" height="700"></iframe>
<pre id="found"></pre><script>
document.getElementById("page").onload = event => {{
  const inner = event.target.contentDocument;
  const found = {{overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth, visible: {{}}}};
  for (const view of ["both", "predicted", "gold"]) {{
    inner.getElementById("view-" + view).checked = true;
    found.visible[view] = {{}};
    for (const status of ["correct", "mislabelled", "spurious", "missed", "predicted-label", "gold-label"]) {{
      const shown = [...inner.getElementsByClassName(status)].filter(element => element.getClientRects().length > 0);
      found.visible[view][status] = shown.length;
    }}
  }}
  const wide = [...inner.querySelectorAll(".sentence .scroll")];
  const tables = [...inner.querySelectorAll(".scroll:has(table)")];
  found.cut = tables.filter(element => element.scrollWidth > element.clientWidth).length;
  found.scrolls = wide.filter(element => element.scrollWidth > element.clientWidth).length;
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def gold(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gold") / "gold.conllu"
    path.write_text("\n\n".join((FIXTURES / "graphs" / "dev.conllu").read_text().split("\n\n")[:12]) + "\n\n")
    return path


@pytest.fixture(scope="module")
def graph_parser(tmp_path_factory) -> Dict[str, Path]:
    """A `syntactic_then_semantic` of a few steps, and its corpus."""
    directory = tmp_path_factory.mktemp("graphs")
    corpus = write_corpus(directory / "corpus.conllu")
    config = configuration(corpus, trainer={"num_epochs": 12, "optimizer": {"type": "adam", "lr": 0.05}})
    train_model(Params(config), str(directory / "run"))
    return {"archive": directory / "run" / "model.tar.gz", "corpus": corpus}


def count(page: str, status: str) -> int:
    return page.count(f'class="displacy-arrow {status}"')


def metrics_of(page: str) -> Dict[str, float]:
    section = page.partition("<h2>Metrics</h2>")[2].partition("<h2>")[0]
    rows = re.findall(r'<th scope="row">(\w+)</th><td>([^<]+)</td>', section)
    return {name: float(value) for name, value in rows}


def test_on_the_command_line(gold, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "spigot_allennlp", "report", PARSER, gold, "-o", "new/report.html", "--num-worst", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    metrics = write_report(str(PARSER), str(gold), str(tmp_path / "all.html"), num_worst=100, batch_size=5)
    assert metrics_of(page) == {name: pytest.approx(value, abs=1e-4) for name, value in metrics.items()}
    assert page.count("<section") == 3

    everything = (tmp_path / "all.html").read_text(encoding="utf-8")
    words = sum(line[:1].isdigit() and "-" not in line.split("\t")[0] for line in gold.read_text().splitlines())
    right = count(everything, "correct")
    assert right + count(everything, "mislabelled") + count(everything, "spurious") == words
    assert right / words == pytest.approx(metrics["las"])
    worst = re.findall(r"attachment score (\S+)<", everything)
    assert worst == sorted(worst) and len(worst) == 12


def test_of_graphs(graph_parser, tmp_path):
    output = tmp_path / "report.html"
    metrics = write_report(str(graph_parser["archive"]), str(graph_parser["corpus"]), str(output), num_worst=8)
    page = output.read_text(encoding="utf-8")
    graphs = "".join(re.findall(r'<g class="graph".*?</svg>', page))
    right, labels, spurious, missed = (
        graphs.count(f'class="displacy-arrow {status}"') for status in ("correct", "mislabelled", "spurious", "missed")
    )
    assert metrics["labeled_f1"] == pytest.approx(2 * right / (2 * (right + labels) + spurious + missed))
    assert metrics["unlabeled_f1"] == pytest.approx(2 * (right + labels) / (2 * (right + labels) + spurious + missed))
    for heading in ("Metrics", "By length", "graph's labels", "tree's relations", "Trees", "Worst"):
        assert heading in page
    assert "SyntacticThenSemantic" in page


def test_of_classes(tmp_path):
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("1\tgood\n0\tbad\n1\tgood film\n0\ta bad <film>\n")
    config = Params.from_file(
        str(PROJECT_ROOT / "training_configs" / "sentiment" / "latent.jsonnet"),
        json.dumps(
            {
                "train_data_path": str(corpus),
                "validation_data_path": str(corpus),
                "dataset_reader.tokenizer": "whitespace",
                "model.text_field_embedder.token_embedders.tokens": {"type": "embedding", "embedding_dim": 10},
                "trainer.num_epochs": 1,
                "trainer.cuda_device": -1,
            }
        ),
    )
    train_model(config, str(tmp_path / "run"))
    output = tmp_path / "report.html"
    metrics = write_report(str(tmp_path / "run" / "model.tar.gz"), str(corpus), str(output))
    page = output.read_text(encoding="utf-8")
    assert page.count('<b class="wrong">') == 4 * (1 - metrics["accuracy"])
    assert "Confusion of classes" in page and "probability of the right class" in page
    # A latent tree over each sentence, with no gold one to compare it to.
    assert count(page, "predicted") == 1 + 1 + 2 + 3
    assert "&lt;film&gt;" in page and "<input" not in page


def seen_in_a_browser(page: str, tmp_path: Path, width: int) -> Dict[str, Any]:
    """What HARNESS finds in a window of that width."""
    (tmp_path / "harness.html").write_text(HARNESS.format(page=html.escape(page), width=width), encoding="utf-8")
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", "--virtual-time-budget=5000"),
    ]
    done = subprocess.run(
        [BROWSER, *flags, (tmp_path / "harness.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout)[1]))


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_in_a_browser(graph_parser, tmp_path):
    write_report(str(graph_parser["archive"]), str(graph_parser["corpus"]), str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # Wider than the window, with words that would be scripts if they were not escaped.
    wide = {"words": ["<script>console.log(1)</script>"] * 40, "heads": [2, *range(39)]}
    section = tmp_path / "wide.jsonl"
    section.write_text(json.dumps(wide) + "\n")
    page = page.replace("</main>", sentence_section(99, read_predictions(str(section))[0], None) + "</main>")
    found = seen_in_a_browser(page, tmp_path, width=900)
    assert found["overflow"] == 0
    assert found["scrolls"] >= 1
    arcs = {status: count(page, status) for status in ("correct", "mislabelled", "spurious", "missed")}
    assert all(arcs[status] for status in ("correct", "spurious", "missed"))
    # An arc and its label each.
    for view, hidden in (("both", []), ("predicted", ["missed"]), ("gold", ["spurious"])):
        visible = found["visible"][view]
        assert {status: visible[status] for status in arcs} == {
            status: 0 if status in hidden else 2 * number for status, number in arcs.items()
        }
    labels: List[Any] = [found["visible"][view] for view in ("predicted", "gold")]
    assert labels[0]["gold-label"] == labels[1]["predicted-label"] == 0
    assert labels[0]["predicted-label"] == labels[1]["gold-label"] == arcs["mislabelled"]


@pytest.mark.parametrize(
    "option, message",
    [({"num_worst": -1}, "--num-worst is -1; valid: an integer >= 0"), ({"batch_size": 0}, "--batch-size is 0")],
)
def test_numbers_that_make_no_sense(gold, tmp_path, option, message):
    with pytest.raises(ConfigurationError, match=message):
        write_report(str(PARSER), str(gold), str(tmp_path / "report.html"), **option)


def test_damaged_data(tmp_path):
    (tmp_path / "bad.conllu").write_text("1\tStop\tstop\n")
    with pytest.raises(ConfigurationError, match=r"bad\.conllu:1: found 3 columns"):
        write_report(str(PARSER), str(tmp_path / "bad.conllu"), str(tmp_path / "report.html"))
    assert not (tmp_path / "report.html").exists()


def test_a_message_instead_of_a_traceback(gold, tmp_path, monkeypatch):
    arguments = ["report", str(PARSER), str(gold), "-o", str(tmp_path / "report.html"), "--num-worst", "-1"]
    monkeypatch.setattr(sys, "argv", ["allennlp", *arguments])
    with pytest.raises(SystemExit, match="^error: --num-worst is -1; valid: an integer >= 0"):
        main()


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_confusion_table_is_not_cut(tmp_path):
    labels = ["advcl:relcl:as_well_as", "conj:and>nsubj:pass", "nmod:in_front_of", *(f"nsubj:{n}" for n in range(17))]
    counts = Counter({(gold, predicted): 9999 for gold in [*labels, None] for predicted in labels})
    page = sentence_page("report", [confusion_table(counts)], with_gold=True)
    found = seen_in_a_browser(page, tmp_path, width=1280)
    assert page.count('<th scope="col">') == 1 + 15 + 2 + 1
    assert found["cut"] == found["overflow"] == 0
