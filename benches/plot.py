#!/usr/bin/env python3
"""Plots the measurements of one run as an SVG picture: bars of medians, with a line from the worst to the best
repetition. One group of bars a cell, one bar a switch.

    benches/plot.py RUN.json >PLOT.svg
    benches/plot.py --title 'TCP, Gbit/s' --cells tcp RUN.json >PLOT.svg

RUN.json is what `peers.sh … --json FILE` and `containers_tcp.sh json=FILE` write: a list of objects with `cell`, `peer`
and one of the figures Mpps (`mpps`), Gbit/s (`gbps`) and median latency (`p50_us`, `p50_ns`). Cells of different
figures don't go into one plot: choose some with --cells. Python's standard library is all that it needs."""
import argparse
import json
import statistics
import sys
from xml.sax.saxutils import escape

# The keys of figures, and their units.
FIGURES = {"p50_ns": "ns, median latency", "p50_us": "µs, median round trip", "gbps": "Gbit/s", "mpps": "Mpps"}
# Legible beside each other, and for people who don't tell red from green (Okabe and Ito).
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"]
LABELS, BARS, FIGURE_ROOM = 150, 460, 70
BAR, GAP, HEAD = 18, 14, 44


def figure_of(row):
    """The key of the figure that a measurement is about. A throughput run has `gbps` beside `mpps`."""
    if row["cell"].count("/") == 2:
        return "mpps"
    return next((key for key in FIGURES if row.get(key) is not None), None)


def collect(rows, cells):
    """The figure's key, and by cell and peer the values, both in order of appearance."""
    values, keys = {}, set()
    for row in rows:
        key = figure_of(row)
        if (cells and row["cell"] not in cells) or key is None or row.get(key) is None:
            continue
        keys.add(key)
        values.setdefault(row["cell"], {}).setdefault(row["peer"], []).append(row[key])
    if len(keys) != 1:
        found = ", ".join(sorted(keys)) or "none"
        sys.exit(f"plot.py: the cells have to have one figure, and have: {found}; choose some with --cells")
    return keys.pop(), values


def text(x, y, words, more=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(words)}</text>'


def bar(y, peer, colour, values, most):
    """A bar with its name, its median, and the line from worst to best."""
    median, low, high = statistics.median(values), min(values), max(values)
    at = lambda value: LABELS + value / most * BARS
    middle = y + BAR / 2
    return [
        text(LABELS - 8, middle + 4, peer, 'text-anchor="end"'),
        f'<rect x="{LABELS}" y="{y}" width="{at(median) - LABELS:.1f}" height="{BAR - 3}" fill="{colour}"/>',
        f'<path d="M{at(low):.1f} {middle - 1.5}H{at(high):.1f}" stroke="#222" stroke-width="1.5"/>',
        text(at(high) + 6, middle + 4, f"{median:.3g}"),
    ]


def picture(title, values):
    peers = list(dict.fromkeys(peer for cell in values.values() for peer in cell))
    most = max(value for cell in values.values() for all_values in cell.values() for value in all_values) or 1
    y, parts = HEAD, [text(12, 22, title, 'font-weight="bold" font-size="14"')]
    for cell, by_peer in values.items():
        if len(values) > 1:
            parts.append(text(12, y + 10, cell, 'font-weight="bold"'))
            y += BAR
        for peer, measured in by_peer.items():
            parts += bar(y, peer, COLOURS[peers.index(peer) % len(COLOURS)], measured, most)
            y += BAR
        y += GAP
    width = LABELS + BARS + FIGURE_ROOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
    head += 'font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{width}" height="{y}" fill="#fff"/>', *parts, "</svg>"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--title", help="default: the figure's unit")
    parser.add_argument("--cells", type=lambda words: words.split(","), help="only these, with commas between them")
    parser.add_argument("run", metavar="RUN.json")
    options = parser.parse_args()
    with open(options.run, encoding="utf-8") as file:
        key, values = collect(json.load(file), options.cells)
    print(picture(options.title or FIGURES[key], values))


main()
