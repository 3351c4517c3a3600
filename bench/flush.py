"""What the flusher's stages cost: read from /metrics, as an operator would. Time that passed, not CPU."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_SECONDS = "gateline_flush_seconds_sum"
_ENTRIES = "gateline_flushed_total"


async def stages(address: str) -> list[dict[str, Any]]:
    """A row per stage: microseconds of its time for each entry that was written, by stream, since the start."""
    async with aiohttp.ClientSession() as session, session.get(address + "/metrics") as answer:
        return rows(await answer.text())


def rows(metrics: str) -> list[dict[str, Any]]:
    """The same, from the text of /metrics."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    entries: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == _SECONDS:
                seconds[sample.labels["stage"]][sample.labels["stream"]] = sample.value
            elif sample.name == _ENTRIES:
                entries[sample.labels["stream"]] = sample.value
    streams = sorted(stream for stream, number in entries.items() if number)
    return [
        {"flusher, µs passed per entry": stage}
        | {stream: round(of.get(stream, 0.0) / entries[stream] * 1e6, 2) for stream in streams}
        for stage, of in seconds.items()
    ]
