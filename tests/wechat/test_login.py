"""Logging in by WeChat: a code is asked about once, and nothing secret of it is ever seen again."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from yarl import URL

from server.domain.errors import ErrorCode, Refusal
from server.wechat import login as login_module
from server.wechat import sending
from server.wechat.login import Identity, Login
from tests.wechat.host import (
    Host,
    Reply,
    breaks_off,
    ends_early,
    hangs,
    is_no_gzip,
    open_host,
    says,
    speaks_no_http,
)
from tests.wechat.merchant import OPENID

MINI = ("wxmini00000000000001", "s3cretOfTheMiniProgram0000000001")
PAGE = ("wxpage00000000000002", "s3cretOfTheOfficialAccount000002")
CODE = "0716AVll20uHk94SLDml27etM946AVlq"
SESSION_KEY = "tiihtNczf5v6AKRyjwEUhQ=="
ACCESS_TOKEN = "98_ACCESSTOKENoUpF8uMuAJOM2pxb1Q9zNjWeS6o"
UNIONID = "o6_bmasdasdsad6_2sgVt7hMZOPfL"
SECRETS = (MINI[1], PAGE[1], CODE, SESSION_KEY, ACCESS_TOKEN, OPENID, UNIONID)
KINDS = ("miniprogram", "browser")


class Scene:
    """A host, what it was asked, and a login whose pauses take no time."""

    def __init__(self, session: ClientSession, host: Host) -> None:
        self.host, self.asked = host, host.asked
        self.pauses: list[float] = []
        self.login = Login(session, host.url, MINI, PAGE, pause=self.pause)
        self.without_apps = Login(session, host.url, ("", ""), ("", ""))

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def enter(self, kind: str, code: str = CODE) -> Identity:
        return await (self.login.miniprogram(code) if kind == "miniprogram" else self.login.browser(code))

    async def refused(self, kind: str, *replies: Reply, code: str = CODE) -> Refusal:
        """The refusal of an exchange to which the host replies so."""
        self.host.will(*replies)
        self.asked.clear()
        with pytest.raises(Refusal) as refusal:
            await self.enter(kind, code)
        return refusal.value


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_host("weixin", []) as host, ClientSession() as session:
        yield Scene(session, host)


def told(status: int = 200, **fields: Any) -> Reply:
    """JSON that calls itself text/plain, as the real host's does."""

    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=json.dumps(fields), content_type="text/plain")

    return reply


def no(errcode: int) -> Reply:
    return told(
        errcode=errcode, errmsg=f"it was {CODE}, {MINI[1]}, {PAGE[1]}, rid: 61725984-6126f6f9-040f19c4"
    )


GOOD = {
    "miniprogram": told(session_key=SESSION_KEY, openid=OPENID, unionid=UNIONID, errcode=0, errmsg="ok"),
    "browser": told(
        access_token=ACCESS_TOKEN,
        expires_in=7200,
        refresh_token=ACCESS_TOKEN,
        openid=OPENID,
        scope="snsapi_base",
        unionid=UNIONID,
    ),
}


# --- What is asked, and believed ----------------------------------------------------------------------------


async def test_a_code_of_the_mini_program_is_exchanged_with_its_own_secret(scene: Scene) -> None:
    scene.host.will(GOOD["miniprogram"])

    assert await scene.login.miniprogram(CODE) == Identity(MINI[0], OPENID, UNIONID)

    (asked,) = scene.asked
    assert (asked.method, URL(asked.path).path, asked.raw) == ("GET", "/sns/jscode2session", b"")
    assert dict(URL(asked.path).query) == {
        "appid": MINI[0],
        "secret": MINI[1],
        "js_code": CODE,
        "grant_type": "authorization_code",
    }


