"""What every name of the HTTP contract means, with an example: the words of the OpenAPI document.

One name means one thing. Where two structs use a name for two things, the word stands under `Struct.name`. A test holds
that every field and parameter has its word here, and that no word is left over.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Word(NamedTuple):
    """A meaning, with its unit where it has one, and a value as it may really occur (None: no example)."""

    meaning: str
    example: Any = None


_TIME: Final = "2026-11-22T08:00:00Z"
_QR: Final = "AEAQADDZFBJBG2QP6S54VYQEB6244DOQVTNG6P7YYC7RW2WONW7LE457QETR7527HN62GHADUEQKAUOYIKXBVUA"

WORDS: Final[dict[str, Word]] = {
    # --- headers and errors
    "Idempotency-Key": Word(
        "Made by the client for one order, before it is sent: the same key with the same items gets the same order.",
        "550e8400-e29b-41d4-a716-446655440000",
    ),
    "X-Deadline-Ms": Word(
        "Milliseconds that the client waits for the decision, at most 60,000, from when the head of its request has "
        "come (of a frame: from when it is read). Past them it is told DEADLINE_PASSED: not decided, or decided and "
        "recorded; a retry with the same ids is told which.",
        800,
    ),
    "X-Signature": Word("`v1=` and the hex HMAC-SHA256, with the shared secret, of timestamp, dot and raw body."),
    "X-Signature-Timestamp": Word("Unix seconds; not more than 300 away from our clock.", "1795334400"),
    "Wechatpay-Timestamp": Word("Unix seconds; less than 300 away from our clock.", "1795334400"),
    "Wechatpay-Nonce": Word("Random; signed with the rest.", "5K8264ILTKCH16CQ2502SI8ZNMTM67VS"),
    "Wechatpay-Signature": Word("Base64 of RSA-SHA256 over timestamp, nonce and raw body, each with its newline."),
    "Wechatpay-Serial": Word("Which key signed: its id, or its certificate's serial.", "PUB_KEY_ID_01"),
    "ErrorBody.code": Word("What went wrong; stable, to be branched on.", "SOLD_OUT"),
    "message": Word("The same for a developer; not for end users, and not stable.", "Not enough units are left."),
    "request_id": Word("As in the header X-Request-Id: finds it in the log.", "30b864b50118440daf85fd2535d4fdc7"),
    "ErrorBody.product_id": Word("With PRODUCT_NOT_FOUND, PRODUCT_INACTIVE and SOLD_OUT: the product.", 1),
    "ErrorBody.available": Word("With SOLD_OUT: units of the product that are free.", 0),
    "ErrorBody.status": Word(
        "With ORDER_NOT_PAYABLE and ORDER_NOT_CANCELLABLE: the status of the order.", "EXPIRED"
    ),
    "ErrorBody.scan_id": Word("With every refusal of a scan: what its retry has to carry.", "7d0c1e7a5e0b4c0e"),
    "ErrorBody.order_id": Word(
        "With a refusal to prepare a payment: the order, which stays payable.", "01M80SGKBGSXSMW7DY6QHGA1GT"
    ),
    "ErrorBody.channel": Word("With CHANNEL_NOT_OFFERED: the channel that would be needed.", "WECHAT_JSAPI"),
    "retry_after_s": Word("With what comes too often: after how many seconds it may come again.", 12),
    "requiresUpgrade": Word("With MINI_PROGRAM_BRIDGE_REQUIRED: the Mini Program around the page must be newer.", True),
    "minBridgeVersion": Word("With MINI_PROGRAM_BRIDGE_REQUIRED: the oldest bridge that can pay.", "1.2.0"),
    # --- the catalog
    "products": Word("Every product, by its id."),
    "id": Word("Of the product.", 1),
    "product_id": Word("Of the product.", 1),
    "sku": Word("The product's name for machines.", "ISLAND-DAY"),
    "name": Word("For people.", "海岛一日"),
    "price_fen": Word("Of one unit, in fen.", 12_800),
    "CatalogProduct.status": Word("INACTIVE: not on sale.", "ACTIVE"),
    "sale_start_at": Word("Sold from then on; null: always."),
    "sale_end_at": Word("Not sold any more from then on; null: always."),
    "available": Word("Units free at this moment (at most 0.2 s old).", 42),
    "functions": Word("What is in the package, in the package's order."),
    "function_code": Word("What an entitlement allows: a bus ride, a ferry crossing, a museum visit.", "ferry"),
    "label": Word("The function, for people.", "Ferry crossing"),
    "quantity": Word("Uses that one unit of the product gives.", 2),
    # --- logging in
    "demo_login": Word("Whether anyone gets a token by a name: only in a demo.", False),
    "guest_login": Word("Whether anyone may buy as a guest, known by their device alone.", True),
    "gateways": Word("Who can take the money; the first one does when an order names none.", ["wechat", "hosted"]),
    "wechat_appid": Word("Of the official account: logs in from the WeChat browser; null: there is none.", "wx1"),
    "buyer": Word("Any name: the same name is the same buyer.", "demo"),
    "token": Word("To be sent as `Authorization: Bearer <token>`."),
    "buyer_id": Word("Whom the token names.", "demo:demo"),
    "expires_in_s": Word("Seconds for which the token is good.", 7_200),
    "WeChatLogin.code": Word("Of `wx.login`, or of the authorisation page: good once, for 5 minutes.", "0a1B2c3D4e5F"),
    "WeChatLogin.environment": Word("Where the code was made: it decides which app it belongs to.", "miniprogram"),
    "username": Word("Of the account.", "gina"),
    "password": Word("Of the account."),
    "gateline_device": Word("From an earlier login on this device; see the answer's `Set-Cookie`."),
    "operator_token": Word("To be sent as `Authorization: Bearer <token>`; its kind follows from the account's role."),
    # --- orders and payments
    "OrderRequest.items": Word("Lines of the same product count as one; all together at most 50 units."),
    "items": Word("Lines of the order, by product."),
    "qty": Word("Units.", 2),
    "unit_price_fen": Word("Of one unit when the order was made, in fen.", 12_800),
    "clientContext": Word("Decides which ways of paying can be offered."),
    "environmentType": Word("Where the client's page runs.", "wechat"),
    "miniProgramBridgeSupported": Word("Whether the page can call the mini program around it.", True),
    "miniProgramBridgeVersion": Word("Of the bridge.", "1.4.0"),
    "shellVersion": Word("Of the app around the page.", "8.0.50"),
    "order_id": Word("A ULID: sorts by the time at which the order was made.", "01M80SGKBGSXSMW7DY6QHGA1GT"),
    "orders": Word("Newest first."),
    "OrderAnswer.status": Word(
        "PENDING_PAYMENT becomes PAID, CANCELLED or EXPIRED; an ended order that is paid late, REFUND_REQUIRED.", "PAID"
    ),
    "OfferAnswer.status": Word("Of the order.", "PENDING_PAYMENT"),
    "total_fen": Word("Of the whole order, in fen.", 25_600),
    "created_at": Word("When the order was made.", _TIME),
    "expires_at": Word("When an unpaid order ends and its units are free again.", _TIME),
    "channel": Word("How to launch the payment; null: there is nothing to pay any more.", "WECHAT_NATIVE"),
    "payPayload": Word(
        "What the channel needs. MINIPROGRAM_BRIDGE: `{appId, timeStamp, nonceStr, package, signType, paySign, "
        "orderNo}`, for `wx.requestPayment`. WECHAT_JSAPI: the same without orderNo, for `getBrandWCPayRequest`. "
        "WECHAT_NATIVE: `{codeUrl, qrImage}`. WECHAT_H5: `{h5Url}`. HOSTED: `{payUrl}`. FREE: `{}`.",
        {"codeUrl": "weixin://wxpay/bizpayurl?pr=p4lpSuKzz", "qrImage": "data:image/svg+xml,…"},
    ),
    "OrderRequest.gateway": Word("Who is to take the money, where both are offered; null: WeChat Pay first."),
    "PayRequest.gateway": Word("Who is to take the money, where both are offered; null: WeChat Pay first."),
    "gateway": Word("Who took the money.", "hosted"),
    "gateway_txn_id": Word("The gateway's name for the transaction: told once or often, it counts once.", "txn-1"),
    "Notification.status": Word("FAILED: the order stays payable.", "SUCCESS"),
    "amount_fen": Word("What was paid, in fen: to be the order's total.", 25_600),
    "currency": Word("ISO 4217: to be CNY.", "CNY"),
    "paid_at": Word("When it was paid, says the gateway.", _TIME),
    "Envelope.id": Word("Of the notification.", "EV-2018022511223320873"),
    "event_type": Word("TRANSACTION.SUCCESS; others are passed over.", "TRANSACTION.SUCCESS"),
    "resource": Word("What was paid, sealed."),
    "algorithm": Word("How it is sealed.", "AEAD_AES_256_GCM"),
    "ciphertext": Word("Base64 of the sealed transaction and its tag."),
    "nonce": Word("Twelve characters.", "fdasflkja484"),
    "associated_data": Word("Sealed with it, not secret.", "transaction"),
    "original_type": Word("What is sealed.", "transaction"),
    "WeChatNotifyAnswer.code": Word("Taken.", "SUCCESS"),
    "WeChatNotifyAnswer.message": Word("What became of it; for people.", "PAID"),
    "NotifyAnswer.result": Word(
        "PAID: by this transaction. REFUND_REQUIRED: the order had ended, or was paid already. PENDING: not paid.",
        "PAID",
    ),
    # --- tickets and QR
    "tickets": Word("Newest first, at most 500."),
    "ticket": Word("The ticket that the token was made for."),
    "ticket_code": Word("16 characters of Crockford's base32.", "Y83DX3FK28NEFFQS"),
    "product": Word("Its name, as it was sold.", "海岛一日"),
    "TicketAnswer.product": Word("What the ticket is for, as it was sold."),
    "TicketAnswer.status": Word("REDEEMED: no use is left. VOID: by the staff.", "ACTIVE"),
    "valid_from": Word("Not good before then; null: from issue on."),
    "valid_until": Word("Not good from then on; null: for ever."),
    "entitlements": Word("Every function of the ticket, with what is left."),
    "total_uses": Word("That the ticket had.", 2),
    "remaining_uses": Word("That are left.", 1),
    "image": Word("Which picture of the token to draw, as a data: URI.", "svg"),
    "qr_token": Word("What the QR code shows: encrypted, and good for one use of each function.", _QR),
    "qr_image": Word("The QR code as a data: URI; null with `image=none`."),
    "jti": Word("The token's own id.", "9f86d081884c7d65"),
    "issued_at": Word("When the token was made.", _TIME),
    "QrAnswer.expires_at": Word("From then on the token is refused.", _TIME),
    "DecryptAnswer.expires_at": Word("From then on the token is refused.", _TIME),
    "valid_for_seconds": Word("From issue to expiry.", 60),
    # --- gates
    "venues": Word("Every venue, by its code."),
    "home_venue": Word("Where a scan of this operator happens when it names no venue.", "pier-1"),
    "venue_code": Word("Where the gate stands; without it, the operator's own venue.", "pier-1"),
    "VenueAnswer.functions": Word("What is served there."),
    "scan_id": Word("Made by the gate before it sends; the same id gets the first verdict again.", "7d0c1e7a5e0b4c0e"),
    "terminal_device_id": Word("The scanner.", "gate-7"),
    "scans": Word("In the order in which they were made; whatever is not as it must be is refused alone."),
    "scanned_at": Word("When the gate scanned the QR, by its own clock.", _TIME),
    "answers": Word("One for each scan, in their order."),
    "Redemption.scanned_at": Word("When the server got the scan; of an uploaded one, when its gate made it.", _TIME),
    "uploaded": Word("Whether the gate was offline, and told of the scan later.", False),
    "ScanAnswer.result": Word("Let them pass, or not.", "reject"),
    "ticket_status": Word(
        "Right after the verdict: ACTIVE, REDEEMED, VOID, NOT_YET_VALID or EXPIRED; null: no known ticket.", "ACTIVE"
    ),
    "event_id": Word(
        "Of the recorded verdict; null: nothing was recorded, since no known ticket is concerned.", "00-1795334400000-0"
    ),
    "ts": Word("When it was decided.", _TIME),
    "reason": Word("Of a refusal.", "ALREADY_REDEEMED"),
    "first_redemption": Word("With ALREADY_REDEEMED: when and where this token was spent."),
    # --- reports
    "from": Word("First moment of the window; by default 24 hours before its end.", _TIME),
    "to": Word("First moment after the window; by default 24 hours after its beginning, or now.", _TIME),
    "function": Word("A function code.", "ferry"),
    "location": Word("A venue code; null: the scan named none.", "pier-1"),
    "operator": Word("Who scanned.", "gina"),
    "result": Word("What the gate was told.", "success"),
    "limit": Word("Entries of a page.", 20),
    "cursor": Word("The `next_cursor` of the page before."),
    "next_cursor": Word("For the next page; null: this was the last one."),
    "format": Word("csv: the whole window as a file, instead of a page.", "json"),
    "redemptions": Word("Newest first."),
    "rows": Word("One per product, function, location, hour, result and reason."),
    "hour": Word("The hour's first moment.", _TIME),
    "unit": Word("How long each entry of `over_time` is.", "hour"),
    "zone": Word("Whose clocks count hours and days, by its IANA name; UTC where that is unknown.", "Asia/Shanghai"),
    "answered_at": Word("The server's clock: ask for windows by it, when yours may be wrong.", _TIME),
    "all": Word("Every verdict that was chosen."),
    "last_hour": Word("Those of the hour before `to`."),
    "over_time": Word("By time, oldest first; units without any are left out."),
    "by_function": Word("The most first, as in all that follow."),
    "by_location": Word("By venue."),
    "by_operator": Word("By who scanned."),
    "by_terminal": Word("By scanner."),
    "by_reason": Word("Refusals, by their reason."),
    "begins_at": Word("First moment of the unit, which may lie before `from`.", _TIME),
    "Part.code": Word("Which function, venue, operator, scanner or reason; null: the scan named none.", "ferry"),
    "Part.label": Word("Of a function or venue, for people; null: it has none, or has left the catalog.", "Ferry"),
    "success": Word("How many were let in.", 170),
    "reject": Word("How many were refused.", 12),
    "events": Word("How many.", 17),
    "stock": Word("Every product, by its id."),
    "sellable": Word("The cap: reserved and sold never pass it.", 100),
    "reserved": Word("Units held by orders that wait for payment.", 3),
    "sold": Word("Units of paid orders.", 55),
    # --- operations
    "Health.status": Word("Always the same: it answers.", "alive"),
    "Readiness.status": Word("degraded: gates work, see the reasons. unready: scans cannot be judged here.", "ready"),
    "reasons": Word("Codes of what is wrong.", ["OUTBOX_LATE"]),
    "flusher_lag_s": Word("Age of the oldest decision not yet in Postgres, in seconds.", 0.03),
    "stream_entries": Word("Decisions not yet in Postgres, of the longest stream.", 4),
    "outbox_waiting": Word("Messages that Redis has not been told yet; null: unknown.", 0),
    "dead_letters": Word("Decisions that Postgres refused; null: unknown.", 0),
    "wechat_certificate_ends_at": Word("The first end of a certificate for WeChat Pay; null: there is none.", _TIME),
}  # fmt: skip


def word(name: str, struct: str = "") -> Word | None:
    """The word for a field of a struct, or for a parameter; None: it has none."""
    return WORDS.get(f"{struct}.{name}") or WORDS.get(name)
