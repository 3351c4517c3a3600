"""Applying a catalog file: what it would change, and the change itself, all or nothing.

Everything is one Postgres transaction under the catalog's lock, the entries of the audit trail too, so a second apply
begins where the first has ended, and finds nothing left to do. A cap that is new or goes up is published to Redis
after the commit: Redis allows less than the record for a moment, never more. A cap that goes DOWN must hold in Redis
first, against holds that the record does not have yet; `cap.lua` decides that in one step. Around that step:

1.  All rows are written, not committed. Publishing and rehydration are held back: until we end, nobody else sets a cap.
2.  Another transaction COMMITS a cap message for every lowered product. It waits, since publishing is held back.
3.  Redis lowers the caps, or refuses one.
4.  We commit, or roll back. Publishing goes on, and the message of step 2 sets the cap that the record has by then.

A crash before 3 changes nothing: the message finds Redis as it should be. A crash or a refusal in 3 leaves Redis
allowing too little, until the message puts the old cap back. After 4 both agree. We never put one back ourselves: when
the answer to a commit is lost, only the record knows which cap is right, and the publisher reads it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from server.domain.audit import Act, Action
from server.domain.catalog import Directory, Entitlement, Product, Terms
from server.domain.catalog_diff import Change, ChangeKind, compare
from server.domain.catalog_file import CatalogFile, CatalogFileError, ProductEntry
from server.domain.errors import Refusal
from server.domain.toml_table import Fault
from server.hot.stock import CapCode, Stock
from server.store import audit, catalog, outbox
from server.store.locks import join_unless_loading
from server.store.outbox import Kind, Message
from server.store.pool import Connection, Database

_NOT_NOW: Final = "sellable cannot be lowered now"
_ID_UNKNOWN: Final = 0  # of a product that is to be written; the record knows it by its SKU


class _Cap(msgspec.Struct, frozen=True):
    """A cap that is to change, of a product that the record has, and the line that says so."""

    product_id: int
    before: int
    sellable: int
    line: int


async def plan(connection: Connection, stock: Stock, file: CatalogFile) -> list[Change]:
    """One change per entry, `NOTHING` for what is so already. Writes nothing.

    Raises CatalogFileError with all that cannot be: functions and venues that neither file nor record has, a cap below
    reserved + sold (of the record or of Redis), a cap that goes down while Redis is away.
    """
    record = await catalog.read_directory(connection)
    faults = [*_unknown(file, record), *await _below_taken(connection, stock, _caps(file, record))]
    if faults:
        raise CatalogFileError(faults)
    return compare(file, record)


async def apply(db: Database, stock: Stock, file: CatalogFile, *, dry_run: bool = False) -> list[Change]:
    """Make record and stock as the file says, all or nothing; what changed, as `plan` tells it.

    `db` lends two connections at once. Raises CatalogFileError as `plan` does, also when a hold comes in between or
    Redis is closed; Refusal(POSTGRES_UNAVAILABLE), after which another apply tells whether this one was done.
    """
    if dry_run:
        async with db.transaction(read_only=True) as connection:
            return await plan(connection, stock, file)
    async with db.transaction() as connection:
        await catalog.lock_catalog(connection)
        changes = await plan(connection, stock, file)
        changed = {(change.noun, change.name) for change in changes if _is_news(change)}
        if changed:
            record = await catalog.read_directory(connection)
            await _write(connection, file, record, changed)
            await audit.record(connection, [_act(change) for change in changes if _is_news(change)])
            lowered = [cap for cap in _caps(file, record) if cap.sellable < cap.before]
            if lowered:
                await _lower(db, connection, stock, lowered)
    return changes


def _is_news(change: Change) -> bool:
    return change.kind is not ChangeKind.NOTHING


def _act(change: Change) -> Act:
    added = change.kind is ChangeKind.ADD
    if change.noun == "operator":
        action = Action.OPERATOR_ADDED if added else Action.OPERATOR_CHANGED
        return Act(action, change.name, change.values)
    action = Action.CATALOG_ADDED if added else Action.CATALOG_CHANGED
    return Act(action, f"{change.noun} {change.name}", change.values)


async def _write(
    connection: Connection, file: CatalogFile, record: Directory, changed: set[tuple[str, str]]
) -> None:
    """Write what changed, functions and venues before those who name them; have new and higher caps published."""
    for function in file.functions:
        if ("function", function.code) in changed:
            await catalog.put_function(connection, function.code, function.label)
    for venue in file.venues:
        if ("venue", venue.code) in changed:
            await catalog.put_venue(connection, venue)
    labels = record.functions | {function.code: function.label for function in file.functions}
    caps_before = {product.sku: product.sellable for product in record.products.values()}
    published = []
    for entry in file.products:
        if ("product", entry.sku) in changed:
            product_id = await catalog.put_product(connection, _product(entry, labels))
            if entry.sku not in caps_before or entry.sellable > caps_before[entry.sku]:
                published.append(Message(Kind.CAP, str(product_id)))
    await outbox.send(connection, published)
    for operator in file.operators:
        if ("operator", operator.username) in changed:
            await catalog.put_operator(connection, operator.username, operator.role, operator.venue)


async def _lower(db: Database, connection: Connection, stock: Stock, lowered: Sequence[_Cap]) -> None:
    """Steps 1 to 3 of the text above."""
    if not await join_unless_loading(connection):
        raise CatalogFileError([Fault(cap.line, f"{_NOT_NOW}: Redis is being loaded") for cap in lowered])
    await catalog.hold_publishing_back(connection)
    async with db.transaction() as second:
        await outbox.send(second, [Message(Kind.CAP, str(cap.product_id)) for cap in lowered])
    for cap in lowered:
        try:
            code, taken = await stock.cap(cap.product_id, cap.sellable)
        except Refusal as refusal:
            raise CatalogFileError([Fault(cap.line, f"{_NOT_NOW}: {refusal.message}")]) from refusal
        if code is CapCode.CLOSED:
            reason = f"{_NOT_NOW}: Redis is not loaded (the jobs of a running server load it)"
            raise CatalogFileError([Fault(cap.line, reason)])
        if code is CapCode.BELOW_TAKEN:
            raise CatalogFileError([_below(cap, taken)])


def _unknown(file: CatalogFile, record: Directory) -> Iterator[Fault]:
    functions = record.functions.keys() | {function.code for function in file.functions}
    venues = record.venues.keys() | {venue.code for venue in file.venues}
    for position, venue in enumerate(file.venues):
        for code in sorted(venue.functions - functions):
            yield Fault(file.lines.at("venues", position, "functions"), f'unknown function "{code}"')
    for position, product in enumerate(file.products):
        for code, _ in product.functions:
            if code not in functions:
                line = file.lines.at("products", position, "functions", code)
                yield Fault(line, f'unknown function "{code}"')
    for position, operator in enumerate(file.operators):
        if operator.venue is not None and operator.venue not in venues:
            line = file.lines.at("operators", position, "venue")
            yield Fault(line, f'unknown venue "{operator.venue}"')


def _caps(file: CatalogFile, record: Directory) -> list[_Cap]:
    known = {product.sku: product for product in record.products.values()}
    return [
        _Cap(
            known[entry.sku].id,
            known[entry.sku].sellable,
            entry.sellable,
            file.lines.at("products", position, "sellable"),
        )
        for position, entry in enumerate(file.products)
        if entry.sku in known and entry.sellable != known[entry.sku].sellable
    ]


async def _below_taken(connection: Connection, stock: Stock, caps: Sequence[_Cap]) -> list[Fault]:
    """Caps below what is taken; the record may be behind the holds of Redis, so those that go down need both."""
    recorded = await catalog.stock_of(connection, [cap.product_id for cap in caps])
    away = ""
    try:
        levels = await stock.levels([cap.product_id for cap in caps if cap.sellable < cap.before])
    except Refusal as refusal:
        levels, away = {}, refusal.message
    faults = []
    for cap in caps:
        row, level = recorded[cap.product_id], levels.get(cap.product_id)
        taken = max(row.reserved + row.sold, 0 if level is None else level.reserved + level.sold)
        if cap.sellable < taken:
            faults.append(_below(cap, taken))
        elif away and cap.sellable < cap.before:
            faults.append(Fault(cap.line, f"{_NOT_NOW}: {away}"))
    return faults


def _below(cap: _Cap, taken: int) -> Fault:
    return Fault(cap.line, f"sellable {cap.sellable} is below the {taken} units that are reserved and sold")


def _product(entry: ProductEntry, labels: dict[str, str]) -> Product:
    return Product(
        id=_ID_UNKNOWN,
        sku=entry.sku,
        price_fen=entry.price_fen,
        status=entry.status,
        sale_start_at=entry.sale_start_at,
        sale_end_at=entry.sale_end_at,
        sellable=entry.sellable,
        terms=Terms(
            name=entry.name,
            functions=tuple(Entitlement(code, labels[code], uses) for code, uses in entry.functions),
            valid_from=entry.valid_from,
            valid_until=entry.valid_until,
            valid_days=entry.valid_days,
        ),
    )
