"""Draws dashboards from what a Prometheus holds: not as Grafana does, but enough to see what a panel tells."""

import json
import math
import re
import textwrap
from datetime import datetime

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.dates import DateFormatter

import check

DARK, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#ccccdc", "#8e8e9a"
COLOURS = {"green": "#56a64b", "red": "#e02f44", "orange": "#ff780a", "blue": "#3274d9"}
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a", "#447ebc", "#c15c17"]


def human(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{value * 100:.{2 if decimals is None else decimals}f} %"
    if unit == "s":
        for limit, factor, name in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
            if value < limit:
                return f"{value * factor:.3g} {name}"
        return f"{value / 3600:.3g} h"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if abs(value) >= 10000:
        return f"{value / 1000:.3g} k"
    if decimals is not None or abs(value) >= 100:
        return f"{value:.{decimals or 0}f}"
    return f"{value:.3g}"


def legend(series, target):
    label = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: series["metric"].get(m[1], ""), target["legendFormat"])
    return label or ", ".join(f"{k}={v}" for k, v in series["metric"].items()) or "value"


def colour_of(panel, value):
    found = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            found = step["color"]
    return COLOURS.get(found, found)


def draw(prometheus, folder, begin, end, interval):
    folder.mkdir(parents=True, exist_ok=True)
    step = max(2, round((end - begin) / 250))
    for path in check.DASHBOARDS:
        dashboard = json.loads(path.read_text())
        height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"])
        figure = plt.figure(figsize=(16, height * 0.42), facecolor=DARK)
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            left, width = place["x"] / 24, place["w"] / 24
            bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
            if panel["type"] == "row":
                figure.text(left + 0.006, bottom + tall / 3, "▾ " + panel["title"], color=TEXT, size=11, weight="bold")
                continue
            figure.add_artist(plt.Rectangle((left + 0.002, bottom + 0.1 / height), width - 0.004, tall - 0.2 / height, color=PANEL, zorder=-1))
            figure.text(left + 0.007, bottom + tall - 0.8 / height, panel["title"], color=TEXT, size=9)
            box = [left + 0.035, bottom + 1.9 / height, width - 0.045, tall - 3.0 / height]
            targets = []
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", interval)
                for variable, value in check.VARIABLES.items():
                    expression = expression.replace(variable, value)
                targets.append((expression, target))
            kind = globals()["draw_" + panel["type"]]
            kind(figure, panel, box, targets, prometheus, begin, end, step)
        figure.savefig(folder / path.with_suffix(".png").name, dpi=70, facecolor=DARK)
        plt.close(figure)


def draw_stat(figure, panel, box, targets, prometheus, begin, end, step):
    defaults = panel["fieldConfig"]["defaults"]
    found = [(legend(s, t), float(s["value"][1])) for e, t in targets for s in prometheus.query(e)]
    found = [(label, value) for label, value in found if not math.isnan(value)]
    left, bottom, width, tall = box[0] - 0.03, box[1], box[2] + 0.04, box[3]
    if not found:
        figure.text(left + width / 2, bottom + tall / 3, defaults.get("noValue", "no data"), color=FAINT, size=13, ha="center")
    for n, (label, value) in enumerate(found):
        text = human(value, defaults["unit"], defaults.get("decimals"))
        for mapping in defaults["mappings"]:
            text = mapping["options"].get(f"{value:g}", {}).get("text", text)
        middle = left + width * (n + 0.5) / len(found)
        figure.text(middle, bottom + tall / 3, text, color=colour_of(panel, value), size=18, ha="center", weight="bold")
        if len(found) > 1 or panel["options"]["textMode"] == "value_and_name":
            figure.text(middle, bottom - tall / 4, label, color=FAINT, size=8, ha="center")


def draw_timeseries(figure, panel, box, targets, prometheus, begin, end, step):
    defaults = panel["fieldConfig"]["defaults"]
    axes = figure.add_axes(box, facecolor=PANEL)
    fixed = {o["matcher"]["options"]: o["properties"][0]["value"]["fixedColor"] for o in panel["fieldConfig"]["overrides"]}
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    lines = []
    for expression, target in targets:
        for series in prometheus.ask("query_range", query=expression, start=begin, end=end, step=step)["result"]:
            lines.append((legend(series, target), {float(t): float(v) for t, v in series["values"]}))
    times = [begin + n * step for n in range(int((end - begin) / step) + 1)]
    at = [datetime.fromtimestamp(t) for t in times]
    under = [0.0] * len(times)
    for n, (label, points) in enumerate(lines):
        rounded = {round(t * 10): v for t, v in points.items()}
        values = [rounded.get(round(t * 10), math.nan) for t in times]
        colour = fixed.get(label, PALETTE[n % len(PALETTE)])
        colour = COLOURS.get(colour, colour)
        if stacked:
            above = [u + (0 if math.isnan(v) else v) for u, v in zip(under, values)]
            axes.fill_between(at, under, above, color=colour, alpha=0.7, linewidth=0.5, label=label)
            under = above
        else:
            axes.plot(at, values, color=colour, linewidth=1.2, label=label)
    if defaults["custom"]["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
    elif defaults.get("min") == 0:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda v, _: human(v, defaults["unit"], 0 if defaults["unit"] == "percentunit" else None))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.set_xlim(at[0], at[-1])
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if lines:
        handles, labels = axes.get_legend_handles_labels()
        most = 4 if max(map(len, labels)) > 16 else 6
        axes.legend(handles[: 2 * most], labels[: 2 * most], loc="upper left", bbox_to_anchor=(-0.04, -0.08), ncols=most, fontsize=6.5, frameon=False, labelcolor=FAINT, columnspacing=1, handlelength=1)
    else:
        axes.text(0.5, 0.5, "no data", color=FAINT, ha="center", transform=axes.transAxes)


def draw_table(figure, panel, box, targets, prometheus, begin, end, step):
    rows = []
    for expression, _ in targets:
        for series in prometheus.query(expression):
            labels = " ".join(v for v in series["metric"].values())
            rows.append((labels, human(float(series["value"][1]), panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"].get("decimals"))))
    text = "\n".join(f"{textwrap.shorten(a, 46):46} {b:>8}" for a, b in rows[:14]) or "none"
    figure.text(box[0] - 0.02, box[1] + box[3], text, color=TEXT, size=7.5, va="top", family="monospace")
