"""What the operators see of WeChat Pay: when a certificate ends, and what was prepared, settled and asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from server.dev.wechat_faults import Faults
from server.dev.wechat_keys import WeChatKeys
from server.jobs import loops
from tests.payment.conftest import OpenShop
from tests.payment.shop import IN_MINIPROGRAM, IN_WECHAT, PAYS, WAYS, Shop
from tests.road import Road


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that closes numbers keeps out of it: its calls would be counted too."""
    monkeypatch.setattr(loops, "CLOSE_POLL_S", 60.0)


def certificate(keys: WeChatKeys, ends_in: timedelta, *, platform: bool = False) -> x509.Certificate:
    """The merchant's or the platform's, as it is but for its end."""
    old, key = (keys.platform_cert, keys.platform_key) if platform else (keys.mch_cert, keys.mch_key)
    return (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(key.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(datetime.now(UTC) - timedelta(days=900))
        .not_valid_after(datetime.now(UTC) + ends_in)
        .sign(key, SHA256())
    )


async def sample(road: Road, name: str, **labels: str) -> float:
    """A figure of /metrics; 0 when it is not there."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in (await road.call("GET", "/metrics")).raw.decode().splitlines():
        head, _, value = line.rpartition(" ")
        found, _, rest = head.partition("{")
        if found == name and wanted == set(filter(None, rest.rstrip("}").split(","))):
            return float(value)
    return 0.0


ENDS = {
    "far away": (timedelta(days=31), []),
    "soon": (timedelta(days=29), ["WECHAT_CERTIFICATE_ENDS"]),
    "ended": (timedelta(seconds=-60), ["WECHAT_CERTIFICATE_ENDED"]),
}


@pytest.mark.parametrize(
    ("case", "platform"), [("far away", False), ("soon", False), ("ended", False), ("soon", True)]
)
async def test_the_end_of_a_certificate_is_seen_before_it_comes(
    case: str, platform: bool, open_shop: OpenShop, wechat_keys: WeChatKeys
) -> None:
    ends_in, reasons = ENDS[case]
    changed = certificate(wechat_keys, ends_in, platform=platform)
    shop = await open_shop(
        merchant={"platform_certificates": (changed,)} if platform else {"mch_certificate": changed}
    )

    ready = await shop.road.call("GET", "/readyz")

    assert (ready.status, ready.json["reasons"]) == (200, reasons)
    assert ready.json["status"] == ("degraded" if reasons else "ready")
    ends_at = changed.not_valid_after_utc
    assert datetime.fromisoformat(ready.json["wechat_certificate_ends_at"]) == ends_at
    name = "platform" if platform else "merchant"
    gauge = "gateline_wechat_certificate_not_after_seconds"
    assert await sample(shop.road, gauge, certificate=name) == ends_at.timestamp()


async def test_without_a_merchant_no_certificate_ends(road: Road) -> None:
    ready = await road.call("GET", "/readyz")

    assert (ready.json["reasons"], ready.json["wechat_certificate_ends_at"]) == ([], None)


class Counted:
    """How much a figure has grown since."""

    def __init__(self, road: Road, name: str, **labels: str) -> None:
        self._road, self._name, self._labels = road, name, labels
        self._before = 0.0

    async def begin(self) -> Counted:
        """From now on."""
        self._before = await sample(self._road, self._name, **self._labels)
        return self

    async def grown(self) -> float:
        """By so much."""
        return await sample(self._road, self._name, **self._labels) - self._before


async def test_preparations_are_counted_by_channel_and_outcome_with_their_time(shop: Shop) -> None:
    name = "gateline_payment_preparations_total"
    outcomes = {
        ("WECHAT_NATIVE", "PREPARED"): 3,  # made, resumed, and switched back to
        ("WECHAT_JSAPI", "PREPARED"): 1,
        ("WECHAT_NATIVE", "GATEWAY_UNAVAILABLE"): 1,
        ("MINIPROGRAM_BRIDGE", "WECHAT_OPENID_REQUIRED"): 1,
        ("HOSTED", "PREPARED"): 1,
        ("WECHAT_NATIVE", "ORDER_NOT_PAYABLE"): 0,
    }
    counted = {
        (channel, outcome): await Counted(shop.road, name, channel=channel, outcome=outcome).begin()
        for channel, outcome in outcomes
    }
    seconds = await Counted(
        shop.road, "gateline_payment_prepare_seconds_count", channel="WECHAT_NATIVE"
    ).begin()
    slow = await Counted(shop.road, "gateline_payment_prepare_seconds_sum", channel="WECHAT_JSAPI").begin()
    product = await shop.road.product()
    assert (await shop.log_in("wang", "wechat")).status == 200
    order_id = (await shop.order(product)).json["order_id"]
    await shop.resume(order_id)
    hold = shop.wechat.hold_next("jsapi")
    switching = asyncio.create_task(shop.resume(order_id, agent=IN_WECHAT))
    await hold.accepted.wait()
    await asyncio.sleep(0.1)
    hold.release.set()
    await switching
    await shop.resume(order_id)
    await shop.resume(order_id, **WAYS["MINIPROGRAM_BRIDGE"])
    await shop.resume(order_id, agent=IN_MINIPROGRAM)  # refused before anything is prepared
    await shop.resume(order_id, gateway="hosted")
    for _ in range(3):
        shop.wechat.fail_next("native", "dropped")
    await shop.order(product)

    assert {each: await counter.grown() for each, counter in counted.items()} == outcomes
    assert await seconds.grown() == 4
    assert await slow.grown() >= 0.1, "calls to WeChat included"


async def test_settlements_and_notifications_that_are_not_wechats_are_counted(open_shop: OpenShop) -> None:
    shop = await open_shop(faults=Faults(notify_lost=1.0))
    name = "gateline_settlements_total"
    outcomes = {
        ("wechat", "PAID"): 2,
        ("wechat", "AMOUNT_MISMATCH"): 1,
        ("wechat", "UNKNOWN_ORDER"): 1,
        ("unverified", "PROBE"): 1,
        ("unverified", "STALE"): 1,
        ("unverified", "WRONG"): 1,
    }
    counted = {
        (gateway, outcome): await Counted(shop.road, name, gateway=gateway, outcome=outcome).begin()
        for gateway, outcome in outcomes
    }
    made = await shop.order(await shop.road.product())
    number = shop.number(made.json["order_id"])
    await shop.wechat.notify(number, amount={"total": 1})
    await shop.wechat.notify(number, out_trade_no="never-heard-of-it")
    await shop.wechat.notify(number, probe=True)
    await shop.wechat.notify(number, age_s=900)
    await shop.wechat.notify(number, corrupt="body")
    assert await shop.pay(made) in PAYS
    await shop.wechat.notify(number)
    await shop.wechat.notify(number)

    assert {each: await counter.grown() for each, counter in counted.items()} == outcomes


async def test_calls_to_wechat_are_counted_by_outcome_and_each_sending_counts(shop: Shop) -> None:
    name = "gateline_wechat_calls_total"
    outcomes = {
        ("native", "OK"): 1,
        ("native", "SYSTEM_ERROR"): 1,
        ("native", "NETWORK"): 1,
        ("close", "ORDER_CLOSED"): 1,
        ("close", "OTHER"): 1,
        ("query", "OK"): 1,
        ("jsapi", "OK"): 1,
        ("jscode2session", "OK"): 1,
        ("jscode2session", "CODE_INVALID"): 1,
        ("oauth2/access_token", "OK"): 1,
    }
    counted = {
        (call, outcome): await Counted(shop.road, name, call=call, outcome=outcome).begin()
        for call, outcome in outcomes
    }
    code = await shop.code("wang")
    for _ in range(2):
        await shop.road.call("POST", "/auth/wechat/login", json={"code": code})
    await shop.log_in("wang", "wechat")
    shop.wechat.fail_next("native", "fail_before")
    shop.wechat.fail_next("native", "dropped")
    made = await shop.order(await shop.road.product())
    shop.wechat.fail_next("close", "fail_after")
    assert (await shop.resume(made.json["order_id"], agent=IN_WECHAT)).status == 200

    assert {each: await counter.grown() for each, counter in counted.items()} == outcomes
