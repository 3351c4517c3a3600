"""The scene: a catalog, and as many sold tickets as are asked for, written as the record has them after real sales.

Rows are copied in, since selling millions of tickets one by one would be another measurement. They obey every rule that
`gateline check` holds: each ticket belongs to a paid order with its payment.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec

from server.domain.catalog import Entitlement, Product, ProductStatus, Role, Terms, Venue
from server.domain.ids import new_order_id, new_ticket_code
from server.domain.payments import CURRENCY
from server.limits import ORDER_UNITS_MAX
from server.store import catalog, outbox
from server.store.outbox import Kind, Message
from server.store.pool import Database

FUNCTIONS: Final = {
    "bus": "环岛巴士 Island bus",
    "ferry": "轮渡 Ferry crossing",
    "museum": "海事博物馆 Museum",
}
# Venue -> the functions that it serves. Six venues with as many scans each, if every function is used as often.
VENUES: Final = {
    "pier-north": ("ferry", "bus"),
    "pier-south": ("ferry",),
    "bus-terminal": ("bus",),
    "bus-hill": ("bus",),
    "museum-gate": ("museum",),
    "museum-garden": ("museum",),
}
OPERATORS: Final = tuple(f"{venue}-{number}" for venue in VENUES for number in (1, 2))
PRICE_FEN: Final = 12_800
_PAGE: Final = 20_000  # tickets of one copy: some tens of MiB
Progress = Callable[[str, int, int], None]


class Scene(msgspec.Struct, frozen=True):
    """What was seeded. `pass_id`: the product behind the tickets; `sale_id`: the one that orders are made for."""

    pass_id: int
    sale_id: int
    codes: list[str]
    uses: int


async def seed(
    database: Database,
    url: str,
    *,
    tickets: int,
    uses: int,
    for_sale: int,
    keep: int | None = None,
    progress: Progress,
) -> Scene:
    """Write the catalog and `tickets` tickets of three functions with `uses` uses each.

    `for_sale`: the cap of the product that orders are made for. `keep`: of how many tickets the codes are kept (evenly
    spread over all), so that millions of them need no memory here.
    """
    terms = Terms(
        name="海岛通票 Island pass",
        functions=tuple(Entitlement(code, label, uses) for code, label in FUNCTIONS.items()),
    )
    async with database.transaction() as connection:
        for code, label in FUNCTIONS.items():
            await catalog.put_function(connection, code, label)
        for code, served in VENUES.items():
            await catalog.put_venue(connection, Venue(code, code.title(), frozenset(served)))
        for username in OPERATORS:
            await catalog.put_operator(connection, username, Role.GATE, username.rpartition("-")[0])
        pass_id, sale_id = [
            await catalog.put_product(connection, _product(sku, terms, sellable))
            for sku, sellable in (("BENCH-PASS", max(tickets, 1)), ("BENCH-SALE", for_sale))
        ]
        await outbox.send(connection, [Message(Kind.CAP, str(pass_id)), Message(Kind.CAP, str(sale_id))])
    codes = await _copy_tickets(url, pass_id, terms, tickets, keep or tickets, progress)
    return Scene(pass_id, sale_id, codes, uses)


def _product(sku: str, terms: Terms, sellable: int) -> Product:
    return Product(
        id=0,
        sku=sku,
        price_fen=PRICE_FEN,
        status=ProductStatus.ACTIVE,
        sale_start_at=None,
        sale_end_at=None,
        sellable=sellable,
        terms=terms,
    )


async def _copy_tickets(
    url: str, product_id: int, terms: Terms, number: int, keep: int, progress: Progress
) -> list[str]:
    every = max(1, number // keep)
    kept: list[str] = []
    connection = await asyncpg.connect(url)
    try:
        for first in range(0, number, _PAGE):
            progress("tickets into Postgres", first, number)
            count = min(_PAGE, number - first)
            codes = [new_ticket_code(entropy) for entropy in _entropy(count)]
            async with connection.transaction():
                await _copy_page(connection, product_id, terms, first, codes)
            kept += codes[(-first) % every :: every]
        await connection.execute("ANALYZE")
        progress("tickets into Postgres", number, number)
    finally:
        await connection.close()
    return kept[:keep]


def _entropy(count: int) -> Iterator[bytes]:
    drawn = secrets.token_bytes(10 * count)
    return (drawn[at : at + 10] for at in range(0, len(drawn), 10))


async def _copy_page(
    connection: asyncpg.Connection[Any], product_id: int, terms: Terms, first: int, codes: list[str]
) -> None:
    now = datetime.now(UTC)
    sold_terms = msgspec.json.encode(terms).decode()
    orders, lines, payments, tickets, entitlements = [], [], [], [], []
    for at in range(0, len(codes), ORDER_UNITS_MAX):
        of_order = codes[at : at + ORDER_UNITS_MAX]
        order_id, buyer_id = new_order_id(), f"bench:{first + at}"
        fen = PRICE_FEN * len(of_order)
        orders.append((order_id, buyer_id, order_id, "seeded", "PAID", fen, now, now, now))
        lines.append((order_id, 0, product_id, len(of_order), PRICE_FEN, sold_terms))
        payments.append(("seed", order_id, order_id, "APPLIED", fen, CURRENCY, now, now))
        for unit, code in enumerate(of_order, 1):
            tickets.append((code, order_id, 0, unit, buyer_id, product_id, terms.name, "ACTIVE", now))
            entitlements += [
                (code, position, part.code, part.label, part.quantity, part.quantity)
                for position, part in enumerate(terms.functions)
            ]
    for table, columns, records in (
        (
            "orders",
            "id buyer_id idempotency_key payload_hash status total_fen created_at expires_at ended_at",
            orders,
        ),
        ("order_lines", "order_id position product_id qty unit_price_fen terms", lines),
        (
            "payments",
            "gateway gateway_txn_id order_id status amount_fen currency paid_at received_at",
            payments,
        ),
        (
            "tickets",
            "code order_id position unit buyer_id product_id product_name status issued_at",
            tickets,
        ),
        (
            "entitlements",
            "ticket_code position function_code label total_uses remaining_uses",
            entitlements,
        ),
    ):
        await connection.copy_records_to_table(table, records=records, columns=columns.split())
