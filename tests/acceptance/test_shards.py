"""Tickets in several shards: the same verdicts and the same record, and a change of their number loses nothing."""

from __future__ import annotations

from tests.conftest import Serve


async def test_tickets_of_all_shards_are_redeemed_and_recorded_and_survive_a_change_of_the_number(
    serve: Serve,
) -> None:
    four = await serve(shards=4)
    product = await four.product({"bus": 2}, sellable=100)
    tickets = [ticket for _ in range(2) for ticket in await four.buy({product: 10})]
    shards = set()
    first = {}
    for ticket in tickets:
        token = await four.qr(ticket["ticket_code"])
        answer = await four.scan(token, "bus", scan_id=f"scan-{ticket['ticket_code']}")
        assert answer.json["remaining_uses"] == 1, answer
        shards.add(answer.json["event_id"][:2])
        first[ticket["ticket_code"]] = (token, answer)
    assert len(shards) == 4
    await four.stop()

    two = await serve(shards=2)  # its guard sees the other number and loads anew
    for code, (token, told) in first.items():
        again = await two.scan(token, "bus", scan_id=f"scan-{code}")
        assert again.raw == told.raw
        spent = await two.scan(await two.qr(code), "bus")
        assert spent.json["remaining_uses"] == 0
    await two.flushed()
    names = [name async for name in two.parts.redis.scan_iter(match="{s*}:t:*")]
    assert len(names) == 20, "tickets of the old shards are left behind"
    report = await two.call("GET", "/reports/summary", headers=await two.analyst())
    assert sum(row["events"] for row in report.json["rows"] if row["result"] == "success") == 40


async def test_a_process_of_more_shards_judges_nothing_once_there_are_fewer(serve: Serve) -> None:
    """A host that was not restarted yet: also what it takes for shards must be shut, or a ticket passes twice."""
    four = await serve(shards=4)
    product = await four.product({"bus": 1}, sellable=20)
    codes = [ticket["ticket_code"] for ticket in await four.buy({product: 10})]
    stranger = await serve(shards=4, jobs=False)
    tokens = {code: await stranger.qr(code) for code in codes}
    assert (await stranger.scan(tokens[codes[0]], "bus")).json["remaining_uses"] == 0
    await four.stop()
    one = await serve(shards=1)

    for code in codes[1:]:
        assert (await stranger.scan(tokens[code], "bus")).json["code"] == "GATE_CLOSED"
        assert (await one.scan(await one.qr(code), "bus")).json["remaining_uses"] == 0
    assert (await one.scan(await one.qr(codes[0]), "bus")).json["reason"] == "NO_REMAINING"


async def test_a_process_of_another_number_of_shards_judges_nothing(serve: Serve) -> None:
    four = await serve(shards=4)
    product = await four.product({"bus": 2})
    (ticket,) = await four.buy({product: 1})
    token = await four.qr(ticket["ticket_code"])
    other = await serve(shards=3, jobs=False)
    await other.backlog.look()

    refused = await other.scan(token, "bus", scan_id="scan-1")
    ready = await other.call("GET", "/readyz")

    assert (refused.status, refused.json["code"]) == (503, "GATE_CLOSED")
    assert "GATE_CLOSED" in ready.json["reasons"]
    assert (await four.scan(token, "bus", scan_id="scan-1")).json["remaining_uses"] == 1
