"""Every kind of breach that `gateline check` knows, made by hand, and found by its rule and by no other."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from server.domain.redemption import pack_remaining, unpack_remaining
from server.hot import keys
from server.jobs import check, check_record, check_stock, check_tickets, check_verdicts
from server.jobs.findings import exit_code
from server.limits import SAID_TURNS
from tests.jobs.check_scene import SHARDS, Scene

Tamper = Callable[[Scene], Awaitable[object]]
BREACHES: list[tuple[str, dict[str, int], Tamper]] = []


def breach(what: str, **expected: int) -> Callable[[Tamper], Tamper]:
    """Register a way of breaking things, and what the check must say of it: rule -> count, and nothing else."""

    def register(tamper: Tamper) -> Tamper:
        BREACHES.append((what, {"-".join(k.split("_")[1:]): n for k, n in expected.items()}, tamper))
        return tamper

    return register


async def set_use(
    scene: Scene, code: str, function: str, left: int, *, in_record: bool, at_gate: bool
) -> None:
    if in_record:
        await scene.pg.execute(
            "UPDATE entitlements SET remaining_uses = $3 WHERE ticket_code = $1 AND function_code = $2",
            code, function, left,
        )  # fmt: skip
    if at_gate:
        uses = unpack_remaining(await scene.redis.hget(scene.ticket_key(code), "r") or "") | {function: left}
        await scene.redis.hset(scene.ticket_key(code), "r", pack_remaining(list(uses.items())))


@breach("scans that their lanes cannot have taken", _4_scanned_when=3)
async def _(scene: Scene) -> None:
    for number, (late, uploaded) in enumerate((("61 min", False), ("26 h", True), ("-61 min", True))):
        await scene.pg.execute(
            "UPDATE redemption_events SET scanned_at = decided_at - $1::text::interval, uploaded = $2"
            " WHERE event_id = (SELECT event_id FROM redemption_events ORDER BY event_id OFFSET $3 LIMIT 1)",
            late, uploaded, number,
        )  # fmt: skip


@breach("more units are sold in Redis than there are", _1_cap_redis=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "sold", 50)


@breach("stock in Redis is below zero", _1_cap_redis=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(scene.places.product), "reserved", -1)


@breach("stock in Redis is no number", _1_cap_redis=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(scene.places.product), "reserved", "1.5")


@breach("the record sold more than there is", _1_cap_postgres=1, _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE products SET sellable = 3 WHERE id = $1", scene.places.product)


@breach("a unit sold is not counted in Redis", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "sold", -1)


@breach("a unit released is still reserved in Redis", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "reserved", 1)


@breach("a hold was released twice", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hincrby(keys.stock(scene.places.product), "reserved", -1)


@breach("Redis lost a product", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(keys.stock(scene.places.product))


@breach("Redis sells a product that does not exist", _1_stock_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.stock(999), mapping={"sellable": 1, "reserved": 0, "sold": 0})


@breach("a hold of no order", _1_hold_has_order=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.hold("GHOST"), "deadline_ms", 1)


@breach("a hold of a paid order", _1_hold_has_order=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(keys.hold(scene.places.paid), "deadline_ms", 1)


@breach("an order that waits has lost its hold", _1_order_has_hold=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(keys.hold(scene.places.pending))


@breach("a ticket of a paid order is gone", _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM entitlements WHERE ticket_code = $1", scene.places.untouched)
    await scene.pg.execute("DELETE FROM tickets WHERE code = $1", scene.places.untouched)
    await scene.redis.delete(scene.ticket_key(scene.places.untouched))


@breach("a paid order has a ticket for a unit that nobody bought", _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET unit = 9 WHERE code = $1", scene.places.untouched)


@breach("an order that is not paid has a ticket", _2_unpaid_has_none=1, _2_paid_has_tickets=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE tickets SET order_id = $1, unit = 1 WHERE code = $2",
        scene.places.pending,
        scene.places.untouched,
    )


@breach("a ticket has a use more than was sold", _2_as_sold=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE order_lines SET terms = jsonb_set(terms, '{functions,0,quantity}', '1') "
        "WHERE order_id = (SELECT order_id FROM order_lines JOIN tickets USING (order_id, position) "
        "                  WHERE qty = 1 AND product_name = 'Island day 海岛一日' "
        "                  GROUP BY order_id HAVING count(*) = 1 LIMIT 1) "
        "AND terms #> '{functions,0,code}' = '\"bus\"'"
    )


@breach("a ticket belongs to someone who did not buy it", _2_as_sold=3)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE orders SET buyer_id = 'demo:eve' WHERE id = $1", scene.places.paid)


@breach("a use went without a success", _3_uses=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.untouched, "bus", 1, in_record=True, at_gate=True)


@breach("a success spent no use", _3_uses=1, _3_status=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.used, "bus", 1, in_record=True, at_gate=True)


@breach("a ticket with uses left is REDEEMED", _3_status=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'REDEEMED' WHERE code = $1", scene.places.untouched)


@breach("a ticket without uses is ACTIVE", _3_status=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'ACTIVE' WHERE code = $1", scene.places.used)


@breach("a use came back at the gate", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.used, "museum", 1, in_record=False, at_gate=True)


@breach("a use was lost at the gate", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await set_use(scene, scene.places.untouched, "museum", 0, in_record=False, at_gate=True)


@breach("the gate cannot read what remains", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "r", ",bus,")


@breach("the gate lost a function", _3_remaining_equal=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "r", ",bus=2,")


@breach("the gate lost a ticket", _3_ticket_at_gate=1)
async def _(scene: Scene) -> None:
    await scene.redis.delete(scene.ticket_key(scene.places.untouched))


@breach("the gate has a ticket that was never issued", _3_ticket_in_record=1)
async def _(scene: Scene) -> None:
    forged = "0" * 16
    await scene.redis.copy(scene.ticket_key(scene.places.untouched), scene.ticket_key(forged))


@breach("a ticket has another owner at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(scene.ticket_key(scene.places.untouched), "o", "demo:eve")


@breach("a void ticket passes at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET status = 'VOID' WHERE code = $1", scene.places.untouched)


@breach("a ticket's validity ends later at the gate", _3_ticket_facts=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE tickets SET valid_until = now() WHERE code = $1", scene.places.untouched)


@breach("the gate forgot that a QR was spent", _4_spent=1)
async def _(scene: Scene) -> None:
    name = scene.ticket_key(scene.places.used)
    spent = [field for field in await scene.redis.hkeys(name) if field.startswith("j:")]
    await scene.redis.hdel(name, spent[0])


@breach("a QR was spent at the gate that the record knows nothing of", _4_spent=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(
        scene.ticket_key(scene.places.untouched), "j:forged:bus", "1-1\tx\t\x1f\t,bus=1,\t1"
    )


@breach("the record says that another scan spent the QR, and the scan was told so", _4_spent=1, _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE redemption_events SET scan_id = 'other' WHERE event_id IN "
        "(SELECT event_id FROM redemption_events WHERE ticket_code = $1 LIMIT 1)", scene.places.used
    )  # fmt: skip


@breach("a refusal that a scan was told is not in the record", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM redemption_events WHERE reason = 'ALREADY_REDEEMED'")


@breach("a scan was told something else than the record says", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE redemption_events SET remaining = ',bus=9,museum=9,' WHERE reason = 'ALREADY_REDEEMED'"
    )


@breach("what a scan was told cannot be read", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(await _said(scene), "any:scan:id", "garbage")


@breach("what a scan was told is empty", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(await _said(scene), "any", "")


@breach("a scan was told two things, in two turns", _4_told=2)  # it is met in both
async def _(scene: Scene) -> None:
    name = await _said(scene)
    scan_id = next(each for each in await scene.redis.hkeys(name) if each)
    other = f"{name[:-1]}{(_turn_of(name) + 1) % SAID_TURNS}"
    await scene.redis.hset(
        other, mapping={"": _turn_of(other), scan_id: await scene.redis.hget(name, scan_id)}
    )
    await scene.redis.expire(other, 60)


@breach("a hash of what scans were told does not know its turn", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.hdel(await _said(scene), "")


@breach("a hash of what scans were told stands in the place of another", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(await _said(scene), "", _turn_of(await _said(scene)) + 1)


@breach("what scans were told never ends", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.persist(await _said(scene))


async def _said(scene: Scene) -> str:
    """A hash that has what was told just now, of whichever shard."""
    names = [name for shard in range(SHARDS) for name in keys.said(shard)]
    found, *_ = [name for name in names if await scene.redis.exists(name)]
    return found


def _turn_of(name: str) -> int:
    return int(name.rpartition(":")[2])


@breach("an unreadable token was given an event", _4_told=1)
async def _(scene: Scene) -> None:
    await scene.redis.hset(await _said(scene), "s", "1\t5-5\t\tbus\t\t\t\t1\t")


@breach("the record is ahead of a stream", _4_cursor=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE stream_cursors SET last_id = '99999999999999-0' WHERE stream ~ 'orders'")


@breach("an order was passed over", _4_cursor=1)
async def _(scene: Scene) -> None:
    await scene.pass_over(keys.ORDERS_STREAM)


@breach("a verdict was passed over", _4_cursor=1)
async def _(scene: Scene) -> None:
    await scene.pass_over(keys.redemptions(keys.shard_of(scene.places.used, SHARDS)))


@breach("a verdict on a ticket that there is not", _4_event_has_ticket=1)
async def _(scene: Scene) -> None:
    await scene.copy_event("reject", scan_id="ghost", ticket_code="ZZZZZZZZZZZZZZZZ")


@breach("one QR passed twice", _5_qr_once=1, _3_uses=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DROP INDEX redemption_events_spent_once")
    await scene.copy_event("success", scan_id="again")


@breach("one scan_id was judged twice", _5_scan_once=1)
async def _(scene: Scene) -> None:
    await scene.copy_event("reject")


@breach("one scan_id was judged twice within a day, in two days", _5_scan_once=1)
async def _(scene: Scene) -> None:
    await scene.copy_event("reject", scan_id="late", event_id="1", later=timedelta(hours=20))
    await scene.copy_event("reject", scan_id="late", event_id="2", later=timedelta(hours=30))


@breach("a column of money takes fractions", _6_integer=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("ALTER TABLE payments ALTER amount_fen TYPE numeric")


@breach("an order behind a hold has fractions of a fen", _6_integer=1)
async def _(scene: Scene) -> None:
    text = await scene.redis.hget(keys.hold(scene.places.pending), "order")
    assert text is not None
    order = msgspec.json.decode(text)
    order["lines"][0]["unit_price_fen"] = 5000.0
    await scene.redis.hset(keys.hold(scene.places.pending), "order", msgspec.json.encode(order).decode())


@breach("an order's total is not the sum of its lines", _6_total=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE orders SET total_fen = total_fen - 1 WHERE id = $1", scene.places.pending)


@breach("an order was paid by hand", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM payments WHERE order_id = $1", scene.places.paid)


@breach("an order was paid with too little", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("UPDATE payments SET amount_fen = 1 WHERE order_id = $1", scene.places.paid)


@breach("an order was paid twice", _7_paid_by_settlement=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DROP INDEX payments_applied_once")
    await scene.pg.execute(
        "INSERT INTO payments SELECT gateway, 'again', order_id, status, amount_fen, currency, paid_at "
        "FROM payments WHERE order_id = $1", scene.places.paid
    )  # fmt: skip


@breach("a payment was applied to an order that is not paid", _7_unpaid_is_unsettled=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute(
        "UPDATE payments SET order_id = $1, status = 'APPLIED' WHERE status <> 'APPLIED'",
        scene.places.pending,
    )
    await scene.pg.execute("UPDATE orders SET status = 'CANCELLED' WHERE status = 'REFUND_REQUIRED'")


@breach("an order is to be refunded, and nobody paid", _7_unpaid_is_unsettled=1)
async def _(scene: Scene) -> None:
    await scene.pg.execute("DELETE FROM payments WHERE status = 'REFUND_REQUIRED'")


async def _attempt(scene: Scene, order_id: str, phase: str) -> None:
    await scene.pg.execute(
        "INSERT INTO payment_attempts "
        "VALUES ($1 || '-1', $1, 'WECHAT_NATIVE', 'wx1', '', '{}', $2, 'weixin://', now(), now())",
        order_id,
        phase,
    )


@breach("an order that is paid can be paid once more", _7_attempts=1)
async def _(scene: Scene) -> None:
    await _attempt(scene, scene.places.paid, "OPEN")
    await _attempt(scene, scene.places.pending, "OPEN")  # as it should be


@breach("a number was paid, and nobody knows by whom", _7_attempts=1)
async def _(scene: Scene) -> None:
    await _attempt(scene, scene.places.paid, "PAID")


@pytest.mark.parametrize(
    ("what", "expected", "tamper"), BREACHES, ids=[re.sub(r"\W+", "-", what) for what, _, _ in BREACHES]
)
async def test_a_breach_is_found_by_its_rule_and_no_other(
    scene: Scene, what: str, expected: dict[str, int], tamper: Tamper
) -> None:
    await tamper(scene)
    found = await scene.check()

    assert {code: each.breaches for code, each in found.items() if each.breaches} == expected, found
    assert all(each.examples for each in found.values() if each.breaches)
    assert exit_code(list(found.values())) == 1


def test_every_rule_was_seen_broken() -> None:
    modules = (check, check_record, check_stock, check_tickets, check_verdicts)
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    named = set(re.findall(r'Tally\(\s*"([\w-]+)"', source))

    assert named - {rule for _, expected, _ in BREACHES for rule in expected} == {"caught-up", "dead-letters"}
