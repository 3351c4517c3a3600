"""The devices of the staff: known by a cookie that a login sets, and kept waiting by nobody else."""

from __future__ import annotations

import re
from http.cookies import Morsel, SimpleCookie

import pytest
from multidict import CIMultiDict

from server.domain.catalog import Role
from server.flows import operators
from server.hot import throttle
from server.hot.pace import Pace
from server.limits import DEVICE_ACCOUNTS_MAX, LOGIN_TRIES_FREE
from server.web.device import COOKIE
from tests.conftest import Serve
from tests.road import PASSWORD, Answer, Road
from tests.web.stage import refused

NEW_PASSWORD = "another long enough password"


@pytest.fixture(autouse=True)
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause is longer than a busy machine takes for a test."""
    monkeypatch.setattr(throttle, "_TRIES", Pace(LOGIN_TRIES_FREE, 60, 30, 60))


async def log_in(road: Road, username: str, *, cookie: str = "", password: str = PASSWORD) -> Answer:
    headers = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
    login = {"username": username, "password": password}
    return await road.call("POST", "/operators/login", json=login, headers=headers)


def set_by(answer: Answer) -> Morsel[str]:
    assert answer.status == 200, answer
    return SimpleCookie(CIMultiDict(answer.headers)["Set-Cookie"])[COOKIE]


async def hammered_at(road: Road, username: str) -> None:
    """From everybody's address."""
    for _ in range(LOGIN_TRIES_FREE):
        await log_in(road, username, password="not the password")
    refused(await log_in(road, username), 429, "TOO_MANY_ATTEMPTS")


async def test_who_logged_in_before_is_let_in_though_others_hammer_at_the_account_from_the_same_address(
    road: Road,
) -> None:
    await road.staff("gina", Role.GATE)
    cookie = set_by(await log_in(road, "gina")).value
    await hammered_at(road, "gina")
    for _ in range(3):
        answer = await log_in(road, "gina", cookie=cookie)
        assert answer.json.keys() == {"operator_token"}
        cookie = set_by(answer).value
        refused(await log_in(road, "gina"), 429, "TOO_MANY_ATTEMPTS")
    wrong = await log_in(road, "gina", cookie=cookie, password="not the password")
    refused(wrong, 401, "LOGIN_FAILED")


async def test_the_cookie_is_for_the_login_alone_and_no_script_sees_it(serve: Serve) -> None:
    for url, secure in (("http://gate.example", ""), ("https://gate.example", True)):
        road = await serve(public_url=url)
        await road.staff(f"gina{secure}", Role.GATE)
        answer = await log_in(road, f"gina{secure}")
        cookie = set_by(answer)
        assert (cookie["path"], cookie["samesite"], cookie["max-age"]) == (
            "/operators/login", "Strict", str(30 * 24 * 3600),
        )  # fmt: skip
        assert (cookie["httponly"], cookie["secure"], cookie["domain"]) == (True, secure, "")
        assert PASSWORD not in cookie.value and answer.json["operator_token"] not in cookie.value


async def test_a_new_password_ends_what_the_device_is_known_for(road: Road) -> None:
    await road.staff("gina", Role.GATE)
    cookie = set_by(await log_in(road, "gina")).value
    await operators.set_password(road.parts.database, "gina", NEW_PASSWORD)
    await road.parts.directory.refresh()
    await hammered_at(road, "gina")
    refused(await log_in(road, "gina", cookie=cookie, password=NEW_PASSWORD), 429, "TOO_MANY_ATTEMPTS")


async def test_a_device_of_one_account_is_a_stranger_to_another(road: Road) -> None:
    await road.staff("gina", Role.GATE)
    await road.staff("ben", Role.GATE)
    cookie = set_by(await log_in(road, "gina")).value
    await hammered_at(road, "ben")
    refused(await log_in(road, "ben", cookie=cookie), 429, "TOO_MANY_ATTEMPTS")


async def test_those_who_share_a_device_are_all_known_on_it_up_to_a_number(road: Road) -> None:
    names = [f"shift-{number}" for number in range(DEVICE_ACCOUNTS_MAX + 1)]
    cookie = ""
    for name in names:
        await road.staff(name, Role.GATE)
        cookie = set_by(await log_in(road, name, cookie=cookie)).value
    for name in names[-2:] + names[:2]:
        await hammered_at(road, name)
    assert len(cookie) < 1_024
    assert (await log_in(road, names[-1], cookie=cookie)).status == 200
    assert (await log_in(road, names[1], cookie=cookie)).status == 200
    refused(await log_in(road, names[0], cookie=cookie), 429, "TOO_MANY_ATTEMPTS")


async def test_what_is_no_cookie_of_ours_any_more_is_passed_over(road: Road) -> None:
    await road.staff("gina", Role.GATE)
    answer = await log_in(road, "gina")
    good, bearer = set_by(answer).value, answer.json["operator_token"]
    tokens = road.parts.keyring.tokens
    assert tokens is not None
    who = {"gina": 1}
    over = tokens.sign("gateline:device", "d" * 32, seconds=-1, who=who)
    head, claims, seal = good.split(".")
    await hammered_at(road, "gina")
    for cookie in (
        over,
        bearer,
        f"{head}.{claims}.{seal[:-6]}AAAAAA",
        f"{head}.{claims}.",
        "x",
        "a" * 5_000,
        '"\\',
    ):
        refused(await log_in(road, "gina", cookie=cookie), 429, "TOO_MANY_ATTEMPTS")
    fresh = tokens.sign("gateline:device", "d" * 32, seconds=1_000, who=who)
    assert (await log_in(road, "gina", cookie=fresh)).status == 200


async def test_the_cookie_opens_nothing(road: Road) -> None:
    await road.staff("gina", Role.GATE)
    cookie = set_by(await log_in(road, "gina")).value
    for method, path in (("GET", "/venue"), ("GET", "/reports/redemptions"), ("GET", "/my/orders")):
        refused(
            await road.call(method, path, headers={"Authorization": f"Bearer {cookie}"}), 401, "TOKEN_INVALID"
        )
        refused(
            await road.call(method, path, headers={"Cookie": f"{COOKIE}={cookie}"}), 401, "TOKEN_REQUIRED"
        )
    refused(await log_in(road, "gina", cookie=cookie, password="x"), 401, "LOGIN_FAILED")


async def test_the_document_tells_of_it(road: Road) -> None:
    document = (await road.call("GET", "/openapi/openapi.json")).json
    login = document["paths"]["/operators/login"]["post"]
    assert [(each["in"], each["name"], each["required"]) for each in login["parameters"]] == [
        ("cookie", COOKIE, False)
    ]
    assert "Set-Cookie" in login["responses"]["200"]["headers"]
    codes = login["responses"]["503"]["content"]["application/json"]["examples"]
    assert codes.keys() == {"OVERLOADED", "REDIS_UNAVAILABLE", "POSTGRES_UNAVAILABLE"}
    others = [path for path, each in document["paths"].items() if re.search(COOKIE, str(each))]
    assert others == ["/operators/login"]


async def test_a_wait_is_ended_by_hand(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LOGIN_HELD_REMEMBERED_S", 0)
    await road.staff("gina", Role.GATE)
    await hammered_at(road, "gina")
    await operators.unblock(road.parts.database, road.parts.throttle, "gina")
    assert (await log_in(road, "gina")).status == 200
    with pytest.raises(operators.OperatorError, match="no operator of this name"):
        await operators.unblock(road.parts.database, road.parts.throttle, "nobody")
