"""flash-sale: thousands of buyers want what only some can have; not one unit more is sold than there is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from typing import Final

from bench.bed import Bed
from bench.lanes import expected
from bench.lanes_sale import Orders
from bench.machine import say
from bench.measure import Measurement
from bench.report import Report
from bench.run import Run
from bench.site import Unclean
from bench.suite import Suite, fill
from server.config import Config
from server.hot.stock import Level

SALE_S_MAX: Final = 120.0
_SOLD_OUT: Final = b'"code":"SOLD_OUT"'


class FlashSale(Orders):
    """POST /orders for a product of which there is less than is wanted."""

    guess_rate = 64.0  # its warm-up must leave something to be sold

    def __init__(self, config: Config, address: str, product_id: int, units: int) -> None:
        super().__init__(config, address, product_id)
        self.name = "flash_sale"
        self.left = units

    def settle(self, run: Run) -> None:
        """Everyone is told either of an order or SOLD_OUT, and exactly as many get one as there were units."""
        wanted = min(self.left, run.asked)
        expected(self.name, run, statuses={"201", "422"}, wanted=wanted)
        refused = sum(1 for answer in run.kept.values() if _SOLD_OUT in answer)
        if refused != run.asked - wanted:
            raise Unclean(f"{self.name}: {refused} were told SOLD_OUT, {run.asked - wanted} should have been")
        self.left -= wanted
        self.remember(run)


def arguments(parser: ArgumentParser) -> None:
    """What the scenario takes."""
    parser.add_argument("--units", type=int, default=3_000, help="for sale (3,000)")
    parser.add_argument("--demand", type=float, default=3.0, help="times as many are wanted (3)")


async def run(bed: Bed, options: Namespace) -> Report:
    """Sell out, look at the stock, audit, report."""
    report = bed.report("flash-sale")
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(bed.site(tickets=100, for_sale=options.units))
        measurement = await stack.enter_async_context(Measurement(site))
        await Suite(bed, site, stack, measurement).add(["noop"])
        await measurement.peak_round(1.0)
        sale = FlashSale(site.config, site.address, site.scene.sale_id, options.units)
        measured = await measurement.add(sale)
        say(f"{options.units:,} units, {options.units * options.demand:,.0f} wanted")
        run_ = await measurement.load(measured, int(options.units * options.demand), SALE_S_MAX, "peak")
        measured.rates.append(run_.rate)
        measured.latency["full"] = run_.latency()
        measured.offered["full"] = measured.reached["full"] = run_.rate
        level = (await site.stock.levels([site.scene.sale_id]))[site.scene.sale_id]
        if level != Level(options.units, options.units, 0):
            raise Unclean(f"flash_sale: the stock is {level}, and all {options.units} units should be held")
        held = [done for done, passed in zip(run_.done, run_.passed, strict=True) if passed]
        report.figures = {
            "units held": len(held),
            "units held a second": round(len(held) / (max(held) - run_.began), 1),
            "told SOLD_OUT": run_.asked - len(held),
        }
        fill(report, measurement, bed.pinning)
        report.audit = await site.audit()
    return report
