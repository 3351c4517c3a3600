"""The audit trail: who changed what of the catalog, its people and the keys, and when."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec


class Action(enum.Enum):
    """What was done. `audit_trail.action` takes these and no others (tested)."""

    CATALOG_ADDED = "CATALOG_ADDED"  # by a catalog file: a function, venue or product
    CATALOG_CHANGED = "CATALOG_CHANGED"
    OPERATOR_ADDED = "OPERATOR_ADDED"
    OPERATOR_CHANGED = "OPERATOR_CHANGED"  # role or venue
    OPERATOR_DISABLED = "OPERATOR_DISABLED"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105 - a name; also enables the account
    KEYS_CHANGED = "KEYS_CHANGED"  # a server accepts or uses other keys than the one before it
    RESTORED = "RESTORED"  # the record was read back from a backup


class Act(msgspec.Struct, frozen=True):
    """One thing done. `details`: what JSON can hold, `{"price_fen": {"old": 12800, "new": 9900}}`; never a secret."""

    action: Action
    subject: str  # "product DAY", a user name, "keys"
    details: Mapping[str, Any] = {}


class Entry(msgspec.Struct, frozen=True):
    """An act as the trail has it."""

    at: datetime
    actor: str  # "alice@host", "gateline serve 4711@host"
    database_role: str
    action: Action
    subject: str
    details: Mapping[str, Any]

    def __str__(self) -> str:
        """For people: one line, `price_fen 12800 -> 9900` for each detail."""
        told = ", ".join(f"{name} {_change(value)}" for name, value in self.details.items())
        head = f"{self.at:%Y-%m-%d %H:%M:%S}Z  {self.actor}  {self.action.value}  {self.subject}"
        return f"{head}: {told}" if told else head


def _change(value: Any) -> str:
    if not isinstance(value, Mapping) or "new" not in value:
        return _text(value)
    return " -> ".join(_text(value[side]) for side in ("old", "new") if side in value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
