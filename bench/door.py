"""What the servers that we compare with check before they ask a database, with the product's own parts: token, body,
QR, venue. They leave out what the product does besides: metrics, request ids, the backlog's bound.
"""

from __future__ import annotations

import time

import msgspec
from aiohttp import hdrs, web

from server.config import Config
from server.domain import qr
from server.domain.catalog import Directory
from server.domain.redemption import Scan, Verdict
from server.store import catalog
from server.store.pool import Database
from server.web.auth import Tokens, staff
from server.web.scanning import ScanRequest

_decode = msgspec.json.Decoder(ScanRequest).decode


class Door:
    """Reads scans. The catalog is that of the start: nothing changes it in a run."""

    def __init__(self, config: Config, directory: Directory) -> None:
        self._keys = qr.QrKeys(dict(config.qr_keys), current=config.qr_keys[0][0])
        self._tokens = Tokens(config.jwt_keys)
        self._directory = directory

    @classmethod
    async def open(cls, config: Config, database: Database) -> Door:
        """With the catalog as it stands."""
        async with database.transaction(read_only=True) as connection:
            return cls(config, await catalog.read_directory(connection))

    async def read(self, request: web.Request) -> Scan:
        """The scan of a request. Raises Refusal for a caller who may not, ValueError for a body or QR that is none."""
        operator = staff(self._tokens.verify(request.headers.get(hdrs.AUTHORIZATION)), self._directory)
        asked = _decode(await request.read())
        content = qr.read(self._keys, asked.qr_token)
        if isinstance(content, qr.QrFault) or asked.scan_id is None or asked.venue_code is None:
            raise ValueError("the load generator sends whole scans only")
        now_ms = int(time.time() * 1000)
        ruled = None
        if content.expired(now_ms):
            ruled = Verdict.QR_EXPIRED
        elif asked.function_code not in self._directory.venues[asked.venue_code].functions:
            ruled = Verdict.WRONG_VENUE_FUNCTION
        return Scan(
            scan_id=asked.scan_id,
            ticket_code=content.ticket_code,
            function_code=asked.function_code,
            jti=content.jti,
            at_ms=now_ms,
            operator=operator.username,
            venue_code=asked.venue_code,
            terminal_device_id=asked.terminal_device_id or "",
            ruled=ruled,
        )
