"""pay-storm: the gateway tells of each payment five times at once; an order is paid once, and has its tickets once."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from typing import Final

from bench.bed import Bed
from bench.lanes_sale import Orders, Settlement
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.site import Unclean
from bench.suite import Suite, fill

PHASE_S_MAX: Final = 120.0
_COUNT: Final = """
SELECT (SELECT count(*) FROM payments WHERE gateway = 'hosted' AND status = 'APPLIED') AS paid,
       (SELECT count(*) FROM orders WHERE status = 'PENDING_PAYMENT') AS waiting,
       (SELECT count(*) FROM tickets WHERE product_id = $1) AS tickets
"""


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--orders", type=int, default=2_000, help="to be paid (2,000)")
    parser.add_argument("--told", type=int, default=5, help="how often each payment is told, at once (5)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Order, pay, count, audit, report."""
    report = bed.report("pay-storm")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=100))
        measurement = await stack.enter_async_context(Measurement(site))
        await Suite(bed, site, stack, measurement).add(["noop"])
        await measurement.peak_round(1.0)
        orders = Orders(site.config, site.address, site.scene.sale_id)
        ordering = await measurement.add(orders)
        say(f"{options.orders:,} orders, each paid {options.told} times")
        made = await measurement.load(ordering, options.orders, PHASE_S_MAX, "peak")
        ordering.rates.append(made.rate)
        number = len(orders.made)
        settlement = Settlement(site.config, site.address, orders.made, told=options.told)
        settlement.name = "pay_storm"
        paying = await measurement.add(settlement)
        told = await measurement.load(paying, number * options.told, PHASE_S_MAX, "peak")
        paying.rates.append(told.rate)
        paying.latency["full"] = told.latency()
        paying.offered["full"] = paying.reached["full"] = told.rate
        await site.drained()
        async with site.database.connection() as connection:
            row = await connection.fetchrow(_COUNT, site.scene.sale_id)
        if row is None or tuple(row.values()) != (number, 0, number):
            raise Unclean(f"pay_storm: of {number} orders: {row}")
        report.figures = {"orders": number, "notifications a second": round(told.rate, 1)}
        report.figures["orders settled a second"] = round(told.rate / options.told, 1)
        fill(report, measurement, bed.pinning)
        report.audit = await site.audit()
    return report
