"""The three screens: the buyer's, the gate's and the report, and the files that they are made of.

Every file is read once, at start, and kept with its packed form; a browser asks again each time, by its tag, so that
an upgrade is seen at once. Nothing of them comes from another origin, and no script stands in a page.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import hdrs, web

from server.domain.errors import ErrorCode, Refusal

_DIR: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WORKER: Final = "gate/worker.js"
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), screen-wake-lock=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    packed: bytes
    tag: str
    kind: str


def _file(body: bytes, kind: str) -> _File:
    tag = hashlib.sha256(body).hexdigest()[:16]
    return _File(body, gzip.compress(body, 9, mtime=0), f'"{tag}"', kind)


def _read_all() -> dict[str, _File]:
    files = {
        path.relative_to(_DIR).as_posix(): _file(path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(_DIR.rglob("*"))
        if path.suffix in _TYPES and not path.name.startswith("docs.")
    }
    return {**files, _WORKER: _worker(files)}


def _worker(files: dict[str, _File]) -> _File:
    """The gate's service worker, told what it is to keep: the gate's page and all that it is made of."""
    kept = {"/gate": files["gate.html"].tag.strip('"')}
    for name, file in files.items():
        shared = "/" not in name and not name.endswith(".html")
        if name != _WORKER and (shared or name.startswith("gate/")):
            kept[f"/static/{name}"] = file.tag.strip('"')
    told = b"const KEPT = " + msgspec.json.encode(kept) + b";\n"
    return _file(told + files[_WORKER].body, files[_WORKER].kind)


_FILES: Final = _read_all()


async def buyer_page(request: web.Request, caller: None, body: None) -> web.Response:
    """The buyer's screen."""
    return _answer(request, "buyer.html")


async def gate_page(request: web.Request, caller: None, body: None) -> web.Response:
    """The gate's screen."""
    return _answer(request, "gate.html")


async def report_page(request: web.Request, caller: None, body: None) -> web.Response:
    """The report's screen."""
    return _answer(request, "report.html")


async def static_file(request: web.Request) -> web.Response:
    """What the pages are made of: these files and no other."""
    return _answer(request, request.match_info["file"])


def _answer(request: web.Request, name: str) -> web.Response:
    file = _FILES.get(name)
    if file is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    headers = {**HEADERS, hdrs.CONTENT_TYPE: file.kind, hdrs.CACHE_CONTROL: "no-cache", hdrs.ETAG: file.tag}
    headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if name == _WORKER:
        headers["Service-Worker-Allowed"] = "/gate"  # it lies beside the page that it is for
    if request.headers.get(hdrs.IF_NONE_MATCH) == file.tag:
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        return web.Response(body=file.packed, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
    return web.Response(body=file.body, headers=headers)
