"""The rules of sales: orders, payments and tickets, against each other and against what buyers were told."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.chaos.audit.books import Books
from tests.chaos.audit.findings import Findings, breach, doubled, lost

INTEGERS = frozenset({"integer", "bigint"})


def told_orders(books: Books) -> Findings:
    """Each order that a buyer was told of is recorded once, as they asked for it."""
    orders = books.table("orders", "id")
    lines = books.grouped("lines", "order_id")
    for command in books.of("order"):
        told = {body["order_id"]: body for body in command.bodies(201)}
        if len(told) > 1:
            yield doubled("orders", f"key {command.id}: orders {sorted(told)}")
        for order_id, body in told.items():
            wanted = command.intents[0]
            if order_id not in orders:
                yield lost("orders", f"order {order_id} of key {command.id}", ("order", command.id))
                continue
            bought = [(line["product_id"], line["qty"]) for line in lines.get(order_id, [])]
            if bought != [(wanted["product"], wanted["qty"])] or body["total_fen"] != wanted["total_fen"]:
                yield breach("orders", f"order {order_id}: asked {wanted}, told {body}, recorded {bought}")
        other = books.commands.get(("conflict", command.id))
        if told and other is not None and other.bodies(201):
            yield breach("orders", f"key {command.id}: a second order by the same key was taken")
    keys = Counter((row["buyer_id"], row["idempotency_key"]) for row in books.record["orders"])
    yield from (doubled("orders", f"key {key}: {times} orders") for key, times in keys.items() if times > 1)
    yield from _nobody_asked(books)
    yield from _told_states(books, orders)


def _nobody_asked(books: Books) -> Findings:
    buyers = {command.who for command in books.of("order")}
    asked = {command.id for command in books.of("order", "conflict")}
    for row in books.record["orders"]:
        if row["buyer_id"].rpartition(":")[2] in buyers and row["idempotency_key"] not in asked:
            yield breach("orders", f"order {row['id']}: nobody asked for key {row['idempotency_key']}")


def _told_states(books: Books, orders: dict[str, Any]) -> Findings:
    for command in books.of("cancel"):
        for body in command.bodies(200):
            status = orders.get(command.id, {}).get("status")
            if body["status"] == "CANCELLED" and status not in ("CANCELLED", "REFUND_REQUIRED"):
                yield lost(
                    "orders", f"order {command.id}: told CANCELLED, and is {status}", ("cancel", command.id)
                )
    for command in books.of("cancel", "look"):
        if command.bodies(404):
            yield breach("orders", f"order {command.id}: its buyer was told that there is none")
    tickets = books.table("tickets", "code")
    for command in books.of("tickets"):
        for body in command.bodies(200):
            for code in {each["ticket_code"] for each in body["tickets"]} - tickets.keys():
                yield lost(
                    "tickets", f"ticket {code}, which {command.who} was shown", ("tickets", command.id)
                )


def told_payments(books: Books) -> Findings:
    """Each payment that was taken is recorded once; what was no payment, never."""
    payments = {row["gateway_txn_id"]: row for row in books.record["payments"]}
    for command in books.of("notify"):
        row, intent = payments.get(command.id), command.intents[0]
        results = {body["result"] for body in command.bodies(200)}
        if command.bodies(404):
            yield breach(
                "2 settled once", f"payment {command.id}: order {intent['order_id']} was told to be none"
            )
        if len(results) > 1:
            yield doubled("2 settled once", f"payment {command.id}: told {sorted(results)}")
        if intent["wrong"]:
            if row is not None or results:
                yield breach(
                    "7 only settlement pays", f"payment {command.id} of a wrong amount: {results}, {row}"
                )
            continue
        for result in results:
            if row is None:
                yield lost("2 settled once", f"payment {command.id}: told {result}", ("notify", command.id))
            elif row["status"] != {"PAID": "APPLIED"}.get(result, result):
                yield breach(
                    "2 settled once", f"payment {command.id}: told {result}, recorded {row['status']}"
                )


def recorded_payments(books: Books) -> Findings:
    """The payments of the record, whoever was told of them: each was made, for that order, and is what it costs."""
    orders = books.table("orders", "id")
    asked = {command.id: command for command in books.of("notify")}
    for row in books.record["payments"]:
        txn, order = row["gateway_txn_id"], orders[row["order_id"]]
        if row["gateway"] == "hosted":
            if txn not in asked or asked[txn].intents[0]["order_id"] != row["order_id"]:
                yield breach("7 only settlement pays", f"payment {txn}: nobody paid that")
        elif order["total_fen"]:
            yield breach(
                "7 only settlement pays", f"payment {txn} by {row['gateway']}: the order is not free"
            )
        if row["amount_fen"] != order["total_fen"]:
            yield breach(
                "7 only settlement pays", f"payment {txn}: {row['amount_fen']} of {order['total_fen']}"
            )


def settled_once(books: Books) -> Findings:
    """A paid order has one payment that applied and exactly its tickets; an unpaid one has neither."""
    payments = books.grouped("payments", "order_id")
    lines = books.grouped("lines", "order_id")
    tickets = books.grouped("tickets", "order_id")
    for row in books.record["orders"]:
        order_id, status = row["id"], row["status"]
        states = Counter(payment["status"] for payment in payments.get(order_id, []))
        if states["APPLIED"] > 1:
            yield doubled("2 settled once", f"order {order_id}: {states['APPLIED']} payments applied")
        if (status == "PAID") != (states["APPLIED"] > 0):
            yield breach("7 only settlement pays", f"order {order_id}: {status} with {dict(states)}")
        if status == "REFUND_REQUIRED" and not states["REFUND_REQUIRED"]:
            yield breach("2 settled once", f"order {order_id}: to be refunded, and nobody paid")
        due = {
            (line["position"], unit)
            for line in lines.get(order_id, [])
            for unit in range(1, line["qty"] + 1)
            if status == "PAID"
        }
        issued = Counter((ticket["position"], ticket["unit"]) for ticket in tickets.get(order_id, []))
        if any(times > 1 for times in issued.values()):
            yield doubled("2 exactly its tickets", f"order {order_id}: {issued}")
        if set(issued) != due:
            yield breach(
                "2 exactly its tickets", f"order {order_id} ({status}): {set(issued)} instead of {due}"
            )
        total = sum(line["qty"] * line["unit_price_fen"] for line in lines.get(order_id, []))
        if total != row["total_fen"]:
            yield breach("6 money", f"order {order_id}: {row['total_fen']} fen for {total} of lines")


def money(books: Books) -> Findings:
    """Fen are whole numbers, in every column and in every answer."""
    for column in books.record["money"]:
        if column["data_type"] not in INTEGERS:
            yield breach(
                "6 money", f"{column['table_name']}.{column['column_name']} is {column['data_type']}"
            )
    for command in books.of("order", "look", "cancel"):
        for body in command.bodies(200, 201):
            if isinstance(body.get("total_fen"), bool) or not isinstance(body.get("total_fen"), int):
                yield breach("6 money", f"{command.kind} {command.id}: told {body.get('total_fen')!r} fen")
