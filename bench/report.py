"""Make tables and plots from the JSON of ``run.py``.

  python report.py results/results.json

Writes ``report.md`` and one ``*.svg`` for each workload beside it.
"""

import argparse
import json
import os

from adapters import ADAPTERS
from harness import table

COLOURS = {"ours": "#c2410c", "peer": "#64748b", "ceiling": "#a3b18a", "limit": "#cbd5e1"}
HEAD = ["client", "CPU µs a message", "memory MB", "flights: set-up", "first", "next"]


def markdown(result):
    """All workloads as tables, the best client first."""
    machine = result["machine"]
    out = [
        "# Measured",
        (
            f"{machine['time']}, {machine['cpus']} × {machine['model'] or 'CPU'}, Linux {machine['kernel']}, "
            f"Python {machine['python']}. Client and sink share one CPU, but for W4."
        ),
    ]
    for name, workload in result["workloads"].items():
        unit = workload["unit"]
        head = [HEAD[0], unit, "lowest", "highest", *HEAD[1:]]
        rows = [
            [
                client + (" (!)" if data["problems"] else ""),
                *(data[key] for key in ("median", "min", "max", "cpu_us", "rss_mb")),
                *(data["flights_" + phase] for phase in ("setup", "first", "next")),
            ]
            for client, data in ranked(workload)
        ]
        out += [f"## {name}: {workload['title']}", table(head, rows)]
        out += [
            f"(!) {client}: {why}"
            for client, data in workload["results"].items()
            for why in data["problems"]
        ]
        out.append(f"![{name}]({name}.svg)")
    return "\n\n".join(out) + "\n"


def ranked(workload):
    """Clients with a result, the best first."""
    done = [(c, d) for c, d in workload["results"].items() if d["median"] is not None]
    return sorted(done, key=lambda pair: pair[1]["median"], reverse=workload["unit"] != "s")


def plot(name, workload, path):
    """Bars of speed and cost."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    clients = ranked(workload)[::-1]
    names = [client for client, _ in clients]
    colours = [COLOURS[ADAPTERS[client]["group"]] for client in names]
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.8 + 0.3 * len(names)), sharey=True)
    for axis, key, label in zip(
        axes, ("median", "cpu_us"), (workload["unit"], "CPU µs a message"), strict=True
    ):
        values = [data[key] for _, data in clients]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [f"{value:,.4g}" for value in values], padding=3, fontsize=8)
        axis.set_xlabel(label)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}: {workload['title']}")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("json")
    p.add_argument("--no-plots", action="store_true")
    a = p.parse_args()
    with open(a.json, encoding="utf-8") as f:
        result = json.load(f)
    folder = os.path.dirname(os.path.abspath(a.json))
    with open(os.path.join(folder, "report.md"), "w", encoding="utf-8") as f:
        f.write(markdown(result))
    for name, workload in result["workloads"].items():
        if ranked(workload) and not a.no_plots:
            plot(name, workload, os.path.join(folder, name + ".svg"))


if __name__ == "__main__":
    main()
