"""What every answer says about itself to a browser: that it is not to be misread, framed, kept or told on."""

from __future__ import annotations

import re

import pytest
from multidict import CIMultiDict

from server.web import pages
from server.web.routes import ROUTES, Route
from tests.road import Answer
from tests.web.stage import SECURED, Stage, may_call, name
from tests.web.wire import posted, wire

MAY_BE_KEPT = re.compile(
    r"/(gate|report|docs/.+|static/.+)?"
)  # files: the same for everybody, with nothing of anyone


def fit(answer: Answer, path: str) -> None:
    """Checks the headers of an answer, whatever it says."""
    headers = CIMultiDict(answer.headers)
    assert headers["X-Content-Type-Options"] == "nosniff", path
    assert headers["Referrer-Policy"] == "no-referrer", path
    assert headers["Server"] == "Gateline", path
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"]), path
    policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'"), path
    assert policy.get("script-src", "'none'") in ("'none'", "'self'"), path
    kept = MAY_BE_KEPT.fullmatch(path.partition("?")[0]) and answer.status in (200, 304)
    assert headers["Cache-Control"] == "no-store" or kept, path
    assert not {"X-Powered-By", "Access-Control-Allow-Origin"} & headers.keys(), path
    assert ("Set-Cookie" in headers) is (path == "/operators/login" and answer.status == 200), path


@pytest.mark.parametrize("route", ROUTES, ids=name)
async def test_every_answer_of_every_route_has_them(stage: Stage, route: Route) -> None:
    kind = min(may_call(route))
    ask = await stage.honest(route, kind)
    fit(await stage.send(ask), ask.path)
    if route in SECURED:
        fit(await stage.send(ask, headers={}), ask.path)
    if route.body is not None or route.signed_body is not None:
        fit(await stage.send(ask, data=b"{"), ask.path)
        too_large = await stage.send(ask, data=b"[" + b" " * route.body_bytes_max + b"]")
        assert too_large.status == 413
        fit(too_large, ask.path)
    fit(await stage.send(ask, method="PATCH"), ask.path)
    if route.path.endswith("/cancel"):
        await stage.set_again()


async def test_what_no_route_answers_has_them_and_the_lane_of_the_scans_has_them(stage: Stage) -> None:
    files = [f"/static/{file}" for file in pages._FILES]
    assert len(files) > 50
    for path in ("/nowhere", "/static/nothing.js", "/docs/docs.js", "/docs/none", "/orders/x/y", *files):
        fit(await stage.road.call("GET", path), path)
    page = await stage.road.call("GET", "/gate")
    same = await stage.road.call("GET", "/gate", headers={"If-None-Match": CIMultiDict(page.headers)["ETag"]})
    assert same.status == 304
    fit(same, "/gate")
    body = {"qr_token": stage.road.sealed(stage.ticket), "function_code": "bus", "scan_id": "headers"}
    async with wire(stage.road.url) as line:
        await line.send(posted(body, stage.headers("gate")))
        fit(await line.answer(), "/venue/scan")
        await line.send(posted(b"{", stage.headers("gate")))
        fit(await line.answer(), "/venue/scan")
        await line.send(b"NO HTTP\r\n\r\n")
        fit(await line.answer(), "")


async def test_what_holds_a_token_or_a_ticket_is_not_kept_by_anyone(stage: Stage) -> None:
    for route in ROUTES:
        if re.search("login|/qr/|/my/|/orders|/venue|/reports", route.path) and route.status != 101:
            ask = await stage.honest(route)
            assert CIMultiDict((await stage.send(ask)).headers)["Cache-Control"] == "no-store", route.path
    await stage.set_again()
