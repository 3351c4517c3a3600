"""A catalog file gives typed entries, or all its faults with line and reason."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import server
from server.domain.catalog import ProductStatus, Role, Venue
from server.domain.catalog_file import (
    CatalogFileError,
    FunctionEntry,
    OperatorEntry,
    ProductEntry,
    parse,
)
from server.limits import PRODUCT_FUNCTIONS_MAX

DEMO = Path(server.__file__).parent / "dev" / "demo_catalog.toml"
PRODUCT = """
[[products]]
sku = "DAY"
name = "Day"
price_fen = 100
sellable = 10
functions = { bus = 1 }
"""  # a header on line 2, its keys on lines 3 to 7


def faults(text: str) -> list[tuple[int, str]]:
    """(line, reason) of everything that is wrong with a file."""
    with pytest.raises(CatalogFileError) as refused:
        parse(text)
    return [(fault.line, fault.reason) for fault in refused.value.faults]


def only_fault(text: str) -> tuple[int, str]:
    """The same, of a file with one fault."""
    (fault,) = faults(text)
    return fault


def test_entries_are_read_with_their_types_and_times_in_utc() -> None:
    file = parse(
        """
        [[functions]]
        code = "bus"
        label = "巴士 Bus"

        [[venues]]
        code = "pier-1"
        name = "码头 Pier"
        functions = ["bus", "ferry"]

        [[products]]
        sku = "DAY_1"
        name = "一日 Day"
        price_fen = 12800
        sellable = 500
        status = "INACTIVE"
        sale_start_at = 2026-05-01T08:00:00+08:00
        sale_end_at = 2026-10-01T00:00:00Z
        valid_from = 2026-05-01T00:00:00Z
        valid_until = 2027-05-01T00:00:00Z
        valid_days = 3
        functions = { museum = 1, bus = 2 }

        [[operators]]
        username = "gate-1@north"
        role = "gate"
        venue = "pier-1"
        """
    )

    assert file.functions == (FunctionEntry("bus", "巴士 Bus"),)
    assert file.venues == (Venue("pier-1", "码头 Pier", frozenset({"bus", "ferry"})),)
    assert file.products == (
        ProductEntry(
            sku="DAY_1",
            name="一日 Day",
            price_fen=12800,
            sellable=500,
            status=ProductStatus.INACTIVE,
            sale_start_at=datetime(2026, 5, 1, tzinfo=UTC),
            sale_end_at=datetime(2026, 10, 1, tzinfo=UTC),
            valid_from=datetime(2026, 5, 1, tzinfo=UTC),
            valid_until=datetime(2027, 5, 1, tzinfo=UTC),
            valid_days=3,
            functions=(("museum", 1), ("bus", 2)),
        ),
    )
    assert file.operators == (OperatorEntry("gate-1@north", Role.GATE, "pier-1"),)


def test_what_is_optional_may_be_left_out() -> None:
    (product,) = parse(PRODUCT).products
    (operator,) = parse('[[operators]]\nusername = "amy"\nrole = "analyst"').operators

    assert product.status is ProductStatus.ACTIVE
    assert (product.sale_start_at, product.sale_end_at, product.valid_days) == (None, None, None)
    assert operator == OperatorEntry("amy", Role.ANALYST, None)
    assert parse("").products == ()


def test_the_demo_catalog_has_what_the_demo_shows() -> None:
    file = parse(DEMO.read_text(encoding="utf-8"))

    assert [function.code for function in file.functions] == ["bus", "ferry", "museum"]
    assert [operator.username for operator in file.operators] == ["gate-1", "analyst-1"]
    assert 0 in [product.price_fen for product in file.products]


def test_all_faults_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = """[[products]]
sku = "a b"
name = ""
price_fen = -1
sellable = 1.5
colour = "red"
functions = {}

[[venues]]
code = "pier"
functions = []

[[functions]]
code = "bus"
label = 7
"""

    assert [line for line, _ in faults(text)] == [2, 3, 4, 5, 6, 7, 9, 11, 15]
    with pytest.raises(CatalogFileError, match=r"^line 2: sku takes .*\nline 3: name takes "):
        parse(text)


def test_a_syntax_error_is_told_with_its_line() -> None:
    assert only_fault('[[products]]\nsku = "A\n')[0] == 2
    assert only_fault("[[products]]\nsku = \n")[0] == 2
    assert only_fault("a = 1\n\na = 2\n")[0] == 3
    assert only_fault('[[products]]\nname = """\nnever\nended\n')[0] == 4
    assert only_fault("x = " + "[" * 10_000) == (1, "arrays or tables are nested too deeply")
    assert only_fault("x = " + "9" * 10_000) == (1, "a number has thousands of digits")


