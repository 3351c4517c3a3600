"""Which keys a server accepts, told to the audit trail: by their ids and fingerprints, never the keys themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from server.config import Config
from server.config.fingerprints import keys_in_use
from server.domain.audit import Act, Action
from server.store import audit
from server.store.pool import Database

_SUBJECT: Final = "keys"


async def tell_keys(db: Database, config: Config, actor: str) -> bool:
    """Write into the trail which keys this process accepts, unless the last entry says so already. True: written.

    So many processes with the same keys are one entry; a rotation is one, with what was before. Raises
    Refusal(POSTGRES_UNAVAILABLE): to be tried again, since a server starts without Postgres, too.
    """
    keys = keys_in_use(config)
    async with db.transaction() as connection:
        last = await audit.newest(connection, Action.KEYS_CHANGED, _SUBJECT)
        before = {purpose: change["new"] for purpose, change in (last or {}).items()}
        if before == keys:
            return False
        details = _compared(before, keys)
        await audit.record(connection, [Act(Action.KEYS_CHANGED, _SUBJECT, details)], actor=actor)
    return True


def _compared(before: Mapping[str, Sequence[str]], keys: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Every purpose with what is accepted now, and with `old` where that is something else than before."""
    details: dict[str, Any] = {}
    for purpose in {**keys, **before}:
        new, old = list(keys.get(purpose, ())), before.get(purpose)
        details[purpose] = {"new": new} if old in (None, new) else {"old": old, "new": new}
    return details
