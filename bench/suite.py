"""The lanes by name, on one site, with the servers that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench import flush, plain_postgres
from bench.bed import Bed
from bench.lanes import Lane
from bench.lanes_sale import Orders, Settlement
from bench.lanes_scan import HTTP_CONNECTIONS, BatchScan, HttpScan, Noop, SocketScan
from bench.machine import Pinning, say
from bench.measure import SHARES, Measurement
from bench.report import COMPARED, NOOP, Report, lag_report, lane_report, notes, ratios, ratios_cpu
from bench.requests import Scans, Supply
from bench.site import Site

OURS: Final = ("http_scan", "socket_scan", "batch_scan", "orders", "settlement")
OTHERS: Final = (NOOP, *COMPARED)
# In the order of measuring: each beside what it is compared with; settlement needs the orders made before it.
LANES: Final = (
    "http_scan",
    "noop",
    "naive",
    "plain_postgres",
    "socket_scan",
    "batch_scan",
    "orders",
    "settlement",
)


class Suite:
    """Lanes that are measured together."""

    def __init__(
        self,
        bed: Bed,
        site: Site,
        stack: AsyncExitStack,
        measurement: Measurement,
        *,
        connections: int = HTTP_CONNECTIONS,
    ) -> None:
        """`connections`: of POST /venue/scan, at the product and at what it is compared with alike."""
        self._bed = bed
        self._site = site
        self._stack = stack
        self._measurement = measurement
        self.scans = Scans(site.config)
        self.supply = Supply(site.scene)
        self._connections = connections
        self.not_served: list[str] = []

    async def add(self, names: Sequence[str]) -> None:
        """Start what these lanes need and warm them up. http_scan always goes first: the no-op repeats its answer."""
        answer = b""
        for name in [name for name in LANES if name in names or name == "http_scan"]:
            say(f"warming up {name}")
            if name in OURS:
                lane = self._ours(name)
                if not await lane.is_served():
                    self.not_served.append(name)
                    continue
                measured = await self._measurement.add(lane)
                answer = answer or measured.answer
            else:
                await self._compare(name, answer)
        if "http_scan" not in names:
            self._measurement.forget("http_scan")

    def _ours(self, name: str) -> Lane:
        site = self._site
        if name == "http_scan":
            return self._http(HttpScan(name, site.address, self.scans, self.supply))
        if name == "socket_scan":
            return SocketScan(site.address, self.scans, self.supply)
        if name == "batch_scan":
            return BatchScan(site.address, self.scans, self.supply)
        if name == "orders":
            return Orders(site.config, site.address, site.scene.sale_id)
        orders = self._measurement.lanes["orders"].lane
        assert isinstance(orders, Orders)  # noqa: S101
        return Settlement(site.config, site.address, orders.made)

    async def _compare(self, name: str, answer: bytes) -> None:
        bed, site = self._bed, self._site
        words = []
        if name == "noop":
            file = bed.folder / "answer"
            file.write_bytes(answer)
            words = [str(file)]
        elif name == "plain_postgres":
            await plain_postgres.create(site.environment["GATELINE_OWNER_DATABASE_URL"])
        address, groups = await bed.compared(self._stack, name, *words, environment=site.environment)
        if name == "noop":
            lane: HttpScan = Noop(name, address, self.scans, self.supply)
        elif name == "naive":
            lane = HttpScan(name, address, self.scans, self.supply)
            groups |= {other: site.groups[other] for other in ("work", "valkey", "postgres")}
        else:  # it has tickets of its own
            lane = HttpScan(name, address, self.scans, Supply(site.scene))
            groups["postgres"] = site.groups["postgres"]
        await self._measurement.add(self._http(lane), groups)

    def _http(self, lane: HttpScan) -> HttpScan:
        lane.connections = self._connections
        return lane


def fill(report: Report, measurement: Measurement, pinning: Pinning) -> None:
    """Enter what was measured into the report."""
    report.lanes = {name: lane_report(each, pinning) for name, each in measurement.lanes.items()}
    serving = {name: name if name in OTHERS else "serve" for name in report.lanes}
    report.ratios = ratios(report.lanes)
    report.ratios_cpu = ratios_cpu(report.lanes, serving)
    report.lag = lag_report(measurement.lag)
    report.notes += notes(report.lanes)


async def measure(
    bed: Bed,
    report: Report,
    names: Sequence[str],
    *,
    tickets: int,
    rounds: int,
    seconds: float,
    latency_s: float,
    connections: int = HTTP_CONNECTIONS,
) -> None:
    """Warm up, rounds of closed loops, open loops at full and half load (`latency_s` each; 0.0: none), audit."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=tickets))
        measurement = await stack.enter_async_context(Measurement(site))
        suite = Suite(bed, site, stack, measurement, connections=connections)
        await suite.add(names)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            await measurement.peak_round(seconds)
        for share in SHARES if latency_s else ():
            say(f"open loop at {share} load")
            await measurement.latency_round(latency_s, share)
        fill(report, measurement, bed.pinning)
        report.figures["flusher"] = await flush.stages(site.address)
        report.not_served = suite.not_served
        say("gateline check")
        report.audit = await site.audit()
