"""Honest requests of every route, spoilt in their body, token, signature, head or address, but well framed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random

import msgspec

from server.web.routes import Access, Route
from tests.fuzz.case import Case, Way
from tests.fuzz.spoil import odd_value, spelled, spoil_head, spoil_json, spoil_jwt, spoil_path, spoil_qr
from tests.web.stage import Ask

Sign = Callable[[Route, bytes], Mapping[str, str]]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND")
# Asked less often: each takes tens of milliseconds, of hashing a password or of writing a long text.
DEAR = frozenset(
    {"/operators/login", "/metrics", "/openapi/openapi.json", "/reports/summary", "/reports/figures"}
)
SCANS_OF_AN_UPLOAD = (1, 2, 20)


class Honest(msgspec.Struct, frozen=True):
    """A route, and a request that it answers with success."""

    route: Route
    ask: Ask


class Requests:
    """Makes cases of what is honest now."""

    def __init__(self, honest: list[Honest], tokens: Mapping[str, str], sign: Sign) -> None:
        self._all = [each for each in honest for _ in range(1 if each.route.path in DEAR else 4)]
        self._secured = [each for each in self._all if "Authorization" in each.ask.headers]
        self._signed = [each for each in honest if each.route.signed_body is not None]
        self._with_qr = [each for each in honest if b'"qr_token"' in (each.ask.body or b"")]
        (self._upload,) = [each for each in honest if each.route.path == "/venue/scans"]
        self._tokens = tokens  # kind -> bearer token
        self._sign = sign

    def any(self, dice: Random) -> Case:
        """An honest request, one to three things about it spoilt."""
        honest = dice.choice(self._all)
        method, path, body = honest.ask.method, honest.ask.path, honest.ask.body
        headers = list(honest.ask.headers.items())
        for _ in range(dice.choice((1, 1, 2, 3))):
            how = dice.randrange(10)
            if how < 5 and body is not None:
                body = spoil_json(dice, body)
            elif how < 7:
                path = spoil_path(dice, path)
            elif how < 9:
                headers = spoil_head(dice, headers)
            else:
                method = dice.choice(METHODS)
        if honest.route.signed_body is not None and dice.random() < 0.7:
            headers = _instead(headers, self._sign(honest.route, body or b""))
        return _case(dice, f"{honest.ask.method} {honest.route.path}", method, path, headers, body)

    def untouched(self, dice: Random) -> Case:
        """An honest request as it is: what it does is done, and spoilt ones come in between."""
        honest = dice.choice(self._all)
        ask = honest.ask
        headers = [each for each in ask.headers.items() if each[0] != "Idempotency-Key"]
        if "Idempotency-Key" in ask.headers:
            headers.append(("Idempotency-Key", dice.randbytes(8).hex()))
        return _case(
            dice, f"honest {ask.method} {honest.route.path}", ask.method, ask.path, headers, ask.body
        )

    def token(self, dice: Random) -> Case:
        """A garbled token, or one of another kind of caller; or a garbled QR token."""
        if dice.random() < 0.4:
            honest = dice.choice(self._with_qr)
            return self._garbled_qr(dice, honest)
        honest = dice.choice(self._secured)
        token = dice.choice(list(self._tokens.values()))
        if dice.random() < 0.85:
            token = spoil_jwt(dice, token)
        headers = _instead(list(honest.ask.headers.items()), {"Authorization": f"Bearer {token}"})
        return _case(
            dice, f"token {honest.route.path}", honest.ask.method, honest.ask.path, headers, honest.ask.body
        )

    def _garbled_qr(self, dice: Random, honest: Honest) -> Case:
        asked = json.loads(honest.ask.body or b"")
        for scan in asked.get("scans", [asked]):
            scan["qr_token"] = spoil_qr(dice, scan["qr_token"])
            if "scan_id" in scan:
                scan["scan_id"] = dice.randbytes(8).hex()
        body = spelled(asked)
        headers = list(honest.ask.headers.items())
        return _case(dice, f"qr {honest.route.path}", honest.ask.method, honest.ask.path, headers, body)

    def webhook(self, dice: Random) -> Case:
        """A notification: signed and saying anything, or honest and not signed."""
        honest = dice.choice(self._signed)
        body, headers = honest.ask.body or b"", list(honest.ask.headers.items())
        if honest.route.access is Access.WECHAT and dice.random() < 0.4:
            told = json.loads(body)
            name = dice.choice(list(told["resource"]))
            told["resource"][name] = odd_value(dice)
            body = spelled(told)
        elif dice.random() < 0.8:
            body = spoil_json(dice, body)
        if dice.random() < 0.75:
            headers = _instead(headers, self._sign(honest.route, body))
        else:
            headers = spoil_head(dice, headers)
        return _case(dice, f"webhook {honest.route.path}", honest.ask.method, honest.ask.path, headers, body)

    def upload(self, dice: Random) -> Case:
        """Scans that were made offline, some of them spoilt."""
        ask = self._upload.ask
        (scan,) = json.loads(ask.body or b"")["scans"]
        scans = []
        for _ in range(dice.choice(SCANS_OF_AN_UPLOAD)):
            each = {**scan, "scan_id": dice.randbytes(8).hex()}
            if dice.random() < 0.5:
                each[dice.choice(list(each))] = odd_value(dice)
            scans.append(each)
        body = spelled({"scans": scans})
        if dice.random() < 0.2:
            body = spoil_json(dice, body)
        return _case(dice, "upload", ask.method, ask.path, list(ask.headers.items()), body)


def _instead(headers: list[tuple[str, str]], others: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {name.lower() for name in others}
    return [each for each in headers if each[0].lower() not in names] + list(others.items())


def _case(
    dice: Random, name: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None
) -> Case:
    """Well framed, by its length or in chunks, in one packet or in several."""
    version = "HTTP/1.0" if dice.random() < 0.02 else "HTTP/1.1"
    lines = [f"{method} {path} {version}", "Host: x", *(f"{each}: {value}" for each, value in headers)]
    raw = body or b""
    if body is not None and version == "HTTP/1.1" and dice.random() < 0.05:
        lines.append("Transfer-Encoding: chunked")
        cut = dice.randrange(len(raw) + 1)
        raw = (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:cut], raw[cut:], b"") if part)
            + b"0\r\n\r\n"
        )
    elif body is not None:
        lines.append(f"Content-Length: {len(raw)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    packets = (head + raw,)
    if raw and dice.random() < 0.05:
        packets = (head, raw)  # type: ignore[assignment]
    return Case(way=Way.REQUEST, name=name, packets=packets)
