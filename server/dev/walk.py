"""The demo's walk: one buyer and one gate go the whole road over HTTP, each step printed as it happens."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import aiohttp
import msgspec

from server.limits import GATEWAY_CALL_S_MAX

_WIDTHS: Final = (3, 8, 40, 74, 6)
_TITLES: Final = ("#", "who", "request", "answer", "ms")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    json: Any
    raw: bytes


@dataclass
class Walk:
    """A client of the server, the count of its steps, and what did not hold."""

    session: aiohttp.ClientSession
    address: str
    steps: int = 0
    broken: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Print the table's head."""
        print(_row(_TITLES))
        print("─" * (sum(_WIDTHS) + 2 * len(_WIDTHS)))

    async def step(
        self,
        who: str,
        method: str,
        path: str,
        tell: Callable[[Answer], str],
        holds: Callable[[Answer], bool],
        about: str = "",
        **options: Any,
    ) -> Answer:
        """One request: printed with its answer and time; noted as broken when it does not hold."""
        began = time.perf_counter()
        url = path if path.startswith("http") else self.address + path
        timeout = aiohttp.ClientTimeout(total=GATEWAY_CALL_S_MAX * 2)
        async with self.session.request(method, url, timeout=timeout, **options) as response:
            raw = await response.read()
            is_json = response.content_type == "application/json"
            answer = Answer(response.status, msgspec.json.decode(raw) if is_json else None, raw)
        ms = (time.perf_counter() - began) * 1000
        self.steps += 1
        try:
            held, text = holds(answer), tell(answer)
        except (KeyError, TypeError, IndexError, ValueError):
            held, text = False, raw[:60].decode("utf-8", "replace")
        if not held:
            self.broken.append(f"step {self.steps}: {method} {path} -> {answer.status} {raw[:300]!r}")
        mark = "✓" if held else "✗"
        request = f"{method} {_shown(path)} {about}"
        print(_row((str(self.steps), who, request, f"{mark} {answer.status}  {text}", f"{ms:.1f}")))
        return answer

    def note(self, text: str) -> None:
        """A line between the steps."""
        print(f"\n  {text}")


def _shown(path: str) -> str:
    """A path short enough for the table: long ids are cut, a simulator's address is left out."""
    if path.startswith("http"):
        path = "/" + path.removeprefix("http://").partition("/")[2]
    parts = path.partition("?")[0].split("/")
    return "/".join(part if len(part) < 16 else part[:6] + "…" for part in parts)


def _row(cells: tuple[str, ...]) -> str:
    padded = [_fit(cell, width) for cell, width in zip(cells[:-1], _WIDTHS, strict=False)]
    return "  ".join((*padded, cells[-1].rjust(_WIDTHS[-1])))


def _fit(text: str, width: int) -> str:
    """Padded or cut to so many columns; a Chinese character takes two."""
    used, kept = 0, ""
    for character in text:
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used + columns > width:
            return kept[:-1] + "…" + " " * (width - used) if kept else kept
        used, kept = used + columns, kept + character
    return kept + " " * (width - used)


def yuan(fen: int) -> str:
    """Fen as people read them."""
    return f"¥{fen / 100:,.2f}"


def _uses(entitlements: list[dict[str, Any]]) -> str:
    return ", ".join(f"{e['function_code']} {e['remaining_uses']}/{e['total_uses']}" for e in entitlements)


def _verdict(answer: Answer) -> str:
    told = answer.json
    if told["result"] == "success":
        return f"LET IN, left: {_uses(told['entitlements'])}"
    first = told.get("first_redemption")
    where = f", first at {first['venue_code']} {first['ts'][11:19]}" if first else ""
    return f"REFUSED: {told['reason']}{where}"


def _refused(reason: str) -> Callable[[Answer], bool]:
    return lambda a: a.status == 200 and a.json["result"] == "reject" and a.json["reason"] == reason


def _passed(a: Answer) -> bool:
    return bool(a.status == 200 and a.json["result"] == "success")


async def walk(
    walk: Walk,
    passwords: Mapping[str, str],
    *,
    pay_by_wechat: Callable[[dict[str, Any]], Awaitable[None]],
    until_recorded: Callable[[], Awaitable[None]],
) -> list[dict[str, Any]]:
    """The whole road, A to D; returns the redemptions that the report shows. `passwords`: per demo account."""
    walk.begin()
    buyer, products = await _browse(walk)
    ticket_code = await _purchase(walk, buyer, products["ISLAND-DAY"])
    await pay_by_wechat(products["ISLAND-DAY"])
    await _extras(walk, buyer, products)
    gate = await _log_in(walk, "gate-1", passwords["gate-1"], "gate")
    await _redeem(walk, buyer, gate, ticket_code)
    await until_recorded()
    return await _report(walk, passwords["analyst-1"])


