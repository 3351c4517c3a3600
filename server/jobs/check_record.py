"""The rules that Postgres alone must keep. Exact: every page is one snapshot, and nothing in it is under way.

Memory is bounded here by pages, and in Postgres by looking at two days of verdicts at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from server.jobs.findings import Tally
from server.limits import CHECK_EXAMPLES_MAX, CHECK_PAGE, SCAN_REPLAY_S
from server.store import catalog, check, redemptions
from server.store.pool import Connection, Database

Progress = Callable[[str, int], None]  # what is being looked at, how many were
# A verdict is remembered for its scan_id this long, less a second for what counting in seconds leaves out. Asked again
# later, a scan is judged anew, and rightly stands twice in the record.
_REPLAY: Final = timedelta(seconds=SCAN_REPLAY_S - 1)
_WINDOW: Final = timedelta(days=1)
_CLOCKS: Final = timedelta(hours=1)  # clocks that are further apart than this are not set at all
_INTEGERS: Final = frozenset({"integer", "bigint"})


async def check_record(db: Database, money: Tally, progress: Progress) -> list[Tally]:
    """Hold the record against its rules. The columns that hold money are entered into the caller's `money`."""
    await _check_money(db, money)
    return [
        await _check_caps(db),
        *await _check_orders(db, progress),
        *await _check_tickets(db, progress),
        *await _check_verdicts(db, progress),
        await _check_dead_letters(db),
    ]


async def _check_caps(db: Database) -> Tally:
    caps = Tally("1-cap-postgres", "In Postgres, reserved + sold <= sellable for every product")
    async with db.connection() as connection:
        rows = await catalog.stock(connection)
    caps.looked(len(rows))
    for row in rows:
        if row.reserved + row.sold > row.sellable:
            caps.breach(
                f"product {row.product_id}: {row.reserved} reserved + {row.sold} sold > {row.sellable} sellable"
            )
    return caps


async def _check_orders(db: Database, progress: Progress) -> list[Tally]:
    issued = Tally("2-paid-has-tickets", "A paid order has exactly its tickets, one per unit of each line")
    unissued = Tally("2-unpaid-has-none", "An order that is not paid has no ticket")
    paid = Tally("7-paid-by-settlement", "A paid order has exactly one applied payment, of its total in CNY")
    unpaid = Tally(
        "7-unpaid-is-unsettled",
        "An order that is not paid has no applied payment; one to be refunded has one to refund",
    )
    attempts = Tally(
        "7-attempts", "Only an order that waits can be paid at WeChat; a number paid there has its payment"
    )
    totals = Tally("6-total", "An order's total is the sum of its lines")
    after = ""
    while True:
        async with db.transaction(read_only=True) as connection:
            page = await check.orders_page(connection, after, CHECK_PAGE)
            if page.last is None:
                return [issued, unissued, paid, unpaid, attempts, totals]
            for row in await check.wrong_totals(connection, after, page.last):
                totals.breach(f"order {row['id']}: {row['total_fen']} fen, its lines {row['lines_fen']} fen")
            for row in await check.wrong_issues(connection, after, page.last):
                tally = issued if row["status"] == "PAID" else unissued
                tally.breach(
                    f"order {row['id']} ({row['status']}): {row['due']} tickets due, {row['issued']} issued"
                )
            for row in await check.wrong_payments(connection, after, page.last):
                tally = paid if row["status"] == "PAID" else unpaid
                tally.breach(
                    f"order {row['id']} ({row['status']}, {row['total_fen']} fen): {row['applied']} applied "
                    f"payments, {row['exact']} of them of that amount, {row['refunds']} to refund"
                )
            attempts.looked(await check.count_attempts(connection, after, page.last))
            for row in await check.wrong_attempts(connection, after, page.last):
                attempts.breach(f"{row['out_trade_no']} ({row['phase']}), its order {row['status']}")
        for tally in (issued, paid):
            tally.looked(page.paid)
        for tally in (unissued, unpaid):
            tally.looked(page.orders - page.paid)
        totals.looked(page.orders)
        progress("orders", page.orders)
        after = page.last


