"""The catalog as a file: TOML text in, typed entries out, or all its faults with line and reason.

    [[functions]]                       # what an entitlement allows
    code = "bus"                        # codes and SKUs: 1 to 32 of A-Z a-z 0-9 _ -
    label = "接驳巴士 Shuttle bus"      # labels and names: 1 to 80 characters, none of them a control character

    [[venues]]                          # a place with gates
    code = "pier-north"
    name = "北码头 North Pier"
    functions = ["bus", "ferry"]        # what its gates serve

    [[products]]                        # a package for sale
    sku = "ISLAND-DAY"
    name = "海岛一日 Island Day"
    price_fen = 12800                   # 0: free, issued at once
    sellable = 500                      # the cap: reserved + sold never pass it
    functions = { bus = 2, museum = 1 } # uses of each, in the order in which people see them
    status = "ACTIVE"                   # or "INACTIVE": not sold. Without it: "ACTIVE"
    sale_start_at = 2026-05-01T08:00:00+08:00  # optional, as are all below; times carry their offset
    sale_end_at = 2026-10-08T00:00:00+08:00    # the first moment after
    valid_from = 2026-05-01T00:00:00+08:00     # of its tickets
    valid_until = 2026-10-09T00:00:00+08:00    # the first moment after
    valid_days = 3                             # from issue

    [[operators]]                       # who scans, who reads reports
    username = "gate-1"                 # 1 to 64 of A-Z a-z 0-9 . _ @ -
    role = "gate"                       # or "analyst"
    venue = "pier-north"                # optional: where a scan happens that names no venue

Passwords are never in the file: an operator from it cannot log in before `gateline operator password`. An entry is
written whole: what it leaves out is taken back. An entry that the file does not have is left alone: nothing is ever
deleted (to end a sale, set the status to INACTIVE). Functions and venues that an entry names may be in the file or in
the record already, so that is checked when the file is applied (`server/flows/catalog_apply.py`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from server.domain.catalog import ProductStatus, Role, Venue
from server.domain.toml_lines import Lines, locate
from server.domain.toml_table import USERNAME, Fault, Table, shown
from server.limits import LOGIN_NAME_CHARS_MAX, PRICE_FEN_MAX, SELLABLE_MAX, VALID_DAYS_MAX

_SYNTAX: Final = re.compile(
    r"^(?P<reason>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.S
)
_EntryT = TypeVar("_EntryT")


class CatalogFileError(Exception):
    """The file cannot be applied, and nothing was changed; `faults` are all that were found, by line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: fault.line)
        super().__init__("\n".join(f"line {fault.line}: {fault.reason}" for fault in self.faults))


class FunctionEntry(msgspec.Struct, frozen=True):
    """A function and what people call it."""

    code: str
    label: str


class ProductEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A product as the file has it; `functions` are (code, uses). The fields mean what `catalog.Product`'s do."""

    sku: str
    name: str
    price_fen: int
    sellable: int
    status: ProductStatus
    sale_start_at: datetime | None
    sale_end_at: datetime | None
    valid_from: datetime | None
    valid_until: datetime | None
    valid_days: int | None
    functions: tuple[tuple[str, int], ...]


class OperatorEntry(msgspec.Struct, frozen=True):
    """An operator; the password is set elsewhere."""

    username: str
    role: Role
    venue: str | None


class CatalogFile(msgspec.Struct, frozen=True):
    """All entries, in the file's order; `lines` finds `("products", 0, "sellable")`."""

    functions: tuple[FunctionEntry, ...]
    venues: tuple[Venue, ...]
    products: tuple[ProductEntry, ...]
    operators: tuple[OperatorEntry, ...]
    lines: Lines


def parse(text: str) -> CatalogFile:
    """The entries of a catalog file. Raises CatalogFileError with all faults (a syntax error is found alone)."""
    text = text.removeprefix("\ufeff")  # as some editors save it
    document = _load(text)
    lines = locate(text)
    faults: list[Fault] = []

    def entries(section: str, name: str, read: Callable[[Table], _EntryT]) -> tuple[_EntryT, ...]:
        return tuple(_entries(document.pop(section, []), section, name, read, lines, faults))

    file = CatalogFile(
        functions=entries("functions", "code", _function),
        venues=entries("venues", "code", _venue),
        products=entries("products", "sku", _product),
        operators=entries("operators", "username", _operator),
        lines=lines,
    )
    known = "the file has [[functions]], [[venues]], [[products]] and [[operators]]"
    faults += [Fault(lines.at(key), f"unknown: {shown(key)}; {known}") for key in document]
    if faults:
        raise CatalogFileError(faults)
    return file


def _function(table: Table) -> FunctionEntry:
    return FunctionEntry(table.code("code"), table.name("label"))


def _venue(table: Table) -> Venue:
    return Venue(table.code("code"), table.name("name"), frozenset(table.codes("functions")))


def _product(table: Table) -> ProductEntry:
    sale_start_at, sale_end_at = table.window("sale_start_at", "sale_end_at")
    valid_from, valid_until = table.window("valid_from", "valid_until")
    return ProductEntry(
        sku=table.code("sku"),
        name=table.name("name"),
        price_fen=table.whole("price_fen", 0, PRICE_FEN_MAX) or 0,
        sellable=table.whole("sellable", 0, SELLABLE_MAX) or 0,
        status=table.choice("status", ProductStatus, ProductStatus.ACTIVE),
        sale_start_at=sale_start_at,
        sale_end_at=sale_end_at,
        valid_from=valid_from,
        valid_until=valid_until,
        valid_days=table.whole("valid_days", 1, VALID_DAYS_MAX, optional=True),
        functions=tuple(table.quantities("functions")),
    )


def _operator(table: Table) -> OperatorEntry:
    rule = f"a text of 1 to {LOGIN_NAME_CHARS_MAX} of A-Z a-z 0-9 . _ @ -"
    return OperatorEntry(
        table.text("username", rule, USERNAME.fullmatch),
        table.choice("role", Role, None),
        table.code("venue") if table.has("venue") else None,
    )


def _entries(
    tables: Any,
    section: str,
    name: str,
    read: Callable[[Table], _EntryT],
    lines: Lines,
    faults: list[Fault],
) -> Iterator[_EntryT]:
    if not isinstance(tables, list) or not all(isinstance(values, dict) for values in tables):
        faults.append(Fault(lines.at(section), f"write [[{section}]], once for each of the {section}"))
        return
    seen: dict[str, int] = {}
    for position, values in enumerate(tables):
        table = Table(values, (section, position), lines, faults)
        entry = read(table)
        table.close()
        key = values.get(name)
        if isinstance(key, str):
            line = lines.at(section, position, name)
            if key in seen:
                faults.append(Fault(line, f"{name} {shown(key)} is there already, at line {seen[key]}"))
            seen.setdefault(key, line)
        yield entry


def _load(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX.match(str(error))
        if found is None:
            raise CatalogFileError([Fault(1, str(error))]) from error
        line = found["line"] or text.rstrip("\n").count("\n") + 1
        raise CatalogFileError([Fault(int(line), found["reason"])]) from error
    except RecursionError as error:
        raise CatalogFileError([Fault(1, "arrays or tables are nested too deeply")]) from error
    except ValueError as error:  # Python's own bound on the digits of a number
        raise CatalogFileError([Fault(1, "a number has thousands of digits")]) from error
