"""What the flusher's stages cost, read from the text of /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from bench.flush import rows


def test_a_stage_is_told_per_entry_and_a_stream_that_wrote_nothing_is_left_out() -> None:
    registry = CollectorRegistry()
    flushed = Counter("gateline_flushed", "", ["stream"], registry=registry)
    seconds = Histogram("gateline_flush_seconds", "", ["stream", "stage"], registry=registry)
    flushed.labels("scans").inc(4_000)
    flushed.labels("idle").inc(0)
    for took in (0.01, 0.03):
        seconds.labels("scans", "write").observe(took)
    seconds.labels("idle", "read").observe(5)

    found = {
        each.pop("flusher, µs passed per entry"): each for each in rows(generate_latest(registry).decode())
    }

    assert found == {"write": {"scans": 10.0}, "read": {"scans": 0.0}}
