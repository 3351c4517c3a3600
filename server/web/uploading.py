"""Scans that gates made while they were offline: what they upload, and what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from server.domain.catalog import Operator
from server.domain.errors import Refusal
from server.domain.redemption import Decision
from server.flows.admit import Presented
from server.limits import UPLOAD_SCANS_MAX
from server.web import appkeys
from server.web.body import Time, decode
from server.web.deadline import left_s
from server.web.errors import error_body, id_of
from server.web.scanning import Code, QrToken, ScanId, TerminalId, scan_answer
from server.web.schemas import either

PATH: Final = "/venue/scans"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_encode: Final = msgspec.json.Encoder().encode
_INTERNAL: Final = b"null"  # never sent: every scan is told something


class UploadedScan(msgspec.Struct, frozen=True):
    """A scan, as in `POST /venue/scan`, and when it was made."""

    qr_token: QrToken
    function_code: Code
    scan_id: ScanId
    scanned_at: Time
    venue_code: Code | None = None
    terminal_device_id: TerminalId | None = None


class _Named(msgspec.Struct, frozen=True):
    """What a scan that cannot be read is recognised by."""

    scan_id: ScanId


class UploadRequest(msgspec.Struct, frozen=True):
    """Scans in the order in which they were made; one that is not as it must be is refused alone."""

    scans: Annotated[
        list[Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=either("UploadedScan", None))]],
        msgspec.Meta(min_length=1, max_length=UPLOAD_SCANS_MAX),
    ]


class UploadAnswer(msgspec.Struct, frozen=True):
    """An answer to each scan, in the order in which they were asked: its verdict, or an error with its `scan_id`."""

    answers: list[Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=either("ScanAnswer", "ErrorBody"))]]


class _Answers:
    """The answers of one upload, each encoded when it comes."""

    def __init__(self, number: int, request_id: str) -> None:
        self.encoded = [_INTERNAL] * number
        self.scan_ids: dict[int, str] = {}
        self._request_id = request_id

    def tell(self, place: int, outcome: Decision | Refusal) -> None:
        scan_id = self.scan_ids.get(place)
        if isinstance(outcome, Decision):
            self.encoded[place] = _encode(scan_answer(outcome, scan_id or ""))
            return
        detail: dict[str, Any] = {} if scan_id is None else {"scan_id": scan_id}
        told = Refusal(outcome.code, outcome.message, **{**outcome.detail, **detail})
        self.encoded[place] = error_body(told, self._request_id)


async def upload(request: web.Request, caller: Operator, body: UploadRequest) -> UploadAnswer:
    """Judge up to 500 scans that were made while the gate was offline: an answer for each, in order.

    Each QR and each ticket is judged as of `scanned_at`, within a window (else SCAN_TOO_OLD or SCAN_IN_FUTURE, final).
    Scans of one ticket are judged in the order of the list. A scan that gets no verdict gets an error for itself; its
    codes are those of `POST /venue/scan`, and what was OVERLOADED or the like may be uploaded again, with its scan_id.
    """
    answers = _Answers(len(body.scans), id_of(request))

    def read(place: int, raw: msgspec.Raw) -> Presented | None:
        try:
            scan = decode(bytes(raw), UploadedScan)
        except Refusal as refusal:
            answers.scan_ids |= _named(place, raw)
            answers.tell(place, refusal)
            return None
        answers.scan_ids[place] = scan.scan_id
        return _presented(scan)

    scans = (
        (place, presented)
        for place, raw in enumerate(body.scans)
        if (presented := read(place, raw)) is not None
    )
    await request.app[appkeys.UPLOADS].judge(scans, caller, answers.tell, left_s(request))
    return UploadAnswer([msgspec.Raw(each) for each in answers.encoded])


def _named(place: int, raw: msgspec.Raw) -> dict[int, str]:
    """The scan_id of a scan that cannot be read, if that at least can be."""
    try:
        return {place: decode(bytes(raw), _Named).scan_id}
    except Refusal:
        return {}


def _presented(scan: UploadedScan) -> Presented:
    return Presented(
        qr_token=scan.qr_token,
        function_code=scan.function_code,
        scan_id=scan.scan_id,
        venue_code=scan.venue_code or "",
        terminal_device_id=scan.terminal_device_id or "",
        made_ms=(scan.scanned_at - _EPOCH) // _MS,
    )
