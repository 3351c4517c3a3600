"""The header of every Lua script agrees with its text, with the enums that give its codes meaning, and with its use."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

import pytest

from server.domain.redemption import Undecided, Verdict
from server.hot import loading, tickets
from server.hot.scripts import LUA_DIR
from server.hot.stock import CapCode, HoldCode
from tests.structure.sources import parsed

SCRIPTS = sorted(path.stem for path in LUA_DIR.glob("*.lua"))
_SIZES = re.compile(
    r"^FIRST_|_PER_|_A_CALL$"
)  # constants that count keys and arguments; all others are codes


@dataclass(frozen=True)
class Named:
    """KEYS or ARGV as the header names them: those by number, and those that come once per thing."""

    fixed: list[str]
    per: list[str]


@dataclass(frozen=True)
class Source:
    name: str
    first_line: str
    header: dict[str, list[str]]  # KEYS, ARGV, RETURNS, CODES -> what follows, once per line
    body: str

    def named(self, array: str) -> Named:
        (text,) = self.header[array]
        before, _, after = text.partition(";")[0].partition("per ")
        fixed = re.findall(r"(\d+) (\w+)", before)
        assert [int(number) for number, _ in fixed] == list(range(1, len(fixed) + 1)), text
        return Named([name for _, name in fixed], after.partition(": ")[2].split(", ") if after else [])

    def codes(self) -> dict[str, int]:
        found = re.findall(r"(\w+)=(-?\d+)", " ".join(self.header.get("CODES", [])))
        return {name: int(number) for name, number in found}

    def constants(self) -> dict[str, int]:
        """Every `local NAMES = numbers`."""
        constants = {}
        for names, numbers in re.findall(r"^local ([A-Z][A-Z_, ]*) = ([-\d, ]+)$", self.body, re.MULTILINE):
            constants |= dict(zip(names.split(", "), map(int, numbers.split(", ")), strict=True))
        return constants


def read(name: str) -> Source:
    lines = (LUA_DIR / f"{name}.lua").read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    header: dict[str, list[str]] = {}
    for line in lines[1:end]:
        if match := re.match(r"-- (KEYS|ARGV|RETURNS|CODES): (.+)$", line):
            header.setdefault(match[1], []).append(match[2])
    code = "\n".join(re.sub(r"--.*$", "", line) for line in lines[end:])
    return Source(name, lines[0], header, code)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_says_purpose_keys_arguments_and_result(name: str) -> None:
    source = read(name)

    assert source.first_line.startswith(f"-- {name}: ")
    assert source.header.keys() >= {"KEYS", "ARGV", "RETURNS"}


@pytest.mark.parametrize("array", ["KEYS", "ARGV"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_and_arguments_are_used_as_the_header_numbers_them(name: str, array: str) -> None:
    source = read(name)
    named = source.named(array)
    used = {int(number) for number in re.findall(rf"\b{array}\[(\d+)\]", source.body)}

    assert used == set(range(1, len(named.fixed) + 1))
    assert bool(re.search(rf"\b{array}\[[^\d\]]|unpack\({array}|#{array}", source.body)) is bool(named.per)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_comes_per_thing_begins_and_repeats_as_the_header_says(name: str) -> None:
    source = read(name)
    constants = source.constants()
    for array, word in (("KEYS", "KEY"), ("ARGV", "ARG")):
        named = source.named(array)
        per = r"^(KEYS|ARGS)_PER_".replace("KEYS|ARGS", f"{word}S")
        firsts = [value for key, value in constants.items() if re.fullmatch(rf"FIRST_\w+_{word}", key)]
        counts = [value for key, value in constants.items() if re.match(per, key)]
        assert firsts in ([], [len(named.fixed) + 1])
        assert counts in ([], [len(named.per)])
    offsets = [int(offset) for offset in re.findall(r"\bARGV\[arg \+ (\d+)\]", source.body)]
    assert not offsets or max(offsets) == len(source.named("ARGV").per) - 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_codes_are_those_of_the_header_and_all_are_used(name: str) -> None:
    source = read(name)
    codes = {key: value for key, value in source.constants().items() if not _SIZES.search(key)}

    assert codes == source.codes()
    for code in source.constants():
        assert len(re.findall(rf"\b{code}\b", source.body)) > 1, f"{code} is not used"


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("hold", [HoldCode]),
        ("cap", [CapCode]),
        ("redeem", [Undecided]),
    ],
)
def test_an_enum_gives_every_code_its_meaning(name: str, meaning: list[type[enum.IntEnum]]) -> None:
    codes = read(name).codes()
    if name == "redeem":  # the other verdicts are ruled outside and only passed through
        verdicts = {code: number for code, number in codes.items() if number >= 0}
        assert verdicts.items() <= {each.name: each.value for each in Verdict}.items()
        codes = {code: number for code, number in codes.items() if number < 0}

    assert codes == {each.name: each.value for members in meaning for each in members}


def test_a_ticket_is_not_loaded_into_a_closed_gate_by_one_number() -> None:
    assert read("load").codes() == {"GATE_CLOSED": tickets._CLOSED}
    assert read("fill").codes() == {"OVERTAKEN": loading._OVERTAKEN}


def test_every_script_is_used_and_every_use_has_its_script() -> None:
    sources = [(path, path.read_text(encoding="utf-8")) for path in parsed("server")]
    used = [name for _, text in sources for name in re.findall(r'\bScript\("(\w+)"\)', text)]

    assert sorted(used) == SCRIPTS
