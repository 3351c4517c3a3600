"""The stories of US-001, one by one, over real HTTP on a real Valkey and a real Postgres."""

from __future__ import annotations

from tests.road import Road


async def test_story_a_an_order_reserves_inventory_and_waits_for_payment(road: Road) -> None:
    product = await road.product(price_fen=12_800, sellable=10)
    made = await road.order({product: 2}, idempotency_key="first")
    again = await road.order({product: 2}, idempotency_key="first")

    assert made.status == 201, made
    assert made.json["status"] == "PENDING_PAYMENT"
    assert made.json["total_fen"] == 25_600
    assert made.json["channel"] == "HOSTED"
    assert made.json["payPayload"]["payUrl"].startswith("http")
    assert again.raw == made.raw
    shown = (await road.call("GET", "/catalog")).json["products"]
    assert [each["available"] for each in shown if each["id"] == product] == [8]


async def test_story_b_a_verified_notification_pays_commits_and_issues_exactly_once(road: Road) -> None:
    product = await road.product({"bus": 2, "museum": 1}, price_fen=5_000, sellable=3)
    order = (await road.order({product: 2})).json
    first = await road.notify(order["order_id"], 10_000)
    again = await road.notify(order["order_id"], 10_000)

    assert first.status == 200 and first.raw == again.raw
    assert first.json["result"] == "PAID"
    paid = await road.call("GET", f"/orders/{order['order_id']}", headers=road.buyer())
    assert paid.json["status"] == "PAID"
    tickets = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"]
    assert len(tickets) == 2
    await road.flushed()
    levels = await road.parts.stock.levels([product])
    assert (levels[product].reserved, levels[product].sold) == (0, 2)


async def test_story_c_tickets_show_entitlements_and_a_short_lived_encrypted_qr(road: Road) -> None:
    product = await road.product({"bus": 2, "museum": 1})
    (ticket,) = await road.buy({product: 1})
    shown = await road.call("POST", f"/qr/{ticket['ticket_code']}?image=png", headers=road.buyer())

    assert [(e["function_code"], e["total_uses"], e["remaining_uses"]) for e in ticket["entitlements"]] == [
        ("bus", 2, 2),
        ("museum", 1, 1),
    ]
    assert shown.status == 200
    assert 0 < shown.json["valid_for_seconds"] <= 60
    assert ticket["ticket_code"] not in shown.json["qr_token"]
    assert shown.json["qr_image"].startswith("data:image/png;base64,")


async def test_story_d_a_scan_decrements_atomically_and_leaves_a_record(road: Road) -> None:
    await road.venue("pier-1", ["bus", "ferry"])
    product = await road.product({"bus": 2, "ferry": 1})
    (ticket,) = await road.buy({product: 1})
    token = await road.qr(ticket["ticket_code"])
    passed = await road.scan(token, "bus", venue_code="pier-1", terminal_device_id="gate-7", scan_id="scan-1")
    replayed = await road.scan(
        token, "bus", venue_code="pier-1", terminal_device_id="gate-7", scan_id="scan-1"
    )
    shown_again = await road.scan(token, "bus", venue_code="pier-1")

    assert passed.status == 200, passed
    assert passed.json["result"] == "success"
    assert passed.json["remaining_uses"] == 1
    assert replayed.raw == passed.raw
    assert shown_again.json["reason"] == "ALREADY_REDEEMED"
    assert shown_again.json["first_redemption"]["venue_code"] == "pier-1"
    assert shown_again.json["first_redemption"]["event_id"] == passed.json["event_id"]
    await road.flushed()
    report = await road.call("GET", "/reports/redemptions", headers=await road.analyst())
    assert report.status == 200, report
    newest, oldest = report.json["redemptions"]
    assert (newest["result"], newest["reason"]) == ("reject", "ALREADY_REDEEMED")
    assert (oldest["event_id"], oldest["operator"], oldest["location"]) == (
        passed.json["event_id"],
        "gina",
        "pier-1",
    )
    left = (await road.call("GET", "/my/tickets", headers=road.buyer())).json["tickets"][0]["entitlements"]
    assert [each["remaining_uses"] for each in left] == [1, 1]
