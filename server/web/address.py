"""Where a client is: the address that counts, and what of it belongs to one client."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Final

import structlog
from aiohttp import web

from server.web import appkeys

# Of IPv6: whoever has one address has all of the network that it is in (RFC 4291, 2.5.1)
_HOST_BITS: Final = 64

_log: Final = structlog.get_logger(__name__)


def client_address(request: web.Request) -> str:
    """The client's address as our proxy wrote it, where there is one; else the connection's own."""
    header = request.app[appkeys.CONFIG].client_ip_header
    if not header and "X-Forwarded-For" in request.headers:
        _warn_of_proxy()
    told = request.headers.getall(header or "-", ())
    for text in (told[-1].rpartition(",")[2].strip() if told else "", request.remote or ""):
        with suppress(ValueError):
            address = ip_address(text.partition("%")[0])  # without the zone of a link-local one
            return str(getattr(address, "ipv4_mapped", None) or address)
    return ""


@cache  # once: whoever sends the header must not fill the log
def _warn_of_proxy() -> None:
    _log.warning(
        "client_address_unknown",
        reason="a request came with X-Forwarded-For, and GATELINE_CLIENT_IP_HEADER is not set: behind a proxy "
        "everybody has its address, and whoever guesses passwords keeps all waiting that come by it",
    )


def client_network(request: web.Request) -> str:
    """What attempts are counted by: the client's address; of IPv6 the network, since its hosts are free to choose."""
    text = client_address(request)
    address = ip_address(text) if text else None
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS))
    return text
