"""What a catalog file would change: its entries against those of the record."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from server.domain.catalog import Directory, Operator, Product
from server.domain.catalog_file import CatalogFile, FunctionEntry, OperatorEntry, ProductEntry

_NONE: Final = "none"


class ChangeKind(enum.Enum):
    """What applying does with an entry."""

    ADD = "add"
    CHANGE = "change"
    NOTHING = "nothing"


class Change(msgspec.Struct, frozen=True):
    """One entry against the record; `fields` as `price_fen 12800 -> 9900`, or `price_fen 12800` when it is new.

    `values` is the same for machines: `{"price_fen": {"old": 12800, "new": 9900}}`, without `old` when it is new.
    """

    kind: ChangeKind
    noun: str  # function, venue, product or operator
    name: str  # its code, SKU or user name
    fields: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, Any]] = {}

    def __str__(self) -> str:
        head = f"{self.kind.value} {self.noun} {self.name}"
        return f"{head}: {', '.join(self.fields)}" if self.fields else head


def compare(file: CatalogFile, record: Directory) -> list[Change]:
    """One change per entry: functions, venues, products, operators, each in the file's order."""
    functions = {code: FunctionEntry(code, label) for code, label in record.functions.items()}
    products = {product.sku: _product_entry(product) for product in record.products.values()}
    operators = {name: _operator_entry(operator) for name, operator in record.operators.items()}
    return [
        *_changes("function", "code", file.functions, functions),
        *_changes("venue", "code", file.venues, record.venues),
        *_changes("product", "sku", file.products, products),
        *_changes("operator", "username", file.operators, operators),
    ]


def _changes(
    noun: str, key: str, entries: Sequence[msgspec.Struct], known: Mapping[str, msgspec.Struct]
) -> list[Change]:
    changes = []
    for entry in entries:
        name: str = getattr(entry, key)
        before = known.get(name)
        after = {field: getattr(entry, field) for field in entry.__struct_fields__ if field != key}
        if before is None:
            new = {field: value for field, value in after.items() if value is not None}
            fields = [f"{field} {_text(value)}" for field, value in new.items()]
            values = {field: {"new": _plain(value)} for field, value in new.items()}
            kind = ChangeKind.ADD
        else:
            changed = {
                field: (getattr(before, field), value)
                for field, value in after.items()
                if value != getattr(before, field)
            }
            fields = [f"{field} {_text(old)} -> {_text(value)}" for field, (old, value) in changed.items()]
            values = {
                field: {"old": _plain(old), "new": _plain(value)} for field, (old, value) in changed.items()
            }
            kind = ChangeKind.CHANGE if fields else ChangeKind.NOTHING
        changes.append(Change(kind, noun, name, tuple(fields), values))
    return changes


def _product_entry(product: Product) -> ProductEntry:
    terms = product.terms
    return ProductEntry(
        sku=product.sku,
        name=terms.name,
        price_fen=product.price_fen,
        sellable=product.sellable,
        status=product.status,
        sale_start_at=product.sale_start_at,
        sale_end_at=product.sale_end_at,
        valid_from=terms.valid_from,
        valid_until=terms.valid_until,
        valid_days=terms.valid_days,
        functions=tuple((part.code, part.quantity) for part in terms.functions),
    )


def _operator_entry(operator: Operator) -> OperatorEntry:
    return OperatorEntry(operator.username, operator.role, operator.venue_code)


def _text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return _NONE
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    if isinstance(value, tuple):
        return " ".join(f"{code}={uses}" for code, uses in value)
    return str(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return _text(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return dict(value)
    return value