async def test_a_code_of_the_browser_is_exchanged_with_its_own_secret(scene: Scene) -> None:
    scene.host.will(GOOD["browser"])

    assert await scene.login.browser(CODE) == Identity(PAGE[0], OPENID, UNIONID)

    (asked,) = scene.asked
    assert (asked.method, URL(asked.path).path) == ("GET", "/sns/oauth2/access_token")
    assert dict(URL(asked.path).query) == {
        "appid": PAGE[0],
        "secret": PAGE[1],
        "code": CODE,
        "grant_type": "authorization_code",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unionid", [None, ""])
async def test_a_user_may_have_no_unionid(scene: Scene, kind: str, unionid: str | None) -> None:
    scene.host.will(told(openid=OPENID, unionid=unionid))

    assert (await scene.enter(kind)).unionid is None


@pytest.mark.parametrize("code", ["a&secret=x", "a%20+c#", "?appid=other"])
async def test_a_code_cannot_write_into_the_address(scene: Scene, code: str) -> None:
    refusal = await scene.refused("miniprogram", no(40029), code=code)

    assert refusal.code is ErrorCode.WECHAT_CODE_INVALID
    query = URL(scene.asked[0].path).query
    assert (query.getall("js_code"), query.getall("secret")) == ([code], [MINI[1]])
    assert query.getall("appid") == [MINI[0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ["", "a\n", "\ud800", "票", "x" * 513, "\x00"], ids=range(6))
async def test_what_can_be_no_code_is_not_asked_about(scene: Scene, kind: str, code: str) -> None:
    refusal = await scene.refused(kind, GOOD[kind], code=code)

    assert (refusal.code, scene.asked) == (ErrorCode.WECHAT_CODE_INVALID, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_app_that_is_not_there_is_not_asked_for(scene: Scene, kind: str) -> None:
    exchange = scene.without_apps.miniprogram if kind == "miniprogram" else scene.without_apps.browser
    with pytest.raises(Refusal) as refusal:
        await exchange(CODE)

    assert (refusal.value.code, scene.asked) == (ErrorCode.CHANNEL_NOT_OFFERED, [])


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("errcode", "code"),
    [
        (40029, ErrorCode.WECHAT_CODE_INVALID),
        (40163, ErrorCode.WECHAT_CODE_INVALID),
        (41008, ErrorCode.WECHAT_CODE_INVALID),
        (42003, ErrorCode.WECHAT_CODE_INVALID),
        (40226, ErrorCode.WECHAT_LOGIN_REFUSED),
        (50002, ErrorCode.WECHAT_LOGIN_REFUSED),
        (45011, ErrorCode.WECHAT_UNAVAILABLE),
        (45009, ErrorCode.WECHAT_UNAVAILABLE),
        (99999, ErrorCode.WECHAT_UNAVAILABLE),
        (-2, ErrorCode.WECHAT_UNAVAILABLE),
    ],
)
async def test_every_no_of_wechat_has_its_code_and_is_asked_for_once(
    scene: Scene, kind: str, errcode: int, code: ErrorCode
) -> None:
    alerts = alerted()

    assert (await scene.refused(kind, no(errcode))).code is code
    assert (len(scene.asked), scene.pauses) == (1, [])
    assert alerted() == alerts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("errcode", [40001, 40002, 40013, 40125, 40164, 40243, 41002, 41004, 48001, 48004])
async def test_a_mistake_of_our_configuration_raises_an_alert(scene: Scene, kind: str, errcode: int) -> None:
    alerts = alerted()

    with capture_logs() as logs:
        refusal = await scene.refused(kind, no(errcode))

    assert (refusal.code, len(scene.asked), alerted()) == (ErrorCode.WECHAT_UNAVAILABLE, 1, alerts + 1)
    (alert,) = [each for each in logs if each["event"] == "alert"]
    assert (alert["alert"], alert["errcode"]) == ("WECHAT_LOGIN_MISCONFIGURED", errcode)


def alerted() -> float:
    labels = {"alert": "WECHAT_LOGIN_MISCONFIGURED"}
    return REGISTRY.get_sample_value("gateline_alerts_total", labels) or 0.0


async def test_a_visitor_of_a_snapshot_page_is_nobody(scene: Scene) -> None:
    visitor = told(access_token=ACCESS_TOKEN, openid=OPENID, is_snapshotuser=1)

    assert (await scene.refused("browser", visitor)).code is ErrorCode.WECHAT_LOGIN_REFUSED
    scene.host.will(told(access_token=ACCESS_TOKEN, openid=OPENID, is_snapshotuser=0))
    assert (await scene.login.browser(CODE)).openid == OPENID


UNREADABLE = {
    "empty": says(200, b"", sign=False),
    "html": says(200, b"<html>", sign=False),
    "no text": says(200, b"\xff", sign=False),
    "deep": says(200, b'{"x":' + b"[" * 20_000, sign=False),
    "a list": says(200, [], sign=False),
    "nobody": told(),
    "nobody, ok": told(errcode=0, errmsg="ok", session_key=SESSION_KEY),
    "no openid": told(openid="", session_key=SESSION_KEY),
    "a number": told(openid=7),
    "a sentence": told(openid="o U"),
    "too long": told(openid="o" * 129),
    "unionid": told(openid=OPENID, unionid=7),
    "perhaps a visitor": told(openid=OPENID, is_snapshotuser="1"),
    "errcode as text": told(openid=OPENID, errcode="0"),
    "huge errcode": told(openid=OPENID, errcode=10**30),
    "too much": told(openid=OPENID, x="x" * 70_000),
    "500": told(500, openid=OPENID),
    "404": told(404, openid=OPENID),
    "502, html": says(502, b"<html>", sign=False),
    "500, busy": told(500, errcode=-1),
}
SILENT = {
    "breaks off": breaks_off,
    "ends early": ends_early,
    "no HTTP": speaks_no_http,
    "no gzip": is_no_gzip,
    "hangs": hangs,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*UNREADABLE, *SILENT])
async def test_after_silence_or_nonsense_the_code_is_not_sent_again(
    scene: Scene, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 0.4)

    refusal = await scene.refused(kind, {**UNREADABLE, **SILENT}[name], GOOD[kind])

    assert refusal.code is ErrorCode.WECHAT_UNAVAILABLE
    assert (len(scene.asked), scene.pauses) == (1, [])


async def test_also_on_a_connection_that_was_used_before_the_code_is_not_sent_again(scene: Scene) -> None:
    """HTTP clients repeat a GET of their own accord when a connection that was kept breaks."""
    scene.host.will(GOOD["miniprogram"])
    await scene.login.miniprogram(CODE)

    assert (await scene.refused("miniprogram", breaks_off, GOOD["miniprogram"])).code is (
        ErrorCode.WECHAT_UNAVAILABLE
    )
    assert len(scene.asked) == 1


async def test_a_redirection_is_not_followed_with_the_secret(scene: Scene) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(scene.host.url + "/elsewhere")

    assert (await scene.refused("browser", elsewhere, GOOD["browser"])).code is ErrorCode.WECHAT_UNAVAILABLE
    assert len(scene.asked) == 1


async def test_a_host_that_is_away_is_unavailable() -> None:
    async with ClientSession() as session:
        login = Login(session, "http://127.0.0.1:9", MINI, PAGE)
        with pytest.raises(Refusal) as refusal:
            await login.miniprogram(CODE)

    assert refusal.value.code is ErrorCode.WECHAT_UNAVAILABLE
    assert unseen(refusal.value)


# --- What is asked again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wechat_that_is_too_busy_is_asked_again_with_the_same_code(scene: Scene, kind: str) -> None:
    scene.host.will(no(-1), no(-1), GOOD[kind])

    assert (await scene.enter(kind)).openid == OPENID

    assert len({asked.path for asked in scene.asked}) == 1 and len(scene.asked) == 3
    first, second = scene.pauses
    assert 0.05 <= first <= 0.1 and 0.2 <= second <= 0.4


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wechat_that_stays_too_busy_is_left_in_peace(scene: Scene, kind: str) -> None:
    assert (await scene.refused(kind, no(-1))).code is ErrorCode.WECHAT_UNAVAILABLE
    assert len(scene.asked) == 3


async def test_a_busy_wechat_that_took_the_code_after_all_asks_for_a_new_one(scene: Scene) -> None:
    assert (await scene.refused("browser", no(-1), no(40163))).code is ErrorCode.WECHAT_CODE_INVALID
    assert len(scene.asked) == 2


async def test_being_busy_for_too_long_ends_the_exchange(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_module, "RETRY_S_MIN", 60.0)

    assert (await scene.refused("browser", no(-1))).code is ErrorCode.WECHAT_UNAVAILABLE
    assert (len(scene.asked), scene.pauses) == (1, [])


# --- What is seen of it -------------------------------------------------------------------------------------


def unseen(refusal: Refusal, *more: str) -> bool:
    """Whether nothing of an exchange can be read off its refusal, nor off what hangs on that."""
    assert refusal.__context__ is None and refusal.__cause__ is None
    seen = "".join(traceback.format_exception(refusal)) + repr(refusal) + repr(refusal.detail) + "".join(more)
    for secret in (*SECRETS, "secret=", "js_code=", "code="):
        assert secret not in seen, secret
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*UNREADABLE, *SILENT, "a no", "busy", "misconfigured", "visitor"])
async def test_no_secret_and_no_code_is_in_a_refusal_or_a_log(
    scene: Scene, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "GATEWAY_CALL_S_MAX", 0.4)
    caplog.set_level(logging.DEBUG)
    refusing = {"a no": no(40029), "busy": no(-1), "misconfigured": no(40125)}
    visitor = {"visitor": told(openid=OPENID, access_token=ACCESS_TOKEN, is_snapshotuser=1)}

    with capture_logs() as logs:
        refusal = await scene.refused(kind, {**UNREADABLE, **SILENT, **refusing, **visitor}[name])

    assert logs
    assert unseen(refusal, repr(logs), caplog.text)


