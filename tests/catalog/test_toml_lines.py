"""Tables and keys of a TOML document are found on the lines on which they stand."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from server.domain.toml_lines import locate


def test_tables_of_an_array_are_told_apart_and_so_are_their_keys() -> None:
    lines = locate("# head\n\n[[a]]\nx = 1\ny = 2\n\n[[a]]\nx = 3\n[[b]]\nx = 4\n")

    assert [lines.at("a", 0), lines.at("a", 0, "x"), lines.at("a", 0, "y")] == [3, 4, 5]
    assert [lines.at("a", 1), lines.at("a", 1, "x")] == [7, 8]
    assert [lines.at("b", 0), lines.at("b", 0, "x")] == [9, 10]


def test_a_key_that_is_not_there_is_found_at_what_is_around_it() -> None:
    lines = locate("[[a]]\nx = 1\n[[a]]\nx = 2\n")

    assert lines.at("a", 1, "nowhere") == 3
    assert lines.at("a") == 1
    assert lines.at("nowhere", 4, "x") == 1


def test_what_stands_inside_a_value_is_found_at_the_key_of_the_value() -> None:
    lines = locate("[[a]]\nuses = { bus = 2, ferry = 1 }\nlist = [\n  1,\n  2,\n]\nz = 1\n")

    assert lines.at("a", 0, "uses", "ferry") == 2
    assert lines.at("a", 0, "list", 1) == 3
    assert lines.at("a", 0, "z") == 7


def test_tables_below_a_table_of_an_array_belong_to_the_last_one() -> None:
    lines = locate("[[a]]\nx = 1\n[[a]]\nx = 2\n[a.uses]\nbus = 1\n[[a.deep]]\ny = 1\n[[a.deep]]\ny = 2\n")

    assert lines.at("a", 1, "uses", "bus") == 6
    assert lines.at("a", 1, "deep", 1, "y") == 10
    assert lines.at("a", 0, "uses") == 1


def test_dotted_and_quoted_keys_are_the_keys_that_they_spell() -> None:
    lines = locate("[[ 'a' ]]\n\"b\\u0021\" = 1\nc . 'd.e' = 2\n[ f . \"g\" ]\nh=1")

    assert lines.at("a", 0, "b!") == 2
    assert lines.at("a", 0, "c", "d.e") == 3
    assert lines.at("f", "g") == 4
    assert lines.at("f", "g", "h") == 5


# Values that look like something else, each with the lines that it takes.
_VALUES = st.sampled_from(
    [
        "1",
        "2026-05-01T08:00:00+08:00",
        '"[[not.a.table]] # no comment = {"',
        '"quoted \\" and \\\\"',
        "'\\'",
        '""',
        "''",
        '"""\n[[no]]\nx = 1\n"""',
        '"""one "quote" and two "" and an end with two quotes"""""',
        '"""escaped \\""" goes on\n"""',
        "'''\n# no comment\n[[no]]'''",
        "'''it ends with two '''''",
        '["a",\n  "]", # ]\n  """\n]\n""",\n]',
        "{ bus = 2, list = [\n1,\n2] }",
        "[[1, 2],\n[3]]",
        '1 # a comment with "a quote and a [bracket',
    ]
)
_BETWEEN = st.sampled_from(["", "# [[a]]", "   # x = '", "\t"])


@given(st.lists(st.tuples(st.booleans(), _VALUES, _BETWEEN, st.integers(0, 3)), max_size=12))
def test_strings_arrays_and_comments_never_shift_what_comes_after(
    parts: list[tuple[bool, str, str, int]],
) -> None:
    text, expected, tables = "[[a]]\n", {("a", 0): 1}, 1
    for number, (new_table, value, between, indent) in enumerate(parts):
        if new_table:
            expected["a", tables] = text.count("\n") + 1
            text += " " * indent + "[[a]]\n"
            tables += 1
        text += between + "\n"
        expected["a", tables - 1, f"k{number}"] = text.count("\n") + 1
        text += " " * indent + f"k{number} = {value}\n"
    tomllib.loads(text)
    lines = locate(text)

    assert {path: lines.at(*path) for path in expected} == expected
