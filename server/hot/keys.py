"""The only speller of Redis key names.

Names carry hash tags, so that every script finds all its keys in one slot: a ticket lives in the shard of its code, all
stock lives in one slot (an order over several products holds all or nothing in one script).
"""

from __future__ import annotations

import zlib

from server.limits import SAID_TURNS

STOCK_EPOCH = "{stock}:epoch"
ORDERS_STREAM = "{stock}:orders"
STOCK_SLOT = "stock"
# String: set to see whether Redis takes writes, and to have a write behind what a replica must have
WRITE_PROBE = "{stock}:probe"
# A slot of their own: one script counts in several of them, and losing them loses no truth
_LIMITS = "{limits}"


def shard_of(code: str, shards: int) -> int:
    """The shard (0 .. shards - 1) of a ticket code, or of a scan_id that named no ticket."""
    return zlib.crc32(code.encode()) % shards if shards > 1 else 0


def slot(name: str) -> str:
    """The hash tag of a name: what stands between its braces."""
    return name[1 : name.index("}")]


def loading(slot_tag: str) -> str:
    """String: the token of the rehydration that may write in this slot."""
    return f"{{{slot_tag}}}:loading"


def epoch(shard: int) -> str:
    """String: present while the shard is loaded and its gate open; holds what it was loaded for."""
    return f"{{s{shard:02d}}}:epoch"


def redemptions(shard: int) -> str:
    """Stream: one entry per recorded verdict of the shard."""
    return f"{{s{shard:02d}}}:redemptions"


def ticket(shard: int, code: str) -> str:
    """Hash: one ticket, see `redeem.lua`."""
    return f"{{s{shard:02d}}}:t:{code}"


def any_ticket() -> str:
    """Pattern, for SCAN: the tickets of every shard, also of an earlier number of shards."""
    return "{s*}:t:*"


def code_of(ticket_name: str) -> str:
    """The code of a ticket, from the name of its hash."""
    return ticket_name.rpartition(":")[2]


def said(shard: int) -> list[str]:
    """Hashes that take turns of `SAID_TURN_S`: the verdict that each scan_id was told, see `redeem.lua`."""
    return [f"{{s{shard:02d}}}:said:{place}" for place in range(SAID_TURNS)]


def stock(product_id: int) -> str:
    """Hash: sellable, reserved, sold."""
    return f"{{stock}}:p:{product_id}"


def hold(order_id: str) -> str:
    """Hash: an open hold, its deadline and its order; makes commit and release idempotent."""
    return f"{{stock}}:o:{order_id}"


def idempotency(buyer_id: str, key: str) -> str:
    """String with a time to live: order id and payload hash of the order made under the buyer's key."""
    return f"{{stock}}:i:{buyer_id}/{key}"  # a key has no slash: no two pairs make one name


def recent_orders(buyer_id: str) -> str:
    """String with a time to live: when the buyer made their latest orders, see `hold.lua`."""
    return f"{{stock}}:b:{buyer_id}"


def tries(account: str, place: str) -> str:
    """Hash, as all buckets (`limit.lua`): logins that failed, of one account from one address or on one device."""
    return f"{_LIMITS}:try:{account}/{place}"  # no user name has a slash


def any_tries(account: str) -> str:
    """Pattern, for SCAN: the buckets of one account at every address and device."""
    return tries(account, "*")  # no user name has a character that a pattern gives a meaning


def tries_of_account(account: str) -> str:
    """Bucket: logins to one account that failed, from everywhere."""
    return f"{_LIMITS}:account:{account}"


def tries_from(address: str) -> str:
    """Bucket: logins from one address that failed, to whatever account."""
    return f"{_LIMITS}:address:{address}"


def at_home(account: str, address: str) -> str:
    """String with a time to live: present when the account has logged in from there lately."""
    return f"{_LIMITS}:home:{account}/{address}"


def codes_from(address: str) -> str:
    """Bucket: WeChat's codes from one address that WeChat did not take."""
    return f"{_LIMITS}:codes:{address}"


def guests_from(address: str) -> str:
    """Bucket: guests made for one address."""
    return f"{_LIMITS}:guests:{address}"


def shown(ticket_code: str) -> str:
    """Bucket: QR tokens made for one ticket."""
    return f"{_LIMITS}:qr:{ticket_code}"


def inquired(order_id: str) -> str:
    """Bucket: questions about one order to its payment gateway, asked by its buyer."""
    return f"{_LIMITS}:query:{order_id}"


def streams(shards: int) -> list[str]:
    """Every stream that the flusher drains."""
    return [ORDERS_STREAM, *(redemptions(shard) for shard in range(shards))]


def shard_of_stream(stream: str) -> int:
    """The shard of a redemptions stream, from its name."""
    return int(stream[2 : stream.index("}")])
