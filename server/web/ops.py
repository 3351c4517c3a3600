"""What the operators of the service ask: alive, fit to serve, metrics; and the API's own description."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Literal

import aiohttp_apispec
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from server.domain.errors import ErrorCode, Refusal
from server.limits import CERTIFICATE_ENDS_S
from server.store import outbox, redemptions
from server.telemetry import OUTBOX_WAITING, render_metrics
from server.web import appkeys
from server.web.body import Time

FLUSHER_LATE_S = 5.0  # normally under 0.1 s: past this nobody flushes, or Postgres is away
OUTBOX_LATE_S = 5.0  # normally under 0.1 s: past this nobody publishes
_PAGE_DIR: Final = Path(__file__).parent / "static"
_VIEWER_DIR: Final = Path(aiohttp_apispec.__file__).parent / "static"
_DOCS_PAGE: Final = (_PAGE_DIR / "docs.html").read_bytes()
_DOCS_FILES: Final = {
    "docs.js": _PAGE_DIR,
    "swagger-ui.css": _VIEWER_DIR,
    "swagger-ui-bundle.js": _VIEWER_DIR,
    "favicon-32x32.png": _VIEWER_DIR,
}
# Only our own files, and no other server: what the viewer is asked to show by its address stays on this one.
_DOCS_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"]


class Readiness(msgspec.Struct, frozen=True):
    """`ready`; `degraded`: gates work, with the reasons listed; `unready` (503): scans cannot be judged here."""

    status: Literal["ready", "degraded", "unready"]
    reasons: list[str]
    flusher_lag_s: float
    stream_entries: int
    outbox_waiting: int | None
    dead_letters: int | None
    wechat_certificate_ends_at: Time | None


async def healthz(request: web.Request, caller: None, body: None) -> Health:
    """The process answers."""
    return Health("alive")


async def readyz(request: web.Request, caller: None, body: None) -> web.Response:
    """Whether gates can be served here, and what is wrong. Postgres away only degrades: scans go on without it."""
    backlog = request.app[appkeys.BACKLOG]
    seen = backlog.seen
    fatal = []
    if not seen.redis_up:
        fatal.append("REDIS_UNAVAILABLE")
    elif not seen.open:
        fatal.append("GATE_CLOSED")
    if backlog.full():
        fatal.append("BACKLOG_FULL")
    if not request.app[appkeys.DIRECTORY].loaded:
        fatal.append("CATALOG_NOT_LOADED")
    minor = ["FLUSHER_LATE"] if seen.lag_s > FLUSHER_LATE_S else []
    waiting = letters = None
    try:
        async with request.app[appkeys.DATABASE].connection() as connection:
            waiting, oldest_s = await outbox.backlog(connection)
            letters = await redemptions.count_dead_letters(connection)
        OUTBOX_WAITING.set(waiting)
        if oldest_s > OUTBOX_LATE_S:
            minor.append("OUTBOX_LATE")
        if letters:
            minor.append("DEAD_LETTERS")
    except Refusal as refusal:
        minor.append(refusal.code.name)
    merchant = request.app.get(appkeys.MERCHANT)
    certificate_ends_at = min(merchant.account.certificates_end().values()) if merchant else None
    if certificate_ends_at is not None:
        left_s = certificate_ends_at.timestamp() - time.time()
        if left_s < CERTIFICATE_ENDS_S:
            minor.append("WECHAT_CERTIFICATE_ENDS" if left_s > 0 else "WECHAT_CERTIFICATE_ENDED")
    answer = Readiness(
        "unready" if fatal else "degraded" if minor else "ready",
        fatal + minor,
        round(seen.lag_s, 3),
        seen.entries,
        waiting,
        letters,
        certificate_ends_at,
    )
    return web.Response(
        status=503 if fatal else 200, body=msgspec.json.encode(answer), content_type="application/json"
    )


async def metrics(request: web.Request, caller: None, body: None) -> web.Response:
    """Prometheus text, of all processes that serve this address."""
    for tally in (appkeys.TALLY, appkeys.STREAM_TALLY):
        request.app[tally].bring()
    text = render_metrics(request.app[appkeys.METRICS])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def openapi_document(request: web.Request, caller: None, body: None) -> web.Response:
    """The OpenAPI 3.0.3 document of this very server."""
    return web.Response(body=request.app[appkeys.OPENAPI], content_type="application/json")


async def docs(request: web.Request, caller: None, body: None) -> web.Response:
    """The same document as a page for people."""
    return web.Response(body=_DOCS_PAGE, content_type="text/html", charset="utf-8", headers=_DOCS_HEADERS)


async def docs_file(request: web.Request) -> web.FileResponse:
    """What the page is made of: these files and no other."""
    name = request.match_info["file"]
    if name not in _DOCS_FILES:
        raise Refusal(ErrorCode.NOT_FOUND)
    return web.FileResponse(_DOCS_FILES[name] / name, headers={"Cache-Control": "max-age=3600"})
