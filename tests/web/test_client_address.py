"""The buyer's address as WeChat's H5 page is told it: one spelling, whichever way it comes to us."""

from __future__ import annotations

from unittest.mock import Mock

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from server.config import Config
from server.web import appkeys
from server.web.address import _warn_of_proxy, client_address

PROXY = "10.0.0.1"
SPELLINGS = {
    "203.0.113.7": "203.0.113.7",
    "2001:db8::7": "2001:db8::7",
    "2001:DB8:0:0::7": "2001:db8::7",
    "::ffff:203.0.113.7": "203.0.113.7",  # of a listener for both families
    "::FFFF:cb00:7107": "203.0.113.7",
    "fe80::1%eth0": "fe80::1",  # its zone means something on one machine only
}


def address(config: Config, told: list[str], *, remote: str = PROXY, header: str = "X-Forwarded-For") -> str:
    """What a request with these headers, over a connection from this address, is taken to come from."""
    app = web.Application()
    app[appkeys.CONFIG] = msgspec.structs.replace(config, client_ip_header=header)
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (remote, 1) if name == "peername" else default
    request = make_mocked_request("POST", "/orders", app=app, transport=transport)
    return client_address(request.clone(headers=[("X-Forwarded-For", each) for each in told]))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_address_has_one_spelling_from_our_proxy_and_from_the_connection(
    spelling: str, config: Config
) -> None:
    expected = SPELLINGS[spelling]

    assert address(config, [spelling]) == expected
    assert address(config, [], remote=spelling) == expected


def test_the_last_address_is_the_one_that_our_proxy_wrote(config: Config) -> None:
    assert address(config, ["192.0.2.1, 203.0.113.7"]) == "203.0.113.7"
    assert address(config, ["203.0.113.7", "192.0.2.1, ::ffff:203.0.113.8"]) == "203.0.113.8"


@pytest.mark.parametrize("told", ["unknown", "", "203.0.113.7,", "203.0.113.7/32", "0x7f.1"])
def test_what_is_no_address_is_not_told_on(told: str, config: Config) -> None:
    assert address(config, [told]) == PROXY


def test_a_proxy_that_the_configuration_does_not_know_is_told_once(config: Config) -> None:
    _warn_of_proxy.cache_clear()
    with capture_logs() as log:
        address(config, [], header="")
        address(config, ["203.0.113.7"])
        assert log == []
        for _ in range(3):
            address(config, ["203.0.113.7"], header="")
    assert [each["event"] for each in log] == ["client_address_unknown"]
    assert "GATELINE_CLIENT_IP_HEADER" in log[0]["reason"]


def test_without_a_proxy_of_ours_the_header_is_the_clients_own_word(config: Config) -> None:
    assert address(config, ["203.0.113.7"], header="") == PROXY
