"""The simulated WeChat with a merchant who signs by hand, and that merchant's server, which takes notifications."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from yarl import URL

from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from tests.road import PATIENCE_S

FEN = 1234
SILENCE = 0  # in place of a status: the merchant's server says nothing for half a second
CREATE = "/v3/pay/transactions/{}"
ORDER = "/v3/pay/transactions/out-trade-no/{}"


def number() -> str:
    """A fresh out_trade_no."""
    return "gl" + secrets.token_hex(12)


def asked(keys: WeChatKeys, _notify_url: str, _openid: str, /, **changes: Any) -> dict[str, Any]:
    """Parameters that WeChat takes; a change to None leaves the field out."""
    body = {
        "appid": keys.miniprogram_appid,
        "mchid": keys.mchid,
        "description": "Ferry and bus",
        "out_trade_no": number(),
        "notify_url": _notify_url,
        "amount": {"total": FEN, "currency": "CNY"},
        "payer": {"openid": _openid},
        "scene_info": {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}},
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def sealed_by(keys: WeChatKeys, headers: Mapping[str, str], body: bytes) -> str:
    """The serial number by which an answer or a notification is signed, checked by the documentation; "" for none."""
    if "Wechatpay-Signature" not in headers:
        return ""
    serial = headers["Wechatpay-Serial"]
    known = {
        keys.public_key_id: keys.pay_key.public_key(),
        keys.platform_serial: keys.platform_key.public_key(),
    }
    text = f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n".encode() + body + b"\n"
    known[serial].verify(base64.b64decode(headers["Wechatpay-Signature"]), text, padding.PKCS1v15(), SHA256())
    return serial


@dataclass
class Answer:
    """What the simulator answered; headers are found in any case."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Told:
    """A notification as the merchant's server received it."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Scene:
    """Both servers, and what one does with them."""

    wechat: WeChat
    url: str
    session: ClientSession
    notify_url: str
    answers: list[int]  # statuses of the next answers to notifications; then 200
    told: list[Told]

    @property
    def keys(self) -> WeChatKeys:
        return self.wechat.keys

    def openid(self, user: str = "ann") -> str:
        return self.wechat.openid(user, self.keys.miniprogram_appid)

    def asked(self, **changes: Any) -> dict[str, Any]:
        return asked(self.keys, self.notify_url, self.openid(), **changes)

    def authorization(self, method: str, path: str, body: bytes, **changes: Any) -> str:
        """The Authorization header, written down from the documentation; changes come before or after signing."""
        stamp = changes.get("timestamp", str(int(time.time())))
        nonce = secrets.token_hex(16)
        text = f"{method}\n{changes.get('signed_path', path)}\n{stamp}\n{nonce}\n".encode() + body + b"\n"
        signature = self.keys.mch_key.sign(text, padding.PKCS1v15(), SHA256())
        fields = {
            "mchid": changes.get("mchid", self.keys.mchid),
            "serial_no": changes.get("serial_no", self.keys.mch_serial),
            "nonce_str": nonce,
            "timestamp": stamp,
            "signature": changes.get("signature", base64.b64encode(signature).decode()),
        }
        return "WECHATPAY2-SHA256-RSA2048 " + ",".join(f'{name}="{value}"' for name, value in fields.items())

    async def call(
        self, method: str, path: str, body: Any = None, *, public_key: bool = True, **changes: Any
    ) -> Answer:
        """A signed call; what is changed is changed before or after signing, see `authorization`."""
        raw = b"" if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": self.authorization(method, path, raw, **changes),
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        if public_key:
            headers["Wechatpay-Serial"] = self.keys.public_key_id
        target = URL(self.url + path, encoded=True)  # what was signed, to the letter
        async with self.session.request(method, target, data=raw, headers=headers) as answer:
            return Answer(answer.status, answer.headers.copy(), await answer.read())

    async def create(self, call: str = "jsapi", **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what was asked, the answer) of a payment that was accepted."""
        body = self.asked(**changes)
        answer = await self.call("POST", CREATE.format(call), body)
        assert answer.status == 200, answer.raw
        return body, answer.json

    async def query(self, number: str) -> dict[str, Any]:
        """The transaction as the merchant is told it."""
        answer = await self.call("GET", f"{ORDER.format(number)}?mchid={self.keys.mchid}")
        assert answer.status == 200
        told: dict[str, Any] = answer.json
        return told

    def launch(self, prepay_id: str, **changes: Any) -> dict[str, Any]:
        """What a Mini Program hands to wx.requestPayment; changes come after the signature."""
        payload = {
            "appId": self.keys.miniprogram_appid,
            "timeStamp": str(int(time.time())),
            "nonceStr": secrets.token_hex(16),
            "package": f"prepay_id={prepay_id}",
        }
        text = "".join(f"{line}\n" for line in payload.values()).encode()
        signature = self.keys.mch_key.sign(text, padding.PKCS1v15(), SHA256())
        return {**payload, "signType": "RSA", "paySign": base64.b64encode(signature).decode(), **changes}

    async def phone(self, path: str, **body: Any) -> tuple[int, Any]:
        """The person's side: status and parsed answer."""
        async with self.session.post(f"{self.url}/phone/{path}", json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def pay(self, prepay_id: str, user: str = "ann", **more: Any) -> str:
        """What wx.requestPayment reports."""
        status, told = await self.phone("pay", user=user, payPayload=self.launch(prepay_id), **more)
        assert status == 200, told
        message: str = told["errMsg"]
        return message

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until it holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(wechat: WeChat, *, careful: bool = False) -> AsyncIterator[Scene]:
    """Both servers for a while; a careful merchant takes only what is sealed as it should be."""
    told: list[Told] = []
    answers: list[int] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if careful and not _sealed(wechat.keys, request.headers, body):
            return web.Response(status=401)
        told.append(Told(dict(request.headers), body))
        status = answers.pop(0) if answers else 200
        if status == SILENCE:
            await asyncio.sleep(0.5)
        return web.Response(status=status or 200, headers={"Location": "/elsewhere"})

    merchant = web.Application()
    merchant.router.add_post("/payments/wechat/notify", take)
    async with (  # WeChat goes first: a delivery under way would else meet a server that is closing
        TestServer(merchant) as shop,
        TestServer(wechat.app()) as server,
        ClientSession() as session,
    ):
        notify_url = str(shop.make_url("/payments/wechat/notify"))
        yield Scene(wechat, str(server.make_url("")).rstrip("/"), session, notify_url, answers, told)


def _sealed(keys: WeChatKeys, headers: Mapping[str, str], body: bytes) -> bool:
    try:
        return bool(sealed_by(keys, headers, body))
    except (InvalidSignature, ValueError):
        return False
