"""Reading one table of a TOML document against rules, and noting everything that is wrong with it, with its line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from server.domain.toml_lines import Lines, Path
from server.limits import (
    CODE_CHARS_MAX,
    ENTITLEMENT_QUANTITY_MAX,
    LOGIN_NAME_CHARS_MAX,
    NAME_CHARS_MAX,
    PRODUCT_FUNCTIONS_MAX,
)

CODE: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{CODE_CHARS_MAX}}}")  # redeem.lua finds ",code=" in a text
USERNAME: Final = re.compile(rf"[A-Za-z0-9._@-]{{1,{LOGIN_NAME_CHARS_MAX}}}")
_SHOWN_CHARS_MAX: Final = 40  # of a wrong value, in its reason
_INTEGER_BITS_MAX: Final = 128  # longer ones are not spelled out
_ChoiceT = TypeVar("_ChoiceT", bound=Enum)


class Fault(msgspec.Struct, frozen=True):
    """Why the file cannot be, and the line (from 1) that says so."""

    line: int
    reason: str


def is_name(text: str) -> bool:
    """1 to 80 characters, no blanks around, and no control characters: some of them separate texts in Redis."""
    return (
        1 <= len(text) <= NAME_CHARS_MAX
        and text == text.strip()
        and not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)
    )


class Table:
    """One table of the file. What is asked of it is checked; what is wrong is noted, and a stand-in given back."""

    def __init__(self, values: dict[str, Any], path: Path, lines: Lines, faults: list[Fault]) -> None:
        self._values = values
        self._asked: set[str] = set()
        self._path = path
        self._lines = lines
        self._faults = faults

    def fault(self, reason: str, *keys: str) -> None:
        """Note what is wrong with the value of a key, or with the whole table."""
        self._faults.append(Fault(self._lines.at(*self._path, *keys), reason))

    def has(self, key: str) -> bool:
        """Whether the key is there at all."""
        return key in self._values

    def close(self) -> None:
        """Note the keys that nobody asked for."""
        for key in self._values.keys() - self._asked:
            self.fault(f"unknown key: {shown(key)}", key)

    def text(self, key: str, rule: str, holds: Callable[[str], object]) -> str:
        """A text that keeps a rule."""
        value = self._take(key)
        if value is None:
            self.fault(f"{key} is missing")
        elif not isinstance(value, str) or not holds(value):
            self.fault(f"{key} takes {rule}, not {shown(value)}", key)
        else:
            return value
        return ""

    def code(self, key: str) -> str:
        """A function or venue code, or a SKU."""
        return self.text(key, f"a text of 1 to {CODE_CHARS_MAX} of A-Z a-z 0-9 _ -", CODE.fullmatch)

    def name(self, key: str) -> str:
        """A text for people."""
        rule = f"a text of 1 to {NAME_CHARS_MAX} characters, without control characters or blanks around it"
        return self.text(key, rule, is_name)

    def whole(self, key: str, low: int, high: int, *, optional: bool = False) -> int | None:
        """A whole number; None: left out."""
        value = self._take(key)
        if value is None:
            if not optional:
                self.fault(f"{key} is missing")
        elif not _is_whole(value, low, high):
            self.fault(f"{key} takes a whole number from {low} to {high}, not {shown(value)}", key)
        else:
            return int(value)
        return None

    def choice(self, key: str, choices: type[_ChoiceT], default: _ChoiceT | None) -> _ChoiceT:
        """One of an enum's values."""
        value = self._take(key)
        first = next(iter(choices))
        if value is None:
            if default is None:
                self.fault(f"{key} is missing")
            return default or first
        for member in choices:
            if value == member.value:
                return member
        spelled = " or ".join(f'"{member.value}"' for member in choices)
        self.fault(f"{key} takes {spelled}, not {shown(value)}", key)
        return first

    def moment(self, key: str) -> datetime | None:
        """A time, in UTC; None: left out."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, datetime):
            self.fault(
                f"{key} takes a time with its offset, as 2026-05-01T08:00:00+08:00, not {shown(value)}", key
            )
        elif value.tzinfo is None:
            self.fault(f"{key} has no offset: write Z or, say, +08:00 after the time", key)
        else:
            try:
                return value.astimezone(UTC)
            except OverflowError:
                self.fault(f"{key} is outside of the years 1 to 9999 in UTC", key)
        return None

    def window(self, first: str, after: str) -> tuple[datetime | None, datetime | None]:
        """Two times, the first before the second."""
        since, until = self.moment(first), self.moment(after)
        if since is not None and until is not None and since >= until:
            self.fault(f"{first} must be before {after}", after)
        return since, until

    def codes(self, key: str) -> list[str]:
        """A list of different function codes, at least one."""
        value = self._take(key)
        if value is None:
            self.fault(f"{key} is missing")
        elif not isinstance(value, list) or not value:
            self.fault(f'{key} takes a list of at least one function, as ["bus"], not {shown(value)}', key)
        else:
            for position, code in enumerate(value):
                if not isinstance(code, str) or not CODE.fullmatch(code):
                    self.fault(f"{key}: {shown(code)} is no function code", key)
                elif code in value[:position]:
                    self.fault(f"{key}: {shown(code)} is there twice", key)
            return [code for code in value if isinstance(code, str)]
        return []

    def quantities(self, key: str) -> list[tuple[str, int]]:
        """Function codes with the uses of each, at least one, in their order."""
        value = self._take(key)
        if value is None:
            self.fault(f"{key} is missing")
        elif not isinstance(value, dict) or not value:
            self.fault(
                f"{key} takes at least one function with its uses, as {{ bus = 2 }}, not {shown(value)}", key
            )
        elif len(value) > PRODUCT_FUNCTIONS_MAX:
            self.fault(f"{key} takes at most {PRODUCT_FUNCTIONS_MAX} functions, not {len(value)}", key)
        else:
            for code, uses in value.items():
                if not CODE.fullmatch(code):
                    self.fault(f"{key}: {shown(code)} is no function code", key, code)
                elif not _is_whole(uses, 1, ENTITLEMENT_QUANTITY_MAX):
                    reason = f"takes a whole number from 1 to {ENTITLEMENT_QUANTITY_MAX}, not {shown(uses)}"
                    self.fault(f"{key}: {code} {reason}", key, code)
            return list(value.items())
        return []

    def _take(self, key: str) -> Any:
        self._asked.add(key)
        return self._values.get(key)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def shown(value: object) -> str:
    """A value as a reason quotes it, cut short."""
    if isinstance(value, str):
        text = msgspec.json.encode(value).decode()
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict | list):
        return "an empty one" if not value else "a table" if isinstance(value, dict) else "a list"
    elif isinstance(value, int) and value.bit_length() > _INTEGER_BITS_MAX:
        return "so large a number"
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."
