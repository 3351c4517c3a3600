"""Reading and writing the catalog and its people."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.domain.catalog import Directory, Entitlement, Operator, Product, ProductStatus, Role, Terms, Venue
from server.store.locks import Lock
from server.store.pool import Connection
from server.store.queries import load

_Q: Final = load("catalog")


class StoredPassword(msgspec.Struct, frozen=True):
    """What a login is checked against."""

    password_hash: str | None
    role: Role
    enabled: bool
    generation: int


class StockRow(msgspec.Struct, frozen=True):
    """What a product holds and sold, according to the record."""

    product_id: int
    sku: str
    name: str
    sellable: int
    reserved: int
    sold: int


async def directory_version(connection: Connection) -> int:
    """The version that every change raises."""
    version: int = await connection.fetchval(_Q["directory_version"])
    return version


async def read_directory(connection: Connection) -> Directory:
    """The whole catalog; inside a read-only transaction it is one consistent picture."""
    functions = await connection.fetch(_Q["all_functions"])
    venues = await connection.fetch(_Q["all_venues"])
    products = await connection.fetch(_Q["all_products"])
    operators = await connection.fetch(_Q["all_operators"])
    return Directory(
        version=await directory_version(connection),
        functions={row["code"]: row["label"] for row in functions},
        venues={row["code"]: Venue(row["code"], row["name"], frozenset(row["functions"])) for row in venues},
        products={row["id"]: _product(row) for row in products},
        operators={
            row["username"]: Operator(
                username=row["username"],
                role=Role(row["role"]),
                venue_code=row["venue_code"],
                enabled=row["enabled"],
                generation=row["generation"],
            )
            for row in operators
        },
    )


def _product(row: Any) -> Product:
    return Product(
        id=row["id"],
        sku=row["sku"],
        price_fen=row["price_fen"],
        status=ProductStatus(row["status"]),
        sale_start_at=row["sale_start_at"],
        sale_end_at=row["sale_end_at"],
        sellable=row["sellable"],
        terms=Terms(
            name=row["name"],
            functions=msgspec.convert(row["functions"] or [], tuple[Entitlement, ...]),
            valid_from=row["valid_from"],
            valid_until=row["valid_until"],
            valid_days=row["valid_days"],
        ),
    )


async def password_of(connection: Connection, username: str) -> StoredPassword | None:
    """None: there is no such operator."""
    row = await connection.fetchrow(_Q["password_of"], username)
    if row is None:
        return None
    return StoredPassword(row["password_hash"], Role(row["role"]), row["enabled"], row["generation"])


async def lock_catalog(connection: Connection) -> None:
    """One change of the catalog at a time, until the end of the caller's transaction."""
    await connection.execute(_Q["lock_catalog"])


async def put_function(connection: Connection, code: str, label: str) -> None:
    """Add a function or rename it; tickets keep the label they were sold with."""
    await connection.execute(_Q["put_function"], code, label)


async def put_venue(connection: Connection, venue: Venue) -> None:
    """Add a venue or rewrite it whole."""
    await connection.execute(_Q["put_venue"], venue.code, venue.name)
    await connection.execute(_Q["drop_venue_functions"], venue.code)
    await connection.execute(_Q["put_venue_functions"], venue.code, sorted(venue.functions))


async def has_venue(connection: Connection, code: str) -> bool:
    """Whether there is such a venue."""
    known: bool = await connection.fetchval(_Q["has_venue"], code)
    return known


async def put_product(connection: Connection, product: Product) -> int:
    """Add the product of this SKU or rewrite it whole (`product.id` is not looked at). Returns its id."""
    terms = product.terms
    product_id: int = await connection.fetchval(
        _Q["put_product"],
        product.sku,
        terms.name,
        product.price_fen,
        product.status.value,
        product.sale_start_at,
        product.sale_end_at,
        product.sellable,
        terms.valid_from,
        terms.valid_until,
        terms.valid_days,
    )
    await connection.execute(_Q["drop_product_functions"], product_id)
    await connection.execute(
        _Q["put_product_functions"],
        product_id,
        [part.code for part in terms.functions],
        [part.quantity for part in terms.functions],
    )
    return product_id


async def put_operator(connection: Connection, username: str, role: Role, venue_code: str | None) -> None:
    """Add an operator without a password, or change role and venue of one."""
    await connection.execute(_Q["put_operator"], username, role.value, venue_code)


async def add_operator(
    connection: Connection, username: str, role: Role, venue_code: str | None, password_hash: str
) -> bool:
    """False: the name is taken."""
    added = await connection.fetchval(_Q["add_operator"], username, role.value, venue_code, password_hash)
    return added is not None


async def set_password(connection: Connection, username: str, password_hash: str) -> bool:
    """Set the password, enable the operator, end all tokens issued before. False: no such operator."""
    return await connection.fetchval(_Q["set_password"], username, password_hash) is not None


async def disable_operator(connection: Connection, username: str) -> bool:
    """Disable the operator and end all tokens. False: no such operator."""
    return await connection.fetchval(_Q["disable_operator"], username) is not None


async def stock(connection: Connection) -> list[StockRow]:
    """Every product's cap, reserved and sold units, in the order of product ids."""
    return [StockRow(*row.values()) for row in await connection.fetch(_Q["stock_of_all"])]


async def stock_of(connection: Connection, product_ids: list[int]) -> dict[int, StockRow]:
    """Product id -> its cap, reserved and sold units."""
    rows = await connection.fetch(_Q["stock_of"], product_ids)
    return {row["product_id"]: StockRow(*row.values()) for row in rows}


async def hold_publishing_back(connection: Connection) -> None:
    """Until the caller's transaction ends, no publisher tells Redis a cap (or anything else)."""
    await connection.execute(_Q["lock_publishing"], Lock.OUTBOX)


async def caps(connection: Connection, product_ids: list[int]) -> dict[int, int]:
    """Product id -> sellable."""
    return {row["id"]: row["sellable"] for row in await connection.fetch(_Q["caps_of"], product_ids)}