async def _browse(walk: Walk) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    walk.note("A buyer looks around and orders; the same request again is the same order.")
    catalog = await walk.step(
        "buyer", "GET", "/catalog",
        lambda a: ", ".join(f"{p['sku'].lower()} {yuan(p['price_fen'])}" for p in a.json["products"]),
        lambda a: a.status == 200 and len(a.json["products"]) > 0,
    )  # fmt: skip
    login = await walk.step(
        "buyer", "POST", "/auth/demo/login",
        lambda a: f"a token for {a.json['buyer_id']}",
        lambda a: a.status == 200,
        json={"buyer": f"walker-{uuid4().hex[:8]}"},
    )  # fmt: skip
    return (
        {"Authorization": f"Bearer {login.json['token']}"},
        {product["sku"]: product for product in catalog.json["products"]},
    )


async def _purchase(walk: Walk, buyer: dict[str, str], product: dict[str, Any]) -> str:
    order: dict[str, Any] = {
        "headers": buyer | {"Idempotency-Key": uuid4().hex},
        "json": {"items": [{"product_id": product["id"], "qty": 1}], "gateway": "hosted"},
    }
    made = await walk.step(
        "buyer", "POST", "/orders",
        lambda a: f"{a.json['status']}, {yuan(a.json['total_fen'])}, pay by {a.json['channel']}",
        lambda a: a.status == 201 and a.json["status"] == "PENDING_PAYMENT",
        **order,
    )  # fmt: skip
    await walk.step(
        "buyer", "POST", "/orders",
        lambda a: "the same order, byte for byte" if a.raw == made.raw else "another order!",
        lambda a: a.raw == made.raw,
        **order,
    )  # fmt: skip
    walk.note("The buyer pays at the gateway's cashier; the gateway notifies us, signed.")
    order_id, pay_url = made.json["order_id"], made.json["payPayload"]["payUrl"]
    await walk.step(
        "buyer", "GET", pay_url, lambda a: "the cashier's page", lambda a: a.status == 200, about="(cashier)"
    )
    await walk.step(
        "buyer", "POST", pay_url, lambda a: "paid", lambda a: a.status == 200, about="(cashier)",
        data={"outcome": "SUCCESS"},
    )  # fmt: skip
    await walk.step(
        "buyer", "POST", f"/orders/{order_id}/query",
        lambda a: f"{a.json['status']} (told by the gateway and asked, settled once)",
        lambda a: a.status == 200 and a.json["status"] == "PAID",
        headers=buyer,
    )  # fmt: skip
    walk.note("Tickets are issued once; a QR lives for a minute at most.")
    tickets = await walk.step(
        "buyer", "GET", "/my/tickets",
        lambda a: f"{len(a.json['tickets'])} ticket: {_uses(a.json['tickets'][0]['entitlements'])}",
        lambda a: a.status == 200 and [t["order_id"] for t in a.json["tickets"]] == [order_id],
        headers=buyer,
    )  # fmt: skip
    code: str = tickets.json["tickets"][0]["ticket_code"]
    return code


async def _extras(walk: Walk, buyer: dict[str, str], products: dict[str, dict[str, Any]]) -> None:
    """What else an order can become."""
    free = next(product for product in products.values() if product["price_fen"] == 0)
    await walk.step(
        "buyer", "POST", "/orders",
        lambda a: f"free: {a.json['status']} at once",
        lambda a: a.status == 201 and a.json["status"] == "PAID",
        headers=buyer | {"Idempotency-Key": uuid4().hex},
        json={"items": [{"product_id": free["id"], "qty": 1}]},
    )  # fmt: skip
    second = await walk.step(
        "buyer", "POST", "/orders",
        lambda a: f"{a.json['status']}: 2 units are held",
        lambda a: a.status == 201,
        headers=buyer | {"Idempotency-Key": uuid4().hex},
        json={"items": [{"product_id": products["ISLAND-DAY"]["id"], "qty": 2}]},
    )  # fmt: skip
    await walk.step(
        "buyer", "POST", f"/orders/{second.json['order_id']}/cancel",
        lambda a: f"{a.json['status']}: the units are free again",
        lambda a: a.status == 200 and a.json["status"] == "CANCELLED",
        headers=buyer,
    )  # fmt: skip


