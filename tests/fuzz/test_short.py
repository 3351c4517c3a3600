"""The harness for short: some 2,000 attacks on a real process, in the test run; and that it finds what is planted."""

from __future__ import annotations

import asyncio
import re
from random import Random

import msgspec
import pytest
from yarl import URL

from server.dev.wechat_keys import WeChatKeys
from server.web.routes import ROUTES
from tests.fuzz.case import Breach, Case, Finding, Outcome, Way
from tests.fuzz.driver import Driver
from tests.fuzz.run import attempt, fuzz
from tests.fuzz.scene import opened
from tests.fuzz.server import PLANTS
from tests.fuzz.spoil import spoil_json

REQUESTS = 2_000  # some 10 s on two cores; the long run is `scripts/fuzz --requests 100000`
SEED = 20_261_122


def quietly(text: str) -> None:
    """Nobody watches."""


async def test_two_thousand_attacks_find_nothing(
    environment: dict[str, str], wechat_keys: WeChatKeys
) -> None:
    outcome = Outcome(SEED)
    async with opened(environment, wechat_keys, seed=SEED) as scene:
        await fuzz(scene, environment, outcome, requests=REQUESTS, say=quietly)
    assert outcome.breaches == 0, outcome.findings
    assert outcome.requests == REQUESTS and outcome.honest > 0
    assert outcome.answers["503"] == 0 and outcome.hangs == 0
    assert set(outcome.answers) >= {
        "101",
        "200",
        "201",
        "400",
        "401",
        "404",
        "405",
        "413",
        "415",
        "422",
        "closed",
    }
    for route in ROUTES:
        asked = f"{route.method} {route.path}"
        assert outcome.names[asked] + outcome.names[f"honest {asked}"] > 0, asked
    assert {name for name in outcome.names if name.startswith("raw")} >= {
        "raw_both",
        "raw_pipeline",
        "raw_half",
    }
    assert outcome.names["frames"] > 100 and outcome.figures["looked_at"] > 100


async def test_whatever_is_planted_is_found_and_can_be_sent_again(
    environment: dict[str, str], wechat_keys: WeChatKeys
) -> None:
    """A harness that finds nothing must be seen to find: a server that is broken in five ways at once."""
    told = {
        "raises": "answered 500",
        "leaks": "malloc_growth_bytes is",
        "leaves_tasks": "tasks_growth is",
        "answers_wrong": "an honest request after it got another answer",
        "forgets_units": "`gateline check` ended with 1",
    }
    assert {*told, "never_answers"} == set(PLANTS)  # silence costs its bound: below, and by hand
    outcome = Outcome(SEED)
    async with opened(environment, wechat_keys, seed=SEED, plant=",".join(told)) as scene:
        await fuzz(scene, environment, outcome, requests=1_500, say=quietly)
        found = "\n".join(finding.what for finding in outcome.findings)
        assert [plant for plant, what in told.items() if what not in found] == [], found
        assert "the log: " in found and "ZeroDivisionError" in found
        assert outcome.failures > 0

        driver = Driver("127.0.0.1", URL(scene.process.address).port or 0)
        (first, *_) = [each for each in outcome.findings if "500" in each.what and each.way is Way.REQUEST]
        kept = msgspec.json.decode(msgspec.json.encode(first), type=Finding)
        again = Outcome(SEED)
        await attempt(scene, again, driver, kept.index, kept.case(scene.facts))
        await driver.close()
        assert [finding.what for finding in again.findings] == [first.what]


HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.mark.parametrize(
    ("way", "said", "ends", "fault"),
    [
        (Way.REQUEST, HEALTHY, False, None),
        (Way.REQUEST, b"", False, "no answer in"),
        (Way.REQUEST, b"", True, "ended without an answer"),
        (Way.REQUEST, HEALTHY[:-1], False, "no answer in"),
        (Way.REQUEST, b"HTTP/1.1 2x0 OK\r\n\r\n", False, "this is no answer"),
        (Way.REQUEST, HEALTHY.replace(b"200", b"500"), False, "answered 500"),
        (Way.REQUEST, HEALTHY.replace(b"200", b"404"), False, "404 in another shape"),
        (Way.RAW, HEALTHY, True, None),
        (Way.RAW, b"", False, "neither an answer nor an end"),
        (Way.RAW, HEALTHY + HEALTHY.replace(b"200", b"502"), True, "answered ['200', '502']"),
        (Way.HALF, b"", True, None),
        (Way.HALF, b"", False, "after its client had gone"),
        (Way.SOCKET, SWITCHED + b"\x81\x02{}", True, None),
        (Way.SOCKET, HEALTHY, True, "an honest upgrade was refused"),
        (Way.SOCKET, SWITCHED + b"\x81\x82mask{}", True, "this is no frame of a server"),
        (Way.SOCKET, SWITCHED + b'\x81\x13{"code":"INTERNAL"}', True, "an answer has"),
        (Way.SOCKET, SWITCHED, False, "after its client had gone"),
    ],
)
async def test_a_driver_tells_silence_and_wrong_answers_from_right_ones(
    way: Way, said: bytes, ends: bool, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("ANSWER_S_MAX", "LET_GO_S_MAX"):
        monkeypatch.setattr(f"tests.fuzz.driver.{bound}", 0.2)
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        if not ends:
            await released.wait()  # also after the client has gone
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    driver = Driver("127.0.0.1", server.sockets[0].getsockname()[1])
    case = Case(
        way=way, name="one", packets=(b"GET / HTTP/1.1\r\nHost: xy\r\n\r\n",) * (1 + (way is Way.SOCKET))
    )
    try:
        if fault is None:
            assert await driver.send(case)
        else:
            with pytest.raises(Breach, match=re.escape(fault)):
                await driver.send(case)
    finally:
        released.set()
        await driver.close()
        server.close()
        await server.wait_closed()


def test_a_seed_rolls_the_same_dice_again() -> None:
    body = b'{"items":[{"product_id":1,"qty":1}],"gateway":"hosted"}'
    spoilt = [spoil_json(Random(f"1/{number}"), body) for number in range(200)]  # noqa: S311
    assert spoilt == [spoil_json(Random(f"1/{number}"), body) for number in range(200)]  # noqa: S311
    assert len(set(spoilt)) > 120
