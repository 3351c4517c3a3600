"""Where a client is: the address that counts, and what of it belongs to one client."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Final

from aiohttp import web

from server.web import appkeys

_HOST_BITS: Final = (
    64  # of IPv6: whoever has one address has all of the network that it is in (RFC 4291, 2.5.1)
)


def client_address(request: web.Request) -> str:
    """The client's address as our proxy wrote it, where there is one; else the connection's own."""
    told = request.headers.getall(request.app[appkeys.CONFIG].client_ip_header or "-", ())
    for text in (told[-1].rpartition(",")[2].strip() if told else "", request.remote or ""):
        with suppress(ValueError):
            address = ip_address(text.partition("%")[0])  # without the zone of a link-local one
            return str(getattr(address, "ipv4_mapped", None) or address)
    return ""


def client_network(request: web.Request) -> str:
    """What attempts are counted by: the client's address; of IPv6 the network, since its hosts are free to choose."""
    text = client_address(request)
    address = ip_address(text) if text else None
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS))
    return text
