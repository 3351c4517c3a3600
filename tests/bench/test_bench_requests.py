"""The scans of the harness are real ones: sealed tokens of distinct uses, at gates that serve them."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from bench.requests import GATES, SCAN_ID_CHARS, SERVING, Scans, Supply, Use, post
from bench.seed import FUNCTIONS, OPERATORS, VENUES, Scene
from bench.site import Unclean
from server import config as configuration
from server.domain import qr
from server.domain.ids import new_ticket_code
from server.web.auth import Audience, Tokens
from tests.conftest import key

CODES = [new_ticket_code() for _ in range(10)]
SCENE = Scene(1, 2, CODES, 2)


@pytest.fixture
def config() -> configuration.Config:
    """A configuration with secrets, and nothing else of interest."""
    return configuration.load(
        {
            "GATELINE_QR_KEYS": f"1:{key()}",
            "GATELINE_JWT_KEYS": f"k1:{key()}",
            "GATELINE_GATEWAY_SECRETS": key(),
            "GATELINE_GATEWAY_URL": "http://127.0.0.1:9",
        }
    )


def test_every_use_of_every_ticket_is_handed_out_once() -> None:
    supply = Supply(SCENE)

    first = supply.take(len(CODES))
    rest = supply.take(1_000_000)

    assert len({use.code for use in first}) == len(CODES)  # one of each ticket before a second of any
    assert {use.function_code for use in first} == set(FUNCTIONS)
    assert Counter(first + rest) == {Use(code, function): 2 for code in CODES for function in FUNCTIONS}
    with pytest.raises(Unclean, match="used up"):
        supply.take(1)


def test_what_was_not_shown_is_handed_out_again_first_and_in_order() -> None:
    supply = Supply(SCENE)
    taken = supply.take(5)

    supply.give_back(taken[3:])

    assert supply.take(3)[:2] == taken[3:]


def test_a_scan_carries_a_token_that_the_server_opens_for_a_use_at_a_gate_that_serves_it(
    config: configuration.Config,
) -> None:
    uses = Supply(SCENE).take(60)
    made = Scans(config).make(uses)
    keys = qr.QrKeys(dict(config.qr_keys))
    contents = [qr.read(keys, json.loads(scan.body)["qr_token"]) for scan in made]

    assert len(made) == 60
    for use, scan, content in zip(uses, made, contents, strict=True):
        body = json.loads(scan.body)
        assert isinstance(content, qr.QrContent)
        assert content.ticket_code == use.code
        assert not content.expired(int(time.time() * 1000) + 50_000)
        assert body["function_code"] == use.function_code in VENUES[body["venue_code"]]
        assert body["terminal_device_id"].startswith(body["venue_code"])
        assert GATES[scan.place] == scan.gate
        assert (body["scan_id"], len(scan.scan_id)) == (scan.scan_id, SCAN_ID_CHARS)
    assert len({content.jti for content in contents if isinstance(content, qr.QrContent)}) == 60
    assert [int(scan.scan_id[-8:]) for scan in made] == list(range(60))
    assert (
        max(Counter(scan.place for scan in made).values()) - 60 // len(GATES) <= 1
    )  # no gate waits for another


def test_every_function_is_served_and_every_operator_has_a_token(config: configuration.Config) -> None:
    scans, tokens = Scans(config), Tokens(config.jwt_keys)

    assert all(SERVING[function] for function in FUNCTIONS)
    assert scans.tokens.keys() == set(OPERATORS) == {gate.operator for gate in GATES}
    for operator, token in scans.tokens.items():
        caller = tokens.verify(f"Bearer {token}")
        assert (caller.subject, caller.audience, caller.generation) == (operator, Audience.GATE, 1)


def test_a_post_says_its_length_in_bytes() -> None:
    body = "渡".encode()

    assert post("/x", "h:1", "t", body, "A: b\r\n").split(b"\r\n") == [
        b"POST /x HTTP/1.1",
        b"Host: h:1",
        b"User-Agent: gateline-bench",
        b"Accept: application/json",
        b"Authorization: Bearer t",
        b"A: b",
        b"Content-Type: application/json",
        b"Content-Length: 3",
        b"",
        body,
    ]
    assert b"Authorization" not in post("/x", "h:1", None, body)