async def test_no_session_key_and_no_token_is_kept_anywhere(scene: Scene) -> None:
    for kind in KINDS:
        scene.host.will(GOOD[kind])
        who = await scene.enter(kind)
        assert not {SESSION_KEY, ACCESS_TOKEN} & {getattr(who, field) for field in who.__struct_fields__}
        assert OPENID not in repr(who) and UNIONID not in f"{who}"

    kept = [each for each in vars(scene.login).values() if not isinstance(each, ClientSession)]
    assert SESSION_KEY not in repr(kept) and ACCESS_TOKEN not in repr(kept)
    assert all(secret not in repr(scene.login) for secret in SECRETS)


async def test_every_sending_is_counted_by_its_outcome(scene: Scene) -> None:
    outcomes = ["OK", "BUSY", "CODE_INVALID", "REFUSED", "OTHER", "UNREADABLE", "NETWORK"]
    before = [counted(outcome) for outcome in outcomes]
    scene.host.will(no(-1), GOOD["browser"])
    await scene.login.browser(CODE)
    for reply in (no(40029), no(40226), no(45011), says(200, b"", sign=False), breaks_off):
        await scene.refused("browser", reply)

    assert [counted(outcome) for outcome in outcomes] == [was + 1 for was in before]


def counted(outcome: str) -> float:
    labels = {"call": "oauth2/access_token", "outcome": outcome}
    return REGISTRY.get_sample_value("gateline_wechat_calls_total", labels) or 0.0
