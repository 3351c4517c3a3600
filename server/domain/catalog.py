"""What is for sale, where it is redeemed, and who scans: small nouns that every process keeps in memory."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

import msgspec


class ProductStatus(enum.Enum):
    """Whether a product may be sold at all; the sale window narrows it further."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class Role(enum.Enum):
    """What an operator account is for. A gate cannot read reports, an analyst cannot scan."""

    GATE = "gate"
    ANALYST = "analyst"


class Entitlement(msgspec.Struct, frozen=True):
    """So many uses of one function, as part of a package."""

    code: str
    label: str
    quantity: int


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a buyer gets for one unit, as it stood when the order was made; kept with the order."""

    name: str
    functions: tuple[Entitlement, ...]
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    valid_days: int | None = None

    def validity(self, issued_at: datetime) -> tuple[datetime | None, datetime | None]:
        """(first moment, first moment after) of a ticket issued then; None: unbounded on that side."""
        if self.valid_days is None:
            return self.valid_from, self.valid_until
        until = issued_at + timedelta(days=self.valid_days)
        return self.valid_from, until if self.valid_until is None else min(until, self.valid_until)


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A package for sale. Prices in fen; `sellable` is the cap on units reserved and sold together."""

    id: int
    sku: str
    price_fen: int
    status: ProductStatus
    sale_start_at: datetime | None
    sale_end_at: datetime | None
    sellable: int
    terms: Terms

    def on_sale(self, now: datetime) -> bool:
        """Active, and inside the sale window: start included, end excluded."""
        return (
            self.status is ProductStatus.ACTIVE
            and (self.sale_start_at is None or now >= self.sale_start_at)
            and (self.sale_end_at is None or now < self.sale_end_at)
        )


class Venue(msgspec.Struct, frozen=True):
    """A place with gates, and the codes of the functions it serves."""

    code: str
    name: str
    functions: frozenset[str]


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the gate staff, or an analyst. `generation` is part of every token of theirs."""

    username: str
    role: Role
    venue_code: str | None
    enabled: bool
    generation: int


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent picture of the catalog and its people, replaced as a whole when Postgres has a newer version."""

    version: int
    functions: dict[str, str]  # code -> label
    venues: dict[str, Venue]
    products: dict[int, Product]
    operators: dict[str, Operator]
