"""The rules of scans: what gates were told against the events of the record, and the events against each other."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from tests.chaos.audit.books import Books, Command, ordinal
from tests.chaos.audit.findings import Findings, breach, doubled, lost

NEVER_GREEN = frozenset({"forged", "venue", "function", "nowhere", "stale"})


def told_scans(books: Books) -> Findings:
    """Each verdict that a gate was told: recorded once, as it was told, and never another one."""
    events = books.table("events", "event_id")
    by_scan = books.grouped("events", "scan_id")
    for command in books.of("scan"):
        verdicts = [body for body in command.bodies(200) if isinstance(body, dict) and "result" in body]
        if not verdicts:
            continue
        yield from _one_verdict(command, verdicts)
        told = verdicts[0]
        recorded = events.get(told["event_id"]) if told["event_id"] else None
        if told["event_id"] is not None and recorded is None:
            what = f"scan {command.id}: told {told['result']} {told['event_id']}"
            yield lost("4 told is recorded", what, ("scan", command.id))
        elif recorded is not None and _differs(command, told, recorded):
            yield breach("4 told is recorded", f"scan {command.id}: told {told}, recorded {recorded}")
        if told["event_id"] is None and by_scan.get(command.id):
            yield breach("4 told is recorded", f"scan {command.id}: told without an event, and has one")
        if told["result"] == "success" and command.intents[0].get("as") in NEVER_GREEN:
            yield breach(
                "4 never a wrong green", f"scan {command.id}: {command.intents[0]['as']}, and told success"
            )
    yield from _passed_twice(books)


def _one_verdict(command: Command, verdicts: list[dict[str, Any]]) -> Findings:
    """A scan_id has one verdict: the same in every word where it is recorded, else the same reason."""
    if verdicts[0]["event_id"] is None:
        different = {str((each["result"], each.get("reason"), each["event_id"])) for each in verdicts}
    else:
        different = {json.dumps(each, sort_keys=True, ensure_ascii=False) for each in verdicts}
    if len(different) > 1:
        yield doubled("5 one scan_id, one verdict", f"scan {command.id}: told {sorted(different)}")


def _differs(command: Command, told: dict[str, Any], recorded: dict[str, Any]) -> bool:
    function = command.intents[0]["function"]
    left = {each["function_code"]: each["remaining_uses"] for each in told["entitlements"]}
    return (
        recorded["scan_id"] != command.id
        or recorded["ticket_code"] != told["ticket_code"]
        or recorded["function_code"] != function
        or recorded["result"] != told["result"]
        or recorded["reason"] != told.get("reason")
        or remaining(recorded["remaining"]) != left
    )


def _passed_twice(books: Books) -> Findings:
    """One QR passes a function once, according to the gates themselves, recorded or not."""
    greens: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for command in books.of("scan"):
        if any(isinstance(body, dict) and body.get("result") == "success" for body in command.bodies(200)):
            intent = command.intents[0]
            greens[intent["jti"], intent["function"]].add(command.id)
    for (jti, function), scans in greens.items():
        if len(scans) > 1:
            yield doubled("5 one QR passes once", f"QR {jti} at {function}: green for {sorted(scans)}")


def recorded_events(books: Books) -> Findings:
    """The events of the record, whoever was told of them."""
    asked = {command.id: command for command in books.of("scan")}
    for event in books.record["events"]:
        command = asked.get(event["scan_id"])
        if command is None:
            yield breach(
                "4 only what was asked", f"event {event['event_id']}: nobody asked for {event['scan_id']}"
            )
            continue
        intent = command.intents[0]
        if (event["ticket_code"], event["jti"]) != (intent["ticket"], intent["jti"]):
            yield breach(
                "4 only what was asked", f"event {event['event_id']}: another ticket or QR than {intent}"
            )
        if event["result"] == "success" and intent["as"] in NEVER_GREEN:
            yield breach("4 never a wrong green", f"event {event['event_id']}: {intent['as']}, and a success")
    for scan_id, same in books.grouped("events", "scan_id").items():
        if len(same) > 1:
            yield doubled("5 one scan_id, one verdict", f"scan {scan_id}: {[e['event_id'] for e in same]}")
    passed = [event for event in books.record["events"] if event["result"] == "success"]
    spent = Counter((e["ticket_code"], e["jti"], e["function_code"]) for e in passed)
    for qr, times in spent.items():
        if times > 1:
            yield doubled("5 one QR passes once", f"{qr}: {times} successes in the record")


def uses(books: Books) -> Findings:
    """Successes never pass the total, each takes one, and what is left is the rest."""
    passed: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in books.record["events"]:
        if event["result"] == "success":
            passed[event["ticket_code"], event["function_code"]].append(event)
    known = {(row["ticket_code"], row["function_code"]): row for row in books.record["entitlements"]}
    for key in passed.keys() - known.keys():
        yield breach("3 uses", f"{key}: passed, and is on no ticket")
    for key, row in known.items():
        events = sorted(passed.get(key, []), key=lambda event: ordinal(event["event_id"]))
        total, left = row["total_uses"], row["remaining_uses"]
        if len(events) > total:
            yield doubled("3 uses", f"{key}: {len(events)} successes of {total} uses")
        if left != total - len(events):
            yield breach("3 uses", f"{key}: {left} left of {total} after {len(events)} successes")
        counted = [remaining(event["remaining"]).get(key[1]) for event in events]
        if counted != list(range(total - 1, total - 1 - len(events), -1)):
            yield breach("3 uses", f"{key}: successes left {counted} of {total}, one after the other")


def remaining(packed: str) -> dict[str, int]:
    """ ",bus=2,ferry=0," -> {"bus": 2, "ferry": 0}."""
    return {code: int(left) for code, _, left in (pair.partition("=") for pair in packed.split(",") if pair)}
