"""The table that a run prints: every figure beside its ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import BESIDE, BUSY_SHARE, LaneReport, Report


def render(report: Report) -> str:
    """Header, lanes, latencies, CPU, further figures, audit, notes."""
    parts = [header(report)]
    if report.lanes:
        parts += [_lanes(report), _latency(report), _cpu(report)]
    if report.figures:
        parts.append(_figures(report.figures))
    parts.append(_audit(report))
    parts += report.notes
    return "\n\n".join(part for part in parts if part)


def header(report: Report) -> str:
    """What the figures were made on."""
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return "\n".join(
        (
            f"Gateline bench · {report.scenario} · {report.at} · {machine.commit} · {report.seconds:.0f} s",
            f"{machine.cpu} · {machine.cores} cores · {machine.memory_gib} GiB · {machine.system} · "
            f"{machine.filesystem}, fsync {machine.fsync_ms} ms · load {machine.load_average}",
            versions,
            f"acknowledgement {report.ack}, appendfsync {report.appendfsync} · pinning: {machine.pinning.told()}",
        )
    )


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is left-aligned, all others right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])


def _lanes(report: Report) -> str:
    rows = []
    for name, lane in report.lanes.items():
        ratio, by_cpu = report.ratios.get(f"{name}/noop"), report.ratios_cpu.get(f"{name}/noop")
        spread = f"{min(lane.rates):,.0f}..{max(lane.rates):,.0f}" if lane.rates else ""
        bound = " *" if lane.load_share > BUSY_SHARE else ""
        rows.append(
            [
                name,
                f"{lane.rate:,.0f}{bound}" if lane.rates else "",
                spread,
                _ratio(ratio),
                _ratio(by_cpu),
                *(f"{share:.0%}" for share in _shares(lane)),
                lane.over,
            ]
        )
    rows += [[name, "not served", *[""] * 8] for name in report.not_served]
    shares = ("server", "its core", "other core", "load")
    head = ["closed loop", "peak/s", "rounds", "of no-op", "by CPU", *shares, "over"]
    return grid(head, rows)


def _shares(lane: LaneReport) -> tuple[float, ...]:
    return lane.server_share, lane.server_core, lane.other_core, lane.load_share


def _latency(report: Report) -> str:
    rows = []
    for name, lane in report.lanes.items():
        for share, seen in lane.latency.items():
            rows.append(
                [
                    name,
                    share,
                    f"{lane.offered[share]:,.0f}",
                    f"{lane.reached[share]:,.0f}",
                    *(f"{each:,.2f}" for each in (seen.p50, seen.p99, seen.p999, seen.generator_late_p99)),
                ]
            )
    head = [
        "latency, ms from the intended time",
        "load",
        "offered/s",
        "done/s",
        "p50",
        "p99",
        "p99.9",
        "late p99",
    ]
    return grid(head, rows) if rows else ""


def _cpu(report: Report) -> str:
    rows = [[name, *_cpu_cells(lane)] for name, lane in report.lanes.items()]
    return grid(["CPU per thing, µs", "server", *BESIDE, "foreign load"], rows)


def _cpu_cells(lane: LaneReport) -> list[str]:
    beside = {name: spent for name, spent in lane.cpu_us.items() if name in BESIDE}
    server = sum(spent for name, spent in lane.cpu_us.items() if name not in beside)
    cells = [f"{beside[name]:,.1f}" if name in beside else "" for name in BESIDE]
    return [f"{server:,.1f}", *cells, f"{lane.foreign_share:.0%}"]


def _figures(figures: Mapping[str, Any]) -> str:
    """Single figures, then those that are a row of equal things each."""
    single = [f"{name:<40} {_told(value)}" for name, value in figures.items() if not isinstance(value, list)]
    tables = [
        grid(list(rows[0]), [[_told(value) for value in row.values()] for row in rows])
        for rows in figures.values()
        if isinstance(rows, list) and rows
    ]
    return "\n\n".join(["\n".join(single), *tables])


def _audit(report: Report) -> str:
    lines = []
    if report.lag is not None:
        told = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in report.lag.p99_s.items())
        lines.append(f"flusher's lag, p99 by phase: {told}")
    audit = report.audit
    if audit:
        lines.append(
            f"gateline check: {'clean' if audit['ok'] else 'DIRTY'}; {audit['looked_at']:,} things, "
            f"{audit['breaches']} breaches, {audit['undecided']} undecided"
        )
        for finding in audit.get("findings", ()):
            if finding["breaches"] or finding["undecided"]:
                lines.append(f"  {finding['invariant']}: {finding['text']}")
                lines += [f"    · {example}" for example in finding["examples"]]
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _told(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