async def _log_in(walk: Walk, username: str, password: str, who: str) -> dict[str, str]:
    login = await walk.step(
        who, "POST", "/operators/login",
        lambda a: f"a token for {username}",
        lambda a: a.status == 200 and list(a.json) == ["operator_token"],
        json={"username": username, "password": password},
    )  # fmt: skip
    return {"Authorization": f"Bearer {login.json['operator_token']}"}


async def _redeem(walk: Walk, buyer: dict[str, str], gate: dict[str, str], ticket_code: str) -> None:
    await walk.step(
        "gate", "GET", "/venue",
        lambda a: ", ".join(f"{v['venue_code']} ({len(v['functions'])})" for v in a.json["venues"]),
        lambda a: a.status == 200,
        headers=gate,
    )  # fmt: skip

    async def shown() -> str:
        qr = await walk.step(
            "buyer", "POST", f"/qr/{ticket_code}?image=svg",
            lambda a: f"QR for {a.json['valid_for_seconds']} s: {a.json['qr_token'][:24]}…",
            lambda a: a.status == 200 and 0 < a.json["valid_for_seconds"] <= 60,
            headers=buyer,
        )  # fmt: skip
        token: str = qr.json["qr_token"]
        return token

    async def scan(
        token: str, function: str, venue: str, holds: Callable[[Answer], bool], **more: str
    ) -> Answer:
        return await walk.step(
            "gate", "POST", "/venue/scan", _verdict, holds, about=f"{function} at {venue}",
            headers=gate,
            json={"qr_token": token, "function_code": function, "venue_code": venue, "scan_id": uuid4().hex,
                  "terminal_device_id": "demo-gate"} | more,
        )  # fmt: skip

    token = await shown()
    walk.note(
        "The gate scans. A lost answer is asked for again with the same scan_id, and nothing is spent twice."
    )
    scan_id = uuid4().hex
    first = await scan(token, "bus", "bus-terminal", _passed, scan_id=scan_id)
    await scan(token, "bus", "bus-terminal", lambda a: a.raw == first.raw, scan_id=scan_id)
    await scan(token, "bus", "bus-terminal", _refused("ALREADY_REDEEMED"))
    await scan(token, "museum", "pier-north", _refused("WRONG_VENUE_FUNCTION"))
    middle = len(token) // 2
    forged = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    await scan(forged, "ferry", "pier-north", _refused("QR_TAMPERED"))
    fresh = await shown()
    await scan(fresh, "ferry", "pier-north", _passed)
    await scan(await shown(), "museum", "museum-gate", _passed)
    await walk.step(
        "buyer", "GET", "/my/tickets",
        lambda a: next(_uses(t["entitlements"]) for t in a.json["tickets"] if t["ticket_code"] == ticket_code),
        lambda a: a.status == 200,
        headers=buyer,
    )  # fmt: skip


async def _report(walk: Walk, password: str) -> list[dict[str, Any]]:
    walk.note("The analyst sees every redemption and every refusal.")
    analyst = await _log_in(walk, "analyst-1", password, "analyst")
    report = await walk.step(
        "analyst", "GET", "/reports/redemptions?limit=8",
        lambda a: f"{len(a.json['redemptions'])} newest events",
        lambda a: a.status == 200 and len(a.json["redemptions"]) >= 5,
        headers=analyst,
    )  # fmt: skip
    await walk.step(
        "analyst", "GET", "/reports/summary",
        lambda a: f"{sum(row['events'] for row in a.json['rows'])} events in {len(a.json['rows'])} groups",
        lambda a: a.status == 200,
        headers=analyst,
    )  # fmt: skip
    rows: list[dict[str, Any]] = report.json["redemptions"]
    return rows


def show_report(rows: list[dict[str, Any]]) -> None:
    """The report as a table."""
    widths = (10, 29, 9, 13, 10, 20, 18)
    titles = ("time UTC", "product", "function", "location", "operator", "result", "ticket")
    print("\nREPORT  /reports/redemptions, newest first")
    print("  ".join(_fit(title, width) for title, width in zip(titles, widths, strict=True)))
    print("─" * (sum(widths) + 2 * len(widths)))
    for row in rows:
        cells = (
            row["ts"][11:19], row["product"], row["function"], row["location"] or "", row["operator"],
            row["reason"] or "let in", row["ticket_code"],
        )  # fmt: skip
        print("  ".join(_fit(cell, width) for cell, width in zip(cells, widths, strict=True)))
