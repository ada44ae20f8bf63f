"""
The figures of a study, drawn with matplotlib.
"""

import math
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from allennlp.common.checks import ConfigurationError

from spigot_allennlp.commands.study.design import Design
from spigot_allennlp.commands.study.design import label as setting_label
from spigot_allennlp.commands.study.report import (
    Result,
    Setting,
    best_settings,
    settings_of,
)
from spigot_allennlp.commands.study.validation_metric import ValidationMetric

# What models here call the quality of their latent structure.
LATENT_METRICS = ("v_measure", "uas")

_FIGURES = ("learning_curves.png", "step_size.png", "latent_structure.png")

# Those of Okabe and Ito, told apart by color-blind readers, without the yellow, which is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# More lines than this cannot be told apart.
_MAX_LINES = 16


class Style(NamedTuple):
    """Of the lines and markers of one name, or one of its settings, in all figures alike."""

    color: str
    linestyle: str
    marker: str

    @classmethod
    def number(cls, index: int) -> "Style":
        return cls(
            _COLORS[index % len(_COLORS)],
            _LINES[index // len(_COLORS) % len(_LINES)],
            _MARKERS[index % len(_MARKERS)],
        )


def draw_figures(
    directory: Path,
    results: List[Result],
    design: Design,
    latent_metric: str = None,
    downstream_metric: str = None,
) -> List[Path]:
    """
    Learning curves, the score against the step size, and the quality of the latent structure against the quality of
    what depends on it: those for which there is something to draw.

    # Parameters

    directory : `Path`
        Directory of the study.
    results : `List[Result]`
        Results of the runs.
    design : `Design`
        Runs and configs of the study.
    latent_metric : `str`, optional (default = the first of `LATENT_METRICS` that there is)
        Metric of the latent structure's quality.
    downstream_metric : `str`, optional (default = the validation metric)
        Metric of the task's quality.

    # Returns

    `List[Path]`

    # Errors

    `ConfigurationError` for a metric that no run has. `ImportError` without matplotlib.
    """
    import matplotlib.figure  # Not needed for anything else, and slow to import.

    varying, metric = design.varying(), design.metric
    settings = settings_of(results)
    if not settings:
        _remove_figures(directory)
        return []
    best = best_settings(settings, metric)
    styles = {setting.name: Style.number(index) for index, setting in enumerate(best)}
    available = {name for setting in settings for name in _validation_metrics(setting)}
    for name in (latent_metric, downstream_metric):
        if name is not None and name not in available:
            raise ConfigurationError(
                f"no run has the validation metric {name!r}; valid: {', '.join(sorted(available))}"
            )
    _remove_figures(directory)
    downstream = downstream_metric or metric.name
    known = [name for name in LATENT_METRICS if name in available and name != downstream]
    latent = latent_metric or (known[0] if known else None)

    def figure(name: str, title: str, x: str, y: str, draw: Callable[[Any], None]) -> Path:
        canvas = matplotlib.figure.Figure(figsize=(9, 5), layout="constrained")
        axes = canvas.add_subplot(xlabel=x, ylabel=y)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        draw(axes)
        # Lines with error bars before the horizontal ones: matplotlib has them the other way round.
        entries = sorted(zip(*axes.get_legend_handles_labels()), key=lambda entry: hasattr(entry[0], "get_xdata"))
        canvas.legend(*zip(*entries), loc="outside right upper", fontsize="small", handlelength=3.5)
        directory.mkdir(exist_ok=True)
        canvas.savefig(directory / name, dpi=150)
        return directory / name

    score = f"validation {metric.name}"
    paths = [
        figure(
            "learning_curves.png",
            "Best setting of each: mean and standard deviation over seeds",
            "epoch",
            score,
            lambda axes: _learning_curves(axes, best, styles, metric, varying),
        )
    ]
    lines, references, crowded = _by_step_size(settings, best, varying, metric)
    if lines:
        paths.append(
            figure(
                "step_size.png",
                "At the best epoch: mean and standard deviation over seeds"
                + (", best of the other settings" if crowded else ""),
                "step size",
                score,
                lambda axes: _step_sizes(axes, lines, references, styles, metric),
            )
        )
    if latent is not None:
        paths.append(
            figure(
                "latent_structure.png",
                "A point for each run at its best epoch; large: mean of the best setting",
                f"validation {latent} (latent structure)",
                f"validation {downstream} (downstream)",
                lambda axes: _scatter(axes, settings, best, styles, latent, downstream),
            )
        )
    return paths


def _remove_figures(directory: Path) -> None:
    """Those of an earlier command, with other runs and metrics."""
    for name in _FIGURES:
        (directory / name).unlink(missing_ok=True)


def _validation_metrics(setting: Setting) -> List[str]:
    prefix = "best_validation_"
    return [name[len(prefix) :] for result in setting.results for name in result.final if name.startswith(prefix)]


def _learning_curves(
    axes: Any, best: List[Setting], styles: Dict[str, Style], metric: ValidationMetric, varying: List[str]
) -> None:
    for setting in best:
        values: Dict[int, List[float]] = {}
        for result in setting.results:
            for epoch in result.epochs:
                value = epoch.get(f"validation_{metric.name}")
                if value is not None and math.isfinite(value):
                    values.setdefault(epoch["epoch"], []).append(value)
        epochs = sorted(values)
        means = [statistics.fmean(values[epoch]) for epoch in epochs]
        low, high = zip(*(_bounds(values[epoch]) for epoch in epochs)) if epochs else ((), ())
        style = styles[setting.name]
        label = setting_label(setting.name, setting.settings, varying)
        marker = style.marker if len(epochs) == 1 else None
        axes.plot(epochs, means, color=style.color, linestyle=style.linestyle, marker=marker, label=label)
        axes.fill_between(epochs, low, high, color=style.color, alpha=0.12, linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _by_step_size(
    settings: List[Setting], best: List[Setting], varying: List[str], metric: ValidationMetric
) -> Tuple[Dict[Tuple[str, str], Dict[float, Setting]], List[Setting], bool]:
    """
    The settings by their step sizes: a line for each name and combination of its other settings, or, if they are too
    many, for each name, with the best of the other settings. And the best settings of those without a step
    size; and whether the lines were too many.
    """
    sizes = {
        setting.name: {s.settings.get("step_size") for s in settings if s.name == setting.name} for setting in best
    }
    swept = {name for name, values in sizes.items() if len(values) > 1}
    others = [name for name in varying if name != "step_size"]

    def lines(label: Callable[[Setting], str]) -> Dict[Tuple[str, str], Dict[float, Setting]]:
        found: Dict[Tuple[str, str], Dict[float, Setting]] = {}
        for setting in settings:
            if setting.name in swept:
                line = found.setdefault((setting.name, label(setting)), {})
                size = setting.settings["step_size"]
                if size not in line or setting.rank(metric) > line[size].rank(metric):
                    line[size] = setting
        return found

    each = lines(lambda setting: setting_label(setting.name, setting.settings, others))
    references = [setting for setting in best if setting.name not in swept]
    crowded = len(each) + len(references) > _MAX_LINES
    return lines(lambda setting: setting.name) if crowded else each, references, crowded


def _step_sizes(
    axes: Any,
    lines: Dict[Tuple[str, str], Dict[float, Setting]],
    references: List[Setting],
    styles: Dict[str, Style],
    metric: ValidationMetric,
) -> None:
    name = f"best_validation_{metric.name}"
    split = len(lines) > len({name for name, _ in lines})
    for index, ((owner, label), line) in enumerate(lines.items()):
        # Several lines of a name have to be told apart, too.
        style = Style.number(index) if split else styles[owner]
        points = [(size, line[size]) for size in sorted(line) if line[size].values(name)]
        axes.errorbar(
            [size for size, _ in points],
            [setting.mean(name) for _, setting in points],
            yerr=_bars([setting.values(name) for _, setting in points]),
            color=style.color,
            linestyle=style.linestyle,
            marker=style.marker,
            markersize=5,
            capsize=3,
            label=label,
        )
    for index, setting in enumerate(references):
        style = Style.number(len(lines) + index) if split else styles[setting.name]
        mean = setting.mean(name)
        if mean is not None:
            axes.axhline(mean, color=style.color, linestyle=style.linestyle, linewidth=1, label=setting.name)
    axes.set_xscale("log")
    # matplotlib would label powers of ten, whether they were tried or not.
    sizes = sorted({size for line in lines.values() for size in line})
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()


def _scatter(
    axes: Any, settings: List[Setting], best: List[Setting], styles: Dict[str, Style], latent: str, downstream: str
) -> None:
    names = [f"best_validation_{latent}", f"best_validation_{downstream}"]
    for setting in settings:
        style = styles[setting.name]
        points = [[result.final.get(name) for name in names] for result in setting.results]
        points = [point for point in points if None not in point]
        if points:
            axes.plot(*zip(*points), linestyle="", marker=style.marker, color=style.color, markersize=4, alpha=0.35)
    for setting in best:
        x, y = (setting.values(name) for name in names)
        if x and y:
            style = styles[setting.name]
            axes.errorbar(
                statistics.fmean(x),
                statistics.fmean(y),
                xerr=_bars([x]),
                yerr=_bars([y]),
                linestyle="",
                marker=style.marker,
                color=style.color,
                markeredgecolor="white",
                markersize=10,
                elinewidth=1,
                label=setting.name,
            )


def _bounds(values: Sequence[float]) -> Tuple[float, float]:
    """
    A standard deviation below and above the mean; not below 0 or above 1 where no value is. (The bar of a loss that
    happens to be below 1 then ends there too early.)
    """
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    low, high = mean - spread, mean + spread
    return max(low, 0.0) if min(values) >= 0 else low, min(high, 1.0) if max(values) <= 1 else high


def _bars(groups: Sequence[Sequence[float]]) -> List[List[float]]:
    """The lengths below and above the means, as matplotlib takes them."""
    means = [statistics.fmean(values) for values in groups]
    bounds = [_bounds(values) for values in groups]
    return [
        [mean - low for mean, (low, _) in zip(means, bounds)],
        [high - mean for mean, (_, high) in zip(means, bounds)],
    ]
