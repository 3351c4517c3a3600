"""Who may do what: every kind of caller at every endpoint, every forgery of a token, and other people's things.

A refused request changes nothing: all tables and all keys are compared before and after.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from server.domain.catalog import Role
from server.store import catalog
from server.web.auth import Audience, Tokens
from server.web.routes import ROUTES, Access, Route
from tests.conftest import eventually
from tests.web.stage import KINDS, MATRIX, PLAINLY, SECURED, Stage, may_call, name, refused

nothing_changes = pytest.mark.usefixtures("watched")


@pytest.fixture
async def watched(stage: Stage) -> AsyncIterator[None]:
    """Holds everything in Postgres and Redis after the test against what was there before."""
    async with stage.unchanged():
        yield


# --- The matrix ---------------------------------------------------------------------------------------------


@nothing_changes
@pytest.mark.parametrize("kind", KINDS)
async def test_no_endpoint_serves_a_kind_of_caller_that_it_is_not_for(stage: Stage, kind: str) -> None:
    others = [route for route in SECURED if kind not in may_call(route)]
    assert len(others) > len(SECURED) / 4
    for route in others:
        answer = await stage.send(await stage.honest(route, kind))
        if kind == "nobody":
            refused(answer, 401, "TOKEN_REQUIRED")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        else:
            refused(answer, 403, "FORBIDDEN")


async def test_an_endpoint_serves_every_kind_of_caller_that_it_is_for(stage: Stage) -> None:
    served = []
    for route in sorted(ROUTES, key=lambda route: route.path.endswith("/cancel")):
        for kind in sorted(may_call(route)):
            if route.path == "/orders/{order_id}/query":
                continue  # the gateway behind it is not there; settlement's own tests ask it
            answer = await stage.send(await stage.honest(route, kind))
            assert answer.status == PLAINLY.get(route.path, route.status), (route.path, kind, answer)
            served.append((route.path, kind))
    assert len(served) > len(ROUTES)
    await stage.set_again()


async def test_the_matrix_has_a_row_for_every_address_that_the_server_answers(stage: Stage) -> None:
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in stage.road.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert served == {*MATRIX, "GET /static/{file}", "GET /docs/{file}"}  # files that anyone may have
    assert MATRIX.keys() == {name(route) for route in ROUTES}


async def test_every_route_says_who_may_call_it_and_only_public_ones_are_open(stage: Stage) -> None:
    open_to_all = {route.path for route in ROUTES if route not in SECURED}
    assert open_to_all == {
        "/catalog",
        "/auth/demo/login",
        "/auth/guest/login",
        "/auth/wechat/login",
        "/payments/notify",
        "/payments/wechat/notify",
        "/operators/login",
        "/client",
        "/",
        "/gate",
        "/report",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi/openapi.json",
        "/docs",
    }


@nothing_changes
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic Z2luYTpw",
        "Token {token}",
        "{token}",
        "Bearer  {token}",
        "Bearer {token} ",
    ],
)
async def test_a_header_that_is_no_bearer_token_is_refused(stage: Stage, authorization: str) -> None:
    token = stage.headers("buyer")["Authorization"].removeprefix("Bearer ")
    header = authorization.format(token=token)
    answer = await stage.road.call("GET", "/my/orders", headers={"Authorization": header})
    if header == f"Bearer {token} ":  # blanks around a header's value are not part of it (RFC 9110, 5.5)
        assert answer.status == 200
    else:
        refused(answer, 401, ("TOKEN_REQUIRED", "TOKEN_INVALID"))


async def test_the_word_bearer_is_read_in_any_case(stage: Stage) -> None:
    token = stage.headers("buyer")["Authorization"].removeprefix("Bearer ")
    for word in ("bearer", "BEARER"):  # RFC 9110, 11.1: schemes are case-insensitive
        answer = await stage.road.call("GET", "/my/orders", headers={"Authorization": f"{word} {token}"})
        assert answer.status == 200, answer


@nothing_changes
async def test_a_token_in_the_address_or_in_a_cookie_is_not_looked_at(stage: Stage) -> None:
    token = stage.headers("buyer")["Authorization"].removeprefix("Bearer ")
    answer = await stage.road.call(
        "GET", f"/my/orders?access_token={token}", headers={"Cookie": f"token={token}; Authorization={token}"}
    )
    refused(answer, 401, "TOKEN_REQUIRED")


# --- Forged tokens ------------------------------------------------------------------------------------------


def part(value: Any) -> str:
    """One part of a token: JSON (or bytes) in base64url without padding."""
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(
    key: bytes,
    claims: Any,
    header: dict[str, Any] | bytes | None = None,
    digest: str = "sha256",
    **changes: Any,
) -> str:
    """A token made by hand, as no honest library would: any header, any claims, signed with HMAC."""
    if isinstance(claims, dict):
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    signed = f"{part(header or {'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1'})}.{part(claims)}"
    return f"{signed}.{part(hmac.new(key, signed.encode(), digest).digest())}"


class Forger:
    """What an attacker may know or hold: the true key for the tests that change something else."""

    def __init__(self, stage: Stage, route: Route) -> None:
        self.key = dict(stage.road.config.jwt_keys)["k1"]
        who = min(may_call(route))
        token = stage.headers(who)["Authorization"].removeprefix("Bearer ")
        self.true = token
        header, claims, self.signature = token.split(".")
        self.header, self.payload = header, claims
        self.claims: dict[str, Any] = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=="))

    def with_claims(self, **changes: Any) -> str:
        return forge(self.key, self.claims, **changes)

    def with_header(self, digest: str = "sha256", **header: Any) -> str:
        full = {"alg": "HS256", "typ": "JWT", "kid": "k1", **header}
        return forge(self.key, self.claims, {k: v for k, v in full.items() if v is not ...}, digest)


def without(claim: str, forger: Forger) -> str:
    """A true token that lacks one claim."""
    return forger.with_claims(**{claim: ...})


_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_JWK = {"kty": "oct", "k": part(b"k" * 32), "kid": "k1"}
FORGERIES: dict[str, Callable[[Forger], str]] = {
    # the algorithm is never taken from the token (RFC 8725, 3.1)
    "alg none without signature": lambda f: f"{part({'alg': 'none', 'kid': 'k1'})}.{f.payload}.",
    "alg none with the old signature": lambda f: (
        f"{part({'alg': 'none', 'kid': 'k1'})}.{f.payload}.{f.signature}"
    ),
    "alg nOnE": lambda f: f"{part({'alg': 'nOnE', 'kid': 'k1'})}.{f.payload}.",
    "alg empty": lambda f: f.with_header(alg=""),
    "alg absent": lambda f: f.with_header(alg=...),
    "alg null": lambda f: f.with_header(alg=None),
    "alg HS512, truly signed": lambda f: f.with_header("sha512", alg="HS512"),
    "alg HS384, truly signed": lambda f: f.with_header("sha384", alg="HS384"),
    "alg HS256 signed by HS512": lambda f: f.with_header("sha512"),
    "alg RS256 signed by HMAC": lambda f: f.with_header(alg="RS256"),
    "alg RS256 signed by a stranger's RSA key": lambda f: jwt.encode(
        f.claims, _RSA, algorithm="RS256", headers={"kid": "k1"}
    ),
    "a key that the token brings along": lambda f: forge(
        b"k" * 32, f.claims, {"alg": "HS256", "kid": "k1", "jwk": _JWK, "jku": "http://127.0.0.1:9/keys"}
    ),
    # keys
    "kid unknown": lambda f: f.with_header(kid="k2"),
    "kid absent": lambda f: f.with_header(kid=...),
    "kid empty": lambda f: f.with_header(kid=""),
    "kid null": lambda f: f.with_header(kid=None),
    "kid a list": lambda f: f.with_header(kid=["k1"]),
    "kid an object": lambda f: f.with_header(kid={"k1": 1}),
    "kid a path": lambda f: f.with_header(kid="../../dev/null"),
    "kid of another key": lambda f: f.with_header(kid="old"),
    "signed by another server": lambda f: forge(b"\x00" * 32, f.claims),
    "signed by the empty key": lambda f: forge(b"", f.claims),
    "signed by the key's name": lambda f: forge(b"k1", f.claims),
    # what is signed
    "one claim changed": lambda f: f"{f.header}.{part({**f.claims, 'sub': 'demo:bob'})}.{f.signature}",
    "signature cut": lambda f: f"{f.header}.{f.payload}.{f.signature[:-4]}",
    "signature empty": lambda f: f"{f.header}.{f.payload}.",
    "signature of another token": lambda f: f"{f.header}.{f.payload}.{f.with_claims(sub='x').split('.')[2]}",
    "two parts": lambda f: f"{f.header}.{f.payload}",
    "four parts": lambda f: f"{f.true}.{f.signature}",
    "dots only": lambda f: "..",
    "no base64": lambda f: f"!{f.true}",
    "header no JSON": lambda f: forge(f.key, f.claims, b"{"),
    "header a list": lambda f: forge(f.key, f.claims, b"[]"),
    "header deeply nested": lambda f: forge(f.key, f.claims, b"[" * 900),
    "claims no JSON": lambda f: forge(f.key, b"{"),
    "claims a list": lambda f: forge(f.key, b"[]"),
    "claims deeply nested": lambda f: forge(f.key, b"[" * 900),
    "very long": lambda f: f.with_claims(more="x" * 4_000),
    "not ASCII": lambda f: f.true[:-1] + "é",
    "crit unknown": lambda f: f.with_header(crit=["exp2"], exp2=1),
    # claims, truly signed
    **{f"without {claim}": partial(without, claim) for claim in ("exp", "iat", "sub", "aud", "gen")},
    "aud of nobody": lambda f: f.with_claims(aud="gateline"),
    "aud empty": lambda f: f.with_claims(aud=""),
    "aud null": lambda f: f.with_claims(aud=None),
    "aud a list of one": lambda f: f.with_claims(aud=[f.claims["aud"]]),
    "aud a list of all": lambda f: f.with_claims(aud=[each.value for each in Audience]),
    "aud an object": lambda f: f.with_claims(aud={f.claims["aud"]: 1}),
    "sub a number": lambda f: f.with_claims(sub=7),
    "sub null": lambda f: f.with_claims(sub=None),
    "exp a word": lambda f: f.with_claims(exp="tomorrow"),
    "exp null": lambda f: f.with_claims(exp=None),
    "exp a fraction": lambda f: f.with_claims(exp=time.time() + 60),
    "exp not a number": lambda f: forge(
        f.key, msgspec.json.encode(f.claims).replace(b'"exp":', b'"exp":NaN,"x":')
    ),
    "gen a word": lambda f: f.with_claims(gen="one"),
    "gen beyond any float": lambda f: forge(
        f.key, msgspec.json.encode(f.claims).replace(b'"gen":', b'"gen":1e999,"x":')
    ),
    "not valid before tomorrow": lambda f: f.with_claims(nbf=int(time.time()) + 86_400),
}


EVERYWHERE = ("alg none without signature", "signed by another server", "one claim changed", "kid absent")
ONE_OF_EACH = list({route.access: route for route in SECURED if route.method == "GET"}.values())
assert {route.access for route in ONE_OF_EACH} == {route.access for route in SECURED}


@nothing_changes
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_opens_nothing(stage: Stage, forgery: str) -> None:
    for route in SECURED if forgery in EVERYWHERE else ONE_OF_EACH:
        ask = await stage.honest(route)
        token = FORGERIES[forgery](Forger(stage, route))
        answer = await stage.send(ask, headers={**ask.headers, "Authorization": f"Bearer {token}"})
        refused(answer, 401, "TOKEN_INVALID")


async def test_the_hand_made_token_is_accepted_when_nothing_about_it_is_forged(stage: Stage) -> None:
    (route,) = [route for route in SECURED if route.path == "/my/orders"]
    token = Forger(stage, route).with_claims()
    answer = await stage.road.call("GET", "/my/orders", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200


@nothing_changes
async def test_an_expired_token_is_told_to_log_in_again(stage: Stage) -> None:
    for route in SECURED:
        ask = await stage.honest(route)
        for seconds in (1, 86_400, 10**9):
            token = Forger(stage, route).with_claims(exp=int(time.time()) - seconds)
            answer = await stage.send(ask, headers={**ask.headers, "Authorization": f"Bearer {token}"})
            refused(answer, 401, "TOKEN_EXPIRED")


@nothing_changes
async def test_a_token_of_another_server_is_refused_although_it_names_the_same_key(stage: Stage) -> None:
    other = Tokens((("k1", hashlib.sha256(b"another").digest()),))
    for route in SECURED:
        ask = await stage.honest(route)
        for audience in Audience:
            token = other.issue(audience, "gina", seconds=60, generation=1)
            answer = await stage.send(ask, headers={**ask.headers, "Authorization": f"Bearer {token}"})
            refused(answer, 401, "TOKEN_INVALID")


# --- Staff that is no longer what its token says ------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
async def test_a_disabled_operator_stops_working_and_an_old_token_never_comes_back(
    stage: Stage, role: Role
) -> None:
    road = stage.road
    username = f"dora-{role.value}"
    headers = await (road.gate(username) if role is Role.GATE else road.analyst(username))
    path = "/venue" if role is Role.GATE else "/reports/summary"
    assert (await road.call("GET", path, headers=headers)).status == 200

    async def locked_out() -> bool:
        return (await road.call("GET", path, headers=headers)).status == 401

    async with road.parts.database.transaction() as connection:
        await catalog.disable_operator(connection, username)
    await eventually(locked_out)
    async with stage.unchanged():
        for route in SECURED:
            if route.access in (Access.OPERATOR, Access.OWNER_OR_OPERATOR, Access.ANALYST):
                kind = "gate" if role is Role.GATE else "analyst"
                if kind in may_call(route):
                    ask = await stage.honest(route)
                    answer = await stage.send(ask, headers={**ask.headers, **headers})
                    refused(answer, 401, "OPERATOR_DISABLED")
    async with road.parts.database.transaction() as connection:  # enables again, with a new generation
        await catalog.set_password(connection, username, "$argon2id$none")
    await road.parts.directory.refresh()
    refused(await road.call("GET", path, headers=headers), 401, "OPERATOR_DISABLED")


async def test_an_account_that_was_switched_off_by_any_hand_is_out(stage: Stage) -> None:
    headers = await stage.road.gate("olga")
    await stage.pg.execute("UPDATE operators SET enabled = false WHERE username = 'olga'")
    await stage.road.parts.directory.refresh()
    refused(await stage.road.call("GET", "/venue", headers=headers), 401, "OPERATOR_DISABLED")


async def test_a_token_of_an_operator_who_never_was_or_changed_role_is_refused(stage: Stage) -> None:
    road = stage.road
    await road.staff("eve", Role.ANALYST)
    tokens = Tokens(road.config.jwt_keys)
    for audience, subject, generation in (
        (Audience.GATE, "nobody", 1),  # never was
        (Audience.GATE, "eve", 1),  # an analyst
        (Audience.GATE, "gina", 0),  # an older password
        (Audience.GATE, "gina", 2),  # a newer one
        (Audience.GATE, "demo:ann", 1),  # a buyer
        (Audience.GATE, "", 1),
    ):
        token = tokens.issue(audience, subject, seconds=60, generation=generation)
        answer = await road.call("GET", "/venue", headers={"Authorization": f"Bearer {token}"})
        refused(answer, 401, "OPERATOR_DISABLED")


# --- Other people's things ----------------------------------------------------------------------------------

UNKNOWN_ORDER, UNKNOWN_TICKET = "0" * 26, "0" * 16


@nothing_changes
@pytest.mark.parametrize(
    "route", [route for route in SECURED if "{" in route.path and "buyer" in may_call(route)], ids=name
)
async def test_the_order_or_ticket_of_another_buyer_is_answered_as_one_that_does_not_exist(
    stage: Stage, route: Route
) -> None:
    ask = await stage.honest(route, "buyer")
    others = route.path.format(order_id=stage.bobs_order_id, code=stage.bobs_ticket)
    unknown = route.path.format(order_id=UNKNOWN_ORDER, code=UNKNOWN_TICKET)
    code = "ORDER_NOT_FOUND" if "{order_id}" in route.path else "TICKET_NOT_FOUND"
    bodies = []
    for path in (others, unknown):
        body = refused(await stage.send(ask, path=path), 404, code)
        bodies.append({**body, "request_id": ""})
    assert bodies[0] == bodies[1]


async def test_lists_show_nothing_of_another_buyer(stage: Stage) -> None:
    for buyer, orders, ticket in (
        ("ann", stage.order_id, stage.ticket),
        ("bob", stage.bobs_order_id, stage.bobs_ticket),
    ):
        headers = stage.road.buyer(buyer)
        listed = (await stage.road.call("GET", "/my/orders?limit=100", headers=headers)).json["orders"]
        owned = (await stage.road.call("GET", "/my/tickets", headers=headers)).json["tickets"]
        assert orders in [each["order_id"] for each in listed]
        assert [each["ticket_code"] for each in owned] == [ticket]
        for each in listed:
            assert (
                await stage.road.call("GET", f"/orders/{each['order_id']}", headers=headers)
            ).status == 200


@nothing_changes
async def test_a_wrong_login_says_the_same_whatever_is_wrong(stage: Stage) -> None:
    told = set()
    for username, password in (
        ("gina", "not her password"),
        ("nobody", "not her password"),
        ("gina", " a long enough password"),
        ("GINA", "a long enough password"),
    ):
        login = {"username": username, "password": password}
        body = refused(await stage.road.call("POST", "/operators/login", json=login), 401, "LOGIN_FAILED")
        told.add((body["code"], body["message"]))
    assert len(told) == 1
