"""Bearer tokens: what is remembered of them, for how long, and how their keys are rotated."""

from __future__ import annotations

import base64
import hmac
import re
from typing import Any

import jwt
import msgspec
import pytest

from server.domain.errors import ErrorCode, Refusal
from server.limits import TOKEN_CACHE_MAX
from server.web.auth import Audience, Caller, Tokens
from tests.web.stage import Stage

OLD, NEW = ("2025", b"o" * 32), ("2026", b"n" * 32)


class Clock:
    """Unix time in seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_guest_is_a_new_buyer_each_time_who_is_known_by_the_token_for_400_days(stage: Stage) -> None:
    guests = [(await stage.road.call("POST", "/auth/guest/login")).json for _ in range(20)]
    assert len({guest["buyer_id"] for guest in guests}) == 20
    for guest in guests:
        assert re.fullmatch(r"guest:[0-9a-f]{32}", guest["buyer_id"])
        assert guest["expires_in_s"] == 400 * 24 * 3600
        claims = jwt.decode(guest["token"], options={"verify_signature": False})
        assert claims["sub"] == guest["buyer_id"]
        assert claims["exp"] - claims["iat"] == guest["expires_in_s"]
    headers = [{"Authorization": f"Bearer {guest['token']}"} for guest in guests[:2]]
    made = await stage.road.call(
        "POST",
        "/orders",
        headers=headers[0] | {"Idempotency-Key": "guest-1"},
        json={"items": [{"product_id": stage.product, "qty": 1}], "gateway": "hosted"},
    )
    assert made.status == 201
    statuses = [
        (await stage.road.call("GET", f"/orders/{made.json['order_id']}", headers=each)).status
        for each in headers
    ]
    assert statuses == [200, 404]


def refusal(tokens: Tokens, authorization: str | None) -> ErrorCode:
    with pytest.raises(Refusal) as refused:
        tokens.verify(authorization)
    return refused.value.code


def header(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    return decoded


@pytest.mark.parametrize("audience", list(Audience))
def test_a_token_names_whom_it_was_issued_to_and_what_for(audience: Audience, clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    token = tokens.issue(audience, "gina", seconds=60, generation=7)
    caller = tokens.verify(f"Bearer {token}")
    assert caller == Caller(audience, "gina", 7, 1_800_000_060)


def test_the_algorithm_is_always_the_same(clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    assert header(tokens.issue(Audience.BUYER, "ann", seconds=60))["alg"] == "HS256"


def test_a_token_ends_with_the_second_that_it_names(clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    bearer = f"Bearer {tokens.issue(Audience.BUYER, 'ann', seconds=60)}"
    clock.now += 59.999
    assert tokens.verify(bearer).subject == "ann"
    clock.now += 0.001
    assert refusal(Tokens((NEW,), now=clock), bearer) is ErrorCode.TOKEN_EXPIRED


def test_a_token_that_is_remembered_ends_at_its_time_all_the_same(clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    bearer = f"Bearer {tokens.issue(Audience.BUYER, 'ann', seconds=60)}"
    for _ in range(3):
        tokens.verify(bearer)
    clock.now += 60
    assert refusal(tokens, bearer) is ErrorCode.TOKEN_EXPIRED
    assert refusal(tokens, bearer) is ErrorCode.TOKEN_EXPIRED
    assert tokens.remembered() == 0


def test_a_signature_is_checked_once_and_then_remembered(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens((NEW,), now=clock)
    bearer = f"Bearer {tokens.issue(Audience.GATE, 'gina', seconds=60)}"
    checks = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *args, **options: checks.append(1) or decode(*args, **options))
    first, second = tokens.verify(bearer), tokens.verify(bearer)
    assert (first, len(checks)) == (second, 1)


def test_what_is_remembered_is_bounded_and_the_newest_stays(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.web.auth.TOKEN_CACHE_MAX", 10)
    tokens = Tokens((NEW,), now=clock)
    bearers = [f"Bearer {tokens.issue(Audience.BUYER, f'b{n}', seconds=60)}" for n in range(23)]
    for number, bearer in enumerate(bearers):
        assert tokens.verify(bearer).subject == f"b{number}"
        assert tokens.remembered() <= 10
    monkeypatch.setattr(jwt, "decode", lambda *args, **options: pytest.fail("the newest was forgotten"))
    assert [tokens.verify(bearer).subject for bearer in bearers[-5:]] == ["b18", "b19", "b20", "b21", "b22"]
    assert TOKEN_CACHE_MAX > 1_000  # a whole shift of gates and their buyers


def test_what_was_refused_is_not_remembered(clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    stranger = Tokens((("2026", b"x" * 32),), now=clock)
    for number in range(20):
        bearer = f"Bearer {stranger.issue(Audience.BUYER, str(number), seconds=60)}"
        assert refusal(tokens, bearer) is ErrorCode.TOKEN_INVALID
    assert tokens.remembered() == 0


def test_a_key_is_rotated_without_logging_anyone_out(clock: Clock) -> None:
    before, during, after = (
        Tokens((OLD,), now=clock),
        Tokens((NEW, OLD), now=clock),
        Tokens((NEW,), now=clock),
    )
    old = f"Bearer {before.issue(Audience.GATE, 'gina', seconds=60)}"
    new = during.issue(Audience.GATE, "gina", seconds=60)
    assert header(new)["kid"] == "2026"
    assert during.verify(old).subject == during.verify(f"Bearer {new}").subject == "gina"
    assert refusal(after, old) is ErrorCode.TOKEN_INVALID
    assert after.verify(f"Bearer {new}").subject == "gina"


def test_a_ring_that_is_replaced_signs_with_its_first_key_at_once_and_accepts_all_of_them(
    clock: Clock,
) -> None:
    tokens = Tokens((OLD,), now=clock)
    old = f"Bearer {tokens.issue(Audience.GATE, 'gina', seconds=60)}"
    tokens.replace((OLD, NEW))
    assert header(tokens.issue(Audience.GATE, "gina", seconds=60))["kid"] == "2025"
    tokens.replace((NEW, OLD))
    new = tokens.issue(Audience.GATE, "gina", seconds=60)
    assert header(new)["kid"] == "2026"
    assert tokens.verify(old).subject == tokens.verify(f"Bearer {new}").subject == "gina"


def test_what_a_key_had_signed_ends_when_it_leaves_the_ring_also_what_is_remembered(clock: Clock) -> None:
    tokens = Tokens((NEW, OLD), now=clock)
    old = f"Bearer {Tokens((OLD,), now=clock).issue(Audience.GATE, 'gina', seconds=60)}"
    new = f"Bearer {tokens.issue(Audience.GATE, 'gina', seconds=60)}"
    assert tokens.verify(old) == tokens.verify(new)
    tokens.replace((NEW,))
    assert refusal(tokens, old) is ErrorCode.TOKEN_INVALID
    assert tokens.verify(new).subject == "gina"


def test_what_is_remembered_ends_too_when_its_id_goes_to_another_key(clock: Clock) -> None:
    tokens = Tokens((NEW,), now=clock)
    bearer = f"Bearer {tokens.issue(Audience.GATE, 'gina', seconds=60)}"
    tokens.verify(bearer)
    tokens.replace(((NEW[0], b"x" * 32),))
    assert refusal(tokens, bearer) is ErrorCode.TOKEN_INVALID


def test_a_key_that_comes_makes_nobody_be_verified_again(clock: Clock) -> None:
    tokens = Tokens((OLD,), now=clock)
    tokens.verify(f"Bearer {tokens.issue(Audience.GATE, 'gina', seconds=60)}")
    tokens.replace((NEW, OLD))
    assert tokens.remembered() == 1


@pytest.mark.parametrize(
    "head",
    [
        {"alg": "none", "kid": "2026"},
        {"alg": "HS512", "kid": "2026"},
        {"alg": "HS256", "kid": "2025"},  # a key that is not in the ring
        {"alg": "HS256", "kid": ["2026"]},
        {"alg": "HS256", "kid": {"2026": 1}},
        {"alg": "HS256", "kid": None},
        {"alg": "HS256", "kid": 2026},
        {"alg": "HS256"},
        {"alg": ["HS256"], "kid": "2026"},
        {"alg": "HS256", "kid": "2026", "crit": ["exp"]},
        {"alg": "HS256", "kid": "2026", "b64": False, "crit": ["b64"]},
    ],
)
def test_a_head_that_asks_for_another_algorithm_or_key_is_refused_whatever_signs_it(
    head: dict[str, Any], clock: Clock
) -> None:
    claims = {"aud": "gateline:gate", "sub": "gina", "gen": 1, "iat": 0, "exp": int(clock.now) + 60}
    assert refusal(Tokens((NEW,), now=clock), _signed(head, claims, NEW[1])) is ErrorCode.TOKEN_INVALID
    good = {"alg": "HS256", "kid": "2026"}
    assert Tokens((NEW,), now=clock).verify(_signed(good, claims, NEW[1])).subject == "gina"


def _signed(head: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A token with this very head; its signature is that of the algorithm which it names, or HS256."""
    spelled = [base64.urlsafe_b64encode(msgspec.json.encode(each)).rstrip(b"=") for each in (head, claims)]
    signed = b".".join(spelled)
    kind = "sha512" if head["alg"] == "HS512" else "sha256"
    signature = b"" if head["alg"] == "none" else hmac.digest(secret, signed, kind)
    return f"Bearer {(signed + b'.' + base64.urlsafe_b64encode(signature).rstrip(b'=')).decode()}"


def test_a_host_whose_clock_is_behind_accepts_a_token_just_issued_elsewhere(clock: Clock) -> None:
    ahead = Clock()
    ahead.now = clock.now + 30
    bearer = f"Bearer {Tokens((NEW,), now=ahead).issue(Audience.BUYER, 'ann', seconds=60)}"
    assert Tokens((NEW,), now=clock).verify(bearer).subject == "ann"


@pytest.mark.parametrize("nothing", [None, "", "Bearer", "bearer", "Basic YTpi", "Bearer-ish x", "BearerX y"])
def test_without_a_bearer_token_one_is_asked_for(nothing: str | None, clock: Clock) -> None:
    assert refusal(Tokens((NEW,), now=clock), nothing) is ErrorCode.TOKEN_REQUIRED


@pytest.mark.parametrize(
    "junk", ["", ".", "a.b.c", "x" * 3_000, "\udcff.\udcff.\udcff", "中.中.中", "[[[[.e30.e30"]
)
def test_junk_is_no_token(junk: str, clock: Clock) -> None:
    assert refusal(Tokens((NEW,), now=clock), f"Bearer {junk}") is ErrorCode.TOKEN_INVALID