def test_a_file_as_windows_editors_save_it_is_read_and_its_lines_are_right() -> None:
    text = "\ufeff" + PRODUCT.replace("\n", "\r\n")

    assert parse(text).products == parse(PRODUCT).products
    assert only_fault(text.replace("= 10\r", "= -10\r"))[0] == 6


@pytest.mark.parametrize("key", ["sku", "name", "price_fen", "sellable", "functions"])
def test_a_missing_key_is_told_at_the_head_of_its_table(key: str) -> None:
    text = "".join(line for line in PRODUCT.splitlines(keepends=True) if not line.startswith(key))

    assert only_fault(text) == (2, f"{key} is missing")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("[[functions]]\ncode = 'bus'\n", 1, "label is missing"),
        ("[[venues]]\ncode = 'a'\nname = 'A'\n", 1, "functions is missing"),
        ("[[operators]]\nusername = 'a'\n", 1, "role is missing"),
        ("[[operators]]\nrole = 'gate'\n", 1, "username is missing"),
        ("[[operators]]\nusername = 'a'\nrole = 'admin'\n", 3, '"gate" or "analyst", not "admin"'),
        ("[[operators]]\nusername = 'a b'\nrole = 'gate'\n", 2, "username takes"),
        ("[[operators]]\nusername = 'a'\nrole = 'gate'\nvenue = 'a b'\n", 4, "venue takes"),
        ("[[operators]]\nusername = 'a'\nrole = 'gate'\npassword = 'x'\n", 4, 'unknown key: "password"'),
        ("[[product]]\nsku = 'A'\n", 1, 'unknown: "product"'),
        ("\n\nversion = 1\n", 3, 'unknown: "version"'),
        ("[functions]\ncode = 'bus'\n", 1, "write [[functions]]"),
        ("functions = 3\n", 1, "write [[functions]]"),
        ("functions = [1]\n", 1, "write [[functions]]"),
        ("[[functions]]\ncode = 'b,us'\nlabel = 'B'\n", 2, 'not "b,us"'),
        ("[[functions]]\ncode = 'bus=1'\nlabel = 'B'\n", 2, "code takes"),
        ("[[functions]]\ncode = '巴士'\nlabel = 'B'\n", 2, "code takes"),
        ("[[functions]]\ncode = \"bus\\n\"\nlabel = 'B'\n", 2, "code takes"),
        (f"[[functions]]\ncode = '{'b' * 33}'\nlabel = 'B'\n", 2, "code takes"),
        ("[[functions]]\ncode = 'bus'\nlabel = \"a\\u001fb\"\n", 3, "control characters"),
        ("[[functions]]\ncode = 'bus'\nlabel = \"a\\tb\"\n", 3, "control characters"),
        ("[[functions]]\ncode = 'bus'\nlabel = \"a\\u2028b\"\n", 3, "control characters"),
        ("[[functions]]\ncode = 'bus'\nlabel = ' a'\n", 3, "blanks"),
        (f"[[functions]]\ncode = 'bus'\nlabel = '{'巴' * 81}'\n", 3, "80 characters"),
        ("[[venues]]\ncode = 'a'\nname = 'A'\nfunctions = 'bus'\n", 4, "a list of at least one function"),
        ("[[venues]]\ncode = 'a'\nname = 'A'\nfunctions = ['bus', 3]\n", 4, "3 is no function code"),
        ("[[venues]]\ncode = 'a'\nname = 'A'\nfunctions = ['bus', 'bus']\n", 4, '"bus" is there twice'),
    ],
)
def test_what_cannot_be_is_refused_with_line_and_reason(text: str, line: int, part: str) -> None:
    found_line, reason = only_fault(text)

    assert found_line == line
    assert part in reason


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        ("= 100", "= -1", 5, "from 0 to 100000000, not -1"),
        ("= 100", "= 100_000_001", 5, "price_fen takes"),
        ("= 100", "= 1.0", 5, "not 1.0"),
        ("= 100", "= true", 5, "not true"),
        ("= 100", "= '100'", 5, 'not "100"'),
        ("= 100", f"= '{'1' * 9_000}'", 5, "1..."),
        ("= 100", "= 0x" + "F" * 5_000, 5, "not so large a number"),
        ("= 10\n", "= 100_000_001\n", 6, "sellable takes"),
        ("{ bus = 1 }", "{}", 7, "at least one function"),
        ("{ bus = 1 }", "['bus']", 7, "at least one function"),
        ("{ bus = 1 }", "{ bus = 0 }", 7, "bus takes a whole number from 1 to 1000, not 0"),
        ("{ bus = 1 }", "{ bus = 1001 }", 7, "not 1001"),
        ("{ bus = 1 }", "{ bus = true }", 7, "not true"),
        ("{ bus = 1 }", "{ bus = { x = 1 } }", 7, "not a table"),
        ("{ bus = 1 }", "{ 'b,us' = 1 }", 7, '"b,us" is no function code'),
        ("{ bus = 1 }", "{ 'bus=1,ferry' = 1 }", 7, "is no function code"),
        ("{ bus = 1 }", "{ bus = 1 }\nstatus = 'active'", 8, '"ACTIVE" or "INACTIVE", not "active"'),
        ("{ bus = 1 }", "{ bus = 1 }\nvalid_days = 0", 8, "from 1 to 3660, not 0"),
        ("{ bus = 1 }", "{ bus = 1 }\nvalid_from = 2026-05-01T00:00:00", 8, "has no offset"),
        ("{ bus = 1 }", "{ bus = 1 }\nvalid_from = 2026-05-01", 8, "a time with its offset"),
        ("{ bus = 1 }", "{ bus = 1 }\nvalid_from = '2026-05-01T00:00:00Z'", 8, "a time with its offset"),
        ("{ bus = 1 }", "{ bus = 1 }\nvalid_until = 9999-12-31T23:59:59-01:00", 8, "outside of the years"),
    ],
)
def test_a_product_that_cannot_be_is_refused_with_line_and_reason(
    old: str, new: str, line: int, part: str
) -> None:
    found_line, reason = only_fault(PRODUCT.replace(old, new))

    assert found_line == line
    assert part in reason
    assert len(reason) < 200


