"""The rules between the databases: once all is written, Redis and Postgres say the same."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.chaos.audit.books import Books, ordinal
from tests.chaos.audit.findings import Findings, breach
from tests.chaos.audit.scans import remaining


def caught_up(books: Books) -> Findings:
    """Nothing is on its way any more, and nothing was set aside."""
    for slot in books.closed:
        yield breach("gates", f"the gate of {slot} is not open")
    for row in books.record["cursors"]:
        last = books.last_ids.get(row["stream"], "0-0")
        if ordinal(last) > ordinal(row["last_id"]):
            yield breach("flushed", f"{row['stream']}: {last} is written up to {row['last_id']} only")
    for row in books.record["outbox"]:
        yield breach("published", f"outbox {row['id']}: {row['kind']} {row['subject']}")
    for row in books.record["letters"]:
        yield breach("dead letters", f"{row['stream']} {row['entry_id']}: {row['reason']}")


def stock(books: Books) -> Findings:
    """Reserved and sold never pass the cap, and are the same on both sides."""
    held: Counter[int] = Counter()
    sold: Counter[int] = Counter()
    status = {row["id"]: row["status"] for row in books.record["orders"]}
    for line in books.record["lines"]:
        if status.get(line["order_id"]) == "PENDING_PAYMENT":
            held[line["product_id"]] += line["qty"]
        elif status.get(line["order_id"]) == "PAID":
            sold[line["product_id"]] += line["qty"]
    for product in books.record["products"]:
        number = product["id"]
        due = {"sellable": product["sellable"], "reserved": held[number], "sold": sold[number]}
        if due["reserved"] + due["sold"] > due["sellable"]:
            yield breach("1 never oversold", f"product {number}: {due} in Postgres")
        there = books.stock.get(number)
        if there is None:
            yield breach("1 never oversold", f"product {number}: Redis does not have it")
        elif there != due:
            yield breach("1 never oversold", f"product {number}: {there} in Redis, {due} in Postgres")
    pending = {order_id for order_id, each in status.items() if each == "PENDING_PAYMENT"}
    if books.holds != pending:
        yield breach(
            "1 never oversold",
            f"holds without an open order, or the other way round: {books.holds ^ pending}",
        )


def tickets(books: Books) -> Findings:
    """What a gate would see of a ticket is what the record says of it, and every spent QR stays spent."""
    left: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in books.record["entitlements"]:
        left[row["ticket_code"]][row["function_code"]] = row["remaining_uses"]
    for code, hashed in books.gate.items():
        if code not in left:
            yield breach("3 uses", f"ticket {code}: at the gate, and not in the record")
        elif remaining(hashed.get("r", "")) != left[code]:
            yield breach(
                "3 uses", f"ticket {code}: {hashed.get('r')} at the gate, {left[code]} in the record"
            )
    for event in books.record["events"]:
        at_gate = books.gate.get(event["ticket_code"])
        if at_gate is None:  # loaded from the record when it is next shown
            continue
        spent = at_gate.get(f"j:{event['jti']}:{event['function_code']}", "")
        if event["result"] == "success" and spent.split("\t")[:2] != [event["event_id"], event["scan_id"]]:
            yield breach(
                "5 one QR passes once",
                f"event {event['event_id']}: its QR is not spent at the gate: {spent!r}",
            )


def remembered(books: Books) -> Findings:
    """A verdict that was told would be told again: the gate remembers it by its scan_id."""
    for event in books.record["events"]:
        line = books.said.get(event["scan_id"])
        if line is None:
            yield breach("5 one scan_id, one verdict", f"scan {event['scan_id']}: the gate has forgotten it")
        elif line.split("\t")[1] != event["event_id"]:
            yield breach(
                "5 one scan_id, one verdict", f"scan {event['scan_id']}: {line!r}, not {event['event_id']}"
            )
