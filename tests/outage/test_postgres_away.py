"""Postgres away for a while: gates and holds go on, settlement waits, and afterwards nothing is lost or doubled."""

from __future__ import annotations

from server.dev.embedded import EmbeddedPostgres
from server.store.migrate import migrate_by_owner
from tests.conftest import Audit, Serve, eventually


async def test_scans_qr_and_holds_go_on_and_all_is_recorded_afterwards(
    serve: Serve, own_postgres: EmbeddedPostgres, audit: Audit
) -> None:
    await migrate_by_owner(own_postgres.url, own_postgres.owner_url)
    road = await serve(database_url=own_postgres.url)
    product = await road.product({"bus": 20}, sellable=50)
    (ticket,) = await road.buy({product: 1})
    code = ticket["ticket_code"]
    await road.gate()  # logged in before
    await road.flushed()  # and the ticket is at the gate: until then it is read from the record

    own_postgres.kill()

    for number in range(5):
        answer = await road.scan(await road.qr(code), "bus", scan_id=f"away-{number}")
        assert (answer.status, answer.json.get("remaining_uses")) == (200, 19 - number), answer
    made = await road.order({product: 2}, idempotency_key="while-away")
    assert (made.status, made.json["status"]) == (201, "PENDING_PAYMENT"), made
    assert (await road.call("GET", "/catalog")).status == 200
    settled = await road.notify("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1000)
    assert (settled.status, settled.json["code"]) == (503, "POSTGRES_UNAVAILABLE")
    assert settled.headers["Retry-After"]
    tickets = await road.call("GET", "/my/tickets", headers=road.buyer())
    assert (tickets.status, tickets.json["code"]) == (503, "POSTGRES_UNAVAILABLE")
    await road.backlog.look()
    ready = await road.call("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "degraded"), ready
    assert "POSTGRES_UNAVAILABLE" in ready.json["reasons"]
    assert ready.json["stream_entries"] >= 5
    assert ready.json["flusher_lag_s"] > 0

    own_postgres.start()

    async def recorded() -> bool:
        ready = await road.call("GET", "/readyz")
        return ready.status == 200 and ready.json["status"] == "ready"

    await eventually(recorded)
    await road.flushed()
    report = await road.call("GET", "/reports/redemptions", headers=await road.analyst())
    assert sorted(row["scan_id"] for row in report.json["redemptions"]) == [f"away-{n}" for n in range(5)]
    order = await road.call("GET", f"/orders/{made.json['order_id']}", headers=road.buyer())
    assert order.json["status"] == "PENDING_PAYMENT"
    paid = await road.notify(made.json["order_id"], made.json["total_fen"])
    assert paid.json["result"] == "PAID"
    await audit(road)
    await road.stop()


async def test_a_server_starts_while_postgres_is_away_and_serves_when_it_is_back(
    serve: Serve, own_postgres: EmbeddedPostgres
) -> None:
    await migrate_by_owner(own_postgres.url, own_postgres.owner_url)
    own_postgres.stop()
    road = await serve(jobs=False, database_url=own_postgres.url)
    ready = await road.call("GET", "/readyz")
    catalog = await road.call("GET", "/catalog")

    assert ready.status == 503
    assert "CATALOG_NOT_LOADED" in ready.json["reasons"]
    assert (catalog.status, catalog.json["code"]) == (503, "POSTGRES_UNAVAILABLE")
    own_postgres.start()

    async def serving() -> bool:
        return (await road.call("GET", "/catalog")).status == 200

    await eventually(serving)
    await road.stop()