async def _check_tickets(db: Database, progress: Progress) -> list[Tally]:
    goods = Tally(
        "2-as-sold", "A ticket is its buyer's, with the functions and uses that its order's line sold"
    )
    uses = Tally(
        "3-uses", "Per (ticket, function): successes <= total uses, and remaining = total - successes"
    )
    statuses = Tally("3-status", "A ticket is REDEEMED exactly when nothing remains on it")
    passes = Tally("5-qr-once", "One QR passes one function at most once")
    after = ""
    while True:
        async with db.transaction(read_only=True) as connection:
            page = await check.tickets_page(connection, after, CHECK_PAGE)
            if page.last is None:
                return [goods, uses, statuses, passes]
            uses.looked(await check.count_entitlements(connection, after, page.last))
            passes.looked(await check.count_successes(connection, after, page.last))
            await _look_at_tickets(connection, after, page.last, (goods, uses, statuses, passes))
        goods.looked(page.tickets)
        statuses.looked(page.tickets)
        progress("tickets of the record", page.tickets)
        after = page.last


async def _look_at_tickets(
    connection: Connection, after: str, last: str, tallies: tuple[Tally, Tally, Tally, Tally]
) -> None:
    goods, uses, statuses, passes = tallies
    for code in await check.wrong_goods(connection, after, last):
        goods.breach(f"ticket {code}")
    for row in await check.wrong_uses(connection, after, last):
        uses.breach(
            f"ticket {row['ticket_code']} {row['function_code']}: {row['total']} uses, {row['successes']} "
            f"successes, {row['remaining']} remaining"
        )
    for row in await check.wrong_statuses(connection, after, last):
        statuses.breach(f"ticket {row['code']} is {row['status']} with {row['remaining']} uses remaining")
    for row in await check.wrong_passes(connection, after, last):
        passes.breach(
            f"ticket {row['ticket_code']}: QR {row['jti']} passed {row['function_code']} {row['passed']} times"
        )


async def _check_verdicts(db: Database, progress: Progress) -> list[Tally]:
    tickets = Tally("4-event-has-ticket", "Every verdict of the record is on a ticket of the record")
    scans = Tally(
        "5-scan-once", "One scan_id has one verdict on its ticket, for the day that it is remembered"
    )
    made = Tally(
        "4-scanned-when", "A verdict follows its scan at once; within a day when it was uploaded later"
    )
    async with db.connection() as connection:
        times = await check.event_times(connection)
    start, last = times or (None, None)
    while start is not None and last is not None and start <= last:
        end = start + _WINDOW
        async with db.connection() as connection:
            found = await check.repeated_scans(connection, start, end, _REPLAY, CHECK_EXAMPLES_MAX)
            orphans, examples = await check.orphans(connection, start, end, CHECK_EXAMPLES_MAX)
            strange, strangest = await check.scans_out_of_time(
                connection, start, end, _REPLAY, _CLOCKS, CHECK_EXAMPLES_MAX
            )
        tickets.looked(found.events)
        tickets.breach(*examples, number=orphans)
        made.looked(found.events)
        made.breach(*strangest, number=strange)
        scans.looked(found.events)
        scans.breach(*found.examples, number=found.repeats)
        progress("verdicts", found.events)
        start = end
    return [tickets, made, scans]


async def _check_money(db: Database, money: Tally) -> None:
    async with db.connection() as connection:
        columns = await check.money_columns(connection)
    money.looked(len(columns))
    for table, column, kind in columns:
        if kind not in _INTEGERS:
            money.breach(f"{table}.{column} is {kind}")


async def _check_dead_letters(db: Database) -> Tally:
    letters = Tally("dead-letters", "Entries that the record refused; each needs a person, none is a breach")
    async with db.connection() as connection:
        number = await redemptions.count_dead_letters(connection)
        newest = await check.newest_dead_letters(connection, CHECK_EXAMPLES_MAX)
    letters.looked(number)
    letters.needs_person(
        *(f"{row['stream']} {row['entry_id']}: {row['reason']}" for row in newest), number=number
    )
    return letters
