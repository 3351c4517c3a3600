"""Plots as SVG, by hand: bars of rates and latencies, and the flusher's lag over time.

Colours hold on a light and on a dark page alike; every figure that a bar stands for is also written beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape  # nosec B406  # it writes; nothing is parsed

from bench.report import Report

_WIDTH: Final = 760
_LEFT: Final = 150  # names
_RIGHT: Final = 220  # figures behind the bars
_ROW: Final = 26
_TOP: Final = 54
_COLOURS: Final = ("#2f6fde", "#d9822b", "#3a9a5b", "#a854c7", "#c9444d", "#5a7184", "#0f9aa8", "#8a7a1f")
_INK: Final = "#7a828e"


def plots(report: Report) -> dict[str, str]:
    """File name -> SVG, of what this run measured."""
    found = {}
    title = f"{report.scenario}, {report.at[:10]}"
    rates = [(name, lane.rate, _ratio(report, name)) for name, lane in report.lanes.items() if lane.rate]
    if rates:
        found["rates.svg"] = bars(f"Peak, a second · {title}", rates)
    latencies = [
        (f"{name}, {share}", seen.p99, f"{seen.p50:,.1f} / {seen.p99:,.1f} / {seen.p999:,.1f} ms")
        for name, lane in report.lanes.items()
        for share, seen in lane.latency.items()
    ]
    if latencies:
        found["latency.svg"] = bars(f"p99 by load (p50 / p99 / p99.9) · {title}", latencies)
    if report.lag is not None and report.lag.samples:
        found["lag.svg"] = lines(f"Flusher's lag, seconds · {title}", _lag_series(report))
    return found


def _ratio(report: Report, name: str) -> str:
    ratio = report.ratios.get(f"{name}/noop")
    rate = f"{report.lanes[name].rate:,.0f}"
    return rate if ratio is None else f"{rate}  ({ratio:.2f} of no-op)"


def _lag_series(report: Report) -> list[tuple[str, list[tuple[float, float]]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for at_s, lag_s, lane, _ in report.lag.samples if report.lag else ():
        series.setdefault(lane, []).append((at_s, lag_s))
    return list(series.items())


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: (name, value, what is written behind the bar)."""
    height = _TOP + _ROW * len(rows) + 14
    largest = max((value for _, value, _ in rows), default=0.0) or 1.0
    room = _WIDTH - _LEFT - _RIGHT
    parts = [_text(16, 28, title, size=16)]
    for at, (name, value, told) in enumerate(rows):
        y = _TOP + at * _ROW
        width = max(1.0, room * value / largest)
        colour = _COLOURS[at % len(_COLOURS)]
        parts.append(_text(_LEFT - 10, y + 14, name, anchor="end"))
        parts.append(
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 8}" rx="2" fill="{colour}"/>'
        )
        parts.append(_text(_LEFT + width + 8, y + 14, told))
    return _svg(height, title, parts)


def lines(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Values over time: a name and its points (seconds, value) for each series, as dots joined where they are near."""
    height, bottom, left, right = 320, 262, 56, _WIDTH - 20
    points = [point for _, each in series for point in each]
    begin, end = min(at for at, _ in points), max(at for at, _ in points)
    largest = max((value for _, value in points), default=0.0) or 1.0

    def x_of(at: float) -> float:
        return left + (right - left) * (at - begin) / ((end - begin) or 1.0)

    def y_of(value: float) -> float:
        return bottom - (bottom - _TOP) * value / largest

    parts = [_text(16, 28, title, size=16)]
    for share in (0.0, 0.5, 1.0):
        y = y_of(largest * share)
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{_INK}" stroke-width="0.5"/>'
        )
        parts.append(_text(left - 6, y + 4, f"{largest * share:.2f}", anchor="end"))
    parts.append(_text(right, bottom + 18, f"{end - begin:.0f} s", anchor="end"))
    legend = left
    for at, (name, each) in enumerate(series):
        colour = _COLOURS[at % len(_COLOURS)]
        for run in _joined(each):
            path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in run)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<rect x="{legend}" y="{height - 28}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(legend + 14, height - 19, name))
        legend += 24 + 7 * len(name)
    return _svg(height, title, parts)


def _joined(points: Sequence[tuple[float, float]], gap_s: float = 1.0) -> list[list[tuple[float, float]]]:
    """The points of one series, cut where nothing was measured for a while."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if not runs or point[0] - runs[-1][-1][0] > gap_s:
            runs.append([])
        runs[-1].append(point)
    return runs


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{_INK}"'
    return f"<text {place}>{escape(text)}</text>"


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