@pytest.mark.parametrize(
    ("first", "after"), [("sale_start_at", "sale_end_at"), ("valid_from", "valid_until")]
)
def test_a_window_that_ends_before_it_begins_is_refused(first: str, after: str) -> None:
    window = f"{first} = 2026-05-01T08:00:00+08:00\n{after} = 2026-05-01T00:00:00Z\n"  # the same moment

    assert only_fault(PRODUCT + window) == (9, f"{first} must be before {after}")


def test_what_is_there_twice_is_refused_where_it_is_there_again() -> None:
    function = "[[functions]]\ncode = 'bus'\nlabel = 'Bus'\n"
    venue = "[[venues]]\ncode = 'a'\nname = 'A'\nfunctions = ['bus']\n"
    operator = "[[operators]]\nusername = 'a'\nrole = 'gate'\n"

    assert only_fault(function * 2) == (5, 'code "bus" is there already, at line 2')
    assert only_fault(venue * 2) == (6, 'code "a" is there already, at line 2')
    assert only_fault(PRODUCT * 2) == (10, 'sku "DAY" is there already, at line 3')
    assert only_fault(operator * 2) == (5, 'username "a" is there already, at line 2')
    assert parse(function + venue.replace("'a'", "'bus'")).venues[0].code == "bus"


def test_a_product_has_no_more_functions_than_a_ticket_can_keep() -> None:
    def product(count: int) -> str:
        uses = ", ".join(f"f{number} = 1" for number in range(count))
        return PRODUCT.replace("bus = 1", uses)

    assert len(parse(product(PRODUCT_FUNCTIONS_MAX)).products[0].functions) == PRODUCT_FUNCTIONS_MAX
    assert only_fault(product(PRODUCT_FUNCTIONS_MAX + 1)) == (
        7,
        "functions takes at most 16 functions, not 17",
    )


def test_functions_written_as_a_table_of_their_own_are_found_on_their_own_lines() -> None:
    text = PRODUCT.replace("functions = { bus = 1 }", "\n[products.functions]\nbus = 1\nferry = 0")

    assert only_fault(text)[0] == 10
