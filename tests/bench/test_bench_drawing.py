"""What people see of a run: plots that are well-formed and say every figure, and a table that says what to doubt."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.machine import Machine, Pinning
from bench.plot import bars, lines, plots
from bench.report import Lag, LaneReport, Report, notes, ratios, ratios_cpu
from bench.run import Latency
from bench.table import grid, render

SVG = "{http://www.w3.org/2000/svg}"


def lane(rates: list[float], **changes: Any) -> LaneReport:
    """A lane with these rounds, undisturbed."""
    fields: dict[str, Any] = {
        "rate": sorted(rates)[len(rates) // 2] if rates else 0.0,
        "rates": rates,
        "cpu_us": {"serve": 100.0, "valkey": 20.0, "load": 10.0},
        "server_share": 0.9,
        "load_share": 0.2,
        "server_core": 0.9,
        "other_core": 0.5,
        "foreign_share": 0.01,
        "answer_bytes": 700,
        "over": "7 connections",
    }
    return LaneReport(**(fields | changes))


@pytest.fixture
def report() -> Report:
    """A run of two lanes, and one that the server does not have."""
    http = lane(
        [5_000.0, 6_000.0],
        latency={"full": Latency(p50=1.25, p99=9.5, p999=20.75, generator_late_p99=1.0)},
        offered={"full": 5_700.0},
        reached={"full": 5_690.0},
    )
    noop = lane([10_000.0, 8_000.0], cpu_us={"noop": 50.0, "load": 10.0})
    machine = Machine(
        cpu="A <CPU> & more",
        cores=2,
        memory_gib=24.0,
        system="Linux 6",
        filesystem="ext4",
        fsync_ms=0.2,
        pinning=Pinning([0], [1], [0, 1]),
        versions={"python": "3.11.7"},
        load_average=0.1,
        commit="abc",
    )
    return Report(
        scenario="steady",
        at="2026-05-01T08:00:00Z",
        machine=machine,
        ack="fsync",
        appendfsync="always",
        lanes={"http_scan": http, "noop": noop},
        not_served=["socket_scan"],
        ratios=ratios({"http_scan": http, "noop": noop}),
        lag=Lag({"peak": 0.25}, [(0.5, 0.1, "http_scan", "peak"), (0.6, 0.2, "http_scan", "peak")]),
        audit={
            "ok": False,
            "looked_at": 1234,
            "breaches": 2,
            "undecided": 1,
            "findings": [
                {
                    "invariant": "5-spent",
                    "text": "Once",
                    "breaches": 2,
                    "undecided": 0,
                    "examples": ["ticket X"],
                },
                {"invariant": "6-total", "text": "Sums", "breaches": 0, "undecided": 0, "examples": []},
            ],
        },
    )


def test_ratios_set_each_round_against_the_same_round() -> None:
    lanes = {
        "http_scan": lane([10.0, 1.0, 9.0]),
        "noop": lane([20.0, 4.0, 12.0]),
        "naive": lane([5.0, 1.0, 3.0]),
    }

    assert ratios(lanes) == {
        "http_scan/noop": 0.5,  # of 0.5, 0.25 and 0.75
        "naive/noop": 0.25,
        "http_scan/naive": 2.0,
    }


def test_ratios_by_cpu_are_those_of_the_serving_processes() -> None:
    lanes = {"http_scan": lane([1.0]), "noop": lane([1.0], cpu_us={"noop": 60.0, "load": 900.0})}

    assert ratios_cpu(lanes, {"http_scan": "serve", "noop": "noop"}) == {"http_scan/noop": 0.6}


def test_a_reader_is_told_when_the_load_generator_or_others_were_the_limit() -> None:
    quiet = notes({"http_scan": lane([1.0])})
    told = notes(
        {
            "fast": lane([1.0], load_share=0.97, other_core=0.99),
            "full": lane([1.0], other_core=0.95),
            "disturbed": lane([1.0], foreign_share=0.4),
        }
    )

    assert quiet == []
    assert len(told) == 3
    assert told[0].startswith("fast: the load generator used 97% of its core")
    assert told[1].startswith("full: the cores beside the server's were busy for 95%")
    assert "40%" in told[2] and "(disturbed)" in told[2]


def test_the_table_has_every_lane_with_its_ratio_and_the_verdict_of_the_audit(report: Report) -> None:
    text = render(report)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}

    assert "server on core 0; Valkey and load on 1; Postgres and work on any" in text
    assert rows["socket_scan"] == ["socket_scan", "not", "served"]
    assert any(
        line.split()[:4] == ["http_scan", "6,000", "5,000..6,000", "0.62"] for line in text.splitlines()
    )
    assert any("1.25" in line and "20.75" in line and "5,690" in line for line in text.splitlines())
    assert "gateline check: DIRTY; 1,234 things, 2 breaches, 1 undecided" in text
    assert "5-spent: Once" in text and "· ticket X" in text and "6-total" not in text
    assert "peak 0.25 s" in text


def test_columns_are_aligned() -> None:
    assert grid(["a", "bb"], [["long", "1"], ["x", "1,000"]]).split("\n") == [
        "a        bb",
        "----  -----",
        "long      1",
        "x     1,000",
    ]


def test_plots_are_well_formed_and_say_every_figure(report: Report) -> None:
    drawn = plots(report)

    assert drawn.keys() == {"rates.svg", "latency.svg", "lag.svg"}
    for name, drawing in drawn.items():
        root = ET.fromstring(drawing)  # noqa: S314  (our own)
        assert root.tag == f"{SVG}svg"
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert any("steady" in text for text in texts), name
    assert "6,000  (0.62 of no-op)" in drawn["rates.svg"]
    assert "1.2 / 9.5 / 20.8 ms" in drawn["latency.svg"]


def test_bars_are_as_long_as_their_values_and_names_are_escaped() -> None:
    root = ET.fromstring(bars("a < b & c", [("<x>", 50.0, "50"), ("y", 100.0, "100"), ("z", 0.0, "0")]))  # noqa: S314
    widths = [float(element.attrib["width"]) for element in root.iter(f"{SVG}rect")]

    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == 1.0
    assert [element.text for element in root.iter(f"{SVG}text")][:2] == ["a < b & c", "<x>"]


def test_a_line_is_cut_where_nothing_was_measured() -> None:
    series = [("lane", [(0.0, 0.0), (0.5, 1.0), (9.0, 0.5), (9.2, 0.5)]), ("flat", [(0.0, 0.0)])]
    root = ET.fromstring(lines("lag", series))  # noqa: S314
    paths = [element.attrib["points"].split() for element in root.iter(f"{SVG}polyline")]

    assert [len(path) for path in paths] == [2, 2, 1]
    top, bottom = (float(point.split(",")[1]) for point in (paths[0][1], paths[0][0]))
    assert top < bottom
