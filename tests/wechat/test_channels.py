"""Which channel pays: the table, and that nothing a client can say leads a Mini Program out of itself."""

from __future__ import annotations

import itertools
import random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, Refusal
from server.domain.payments import Channel, ClientContext
from server.wechat.channels import ChannelRules, Environment, channel_for, environment_of, version_at_least

DESKTOP = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Safari/604.1"
)
ANDROID = "Mozilla/5.0 (Linux; Android 16; Pixel 10) AppleWebKit/537.36 Chrome/142.0 Safari/537.36"
WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) MicroMessenger/8.0.60(0x18003c2a) NetType/WIFI"
)
MINI = WECHAT + " miniProgram/wx1234567890abcdef"
RULES, WITHOUT_H5 = ChannelRules("1.2.0", h5=True), ChannelRules("1.2.0", h5=False)
UPGRADE = None  # what the table says for the refusal
BRIDGE, JSAPI = Channel.MINIPROGRAM_BRIDGE, Channel.WECHAT_JSAPI
H5, NATIVE = Channel.WECHAT_H5, Channel.WECHAT_NATIVE

Says = Literal["miniprogram", "wechat", "none"] | None


def client(
    environment: Says = None, supported: bool | None = None, version: str | None = None
) -> ClientContext:
    return ClientContext(
        environment_type=environment,
        mini_program_bridge_supported=supported,
        mini_program_bridge_version=version,
    )


def chosen(context: ClientContext, user_agent: str, rules: ChannelRules = RULES) -> Channel | None:
    """The channel, or None for the one refusal that there is."""
    try:
        return channel_for(context, user_agent, rules)
    except Refusal as refusal:
        assert refusal.code is ErrorCode.MINI_PROGRAM_BRIDGE_REQUIRED
        assert refusal.detail == {"requiresUpgrade": True, "minBridgeVersion": rules.bridge_version_min}
        return UPGRADE


@pytest.mark.parametrize(
    ("context", "user_agent", "rules", "channel"),
    [
        # a Mini Program by its own word, by its User-Agent, by both
        (client("miniprogram", True, "1.2.0"), MINI, RULES, BRIDGE),
        (client("miniprogram", True, "1.2.0"), WECHAT, RULES, BRIDGE),  # iOS without the marker
        (client("miniprogram", True, "2"), DESKTOP, RULES, BRIDGE),
        (client("miniprogram", True, "2"), "", RULES, BRIDGE),
        (client(None, True, "1.10"), MINI, RULES, BRIDGE),
        (client("wechat", True, "1.2.0"), MINI, RULES, BRIDGE),
        (client("none", True, "1.2.0"), MINI, RULES, BRIDGE),
        # a Mini Program whose shell is too old or says nothing
        (client("miniprogram", True, "1.1.9"), MINI, RULES, UPGRADE),
        (client("miniprogram", True, None), MINI, RULES, UPGRADE),
        (client("miniprogram", False, "9.9.9"), MINI, RULES, UPGRADE),
        (client("miniprogram", None, "9.9.9"), MINI, RULES, UPGRADE),
        (client("miniprogram"), PHONE, RULES, UPGRADE),
        (client("none"), MINI, RULES, UPGRADE),
        (client("wechat"), MINI, WITHOUT_H5, UPGRADE),
        (client(), MINI, RULES, UPGRADE),
        (client(), MINI.upper(), RULES, UPGRADE),
        # the WeChat browser
        (client("wechat"), WECHAT, RULES, JSAPI),
        (client("wechat"), PHONE, RULES, JSAPI),
        (client(), WECHAT, RULES, JSAPI),
        (client(), WECHAT.lower(), WITHOUT_H5, JSAPI),
        (client("none"), WECHAT, RULES, JSAPI),
        (client("none", True, "1.2.0"), WECHAT, RULES, JSAPI),
        # any other browser
        (client("none"), PHONE, RULES, H5),
        (client(), PHONE, RULES, H5),
        (client(), ANDROID.upper(), RULES, H5),
        (client(), "something MOBILE", RULES, H5),
        (client(None, True, "9"), ANDROID, RULES, H5),
        (client("none"), PHONE, WITHOUT_H5, NATIVE),
        (client(), DESKTOP, RULES, NATIVE),
        (client("none"), DESKTOP, WITHOUT_H5, NATIVE),
        (client(), "", RULES, NATIVE),
        (client(), "miniProgram AlipayClient", RULES, NATIVE),  # another app's kind of Mini Program
    ],
)
def test_the_table(
    context: ClientContext, user_agent: str, rules: ChannelRules, channel: Channel | None
) -> None:
    assert chosen(context, user_agent, rules) is channel


@pytest.mark.parametrize(
    ("user_agent", "environment"),
    [
        (MINI, Environment.MINIPROGRAM),
        ("miniprogram micromessenger", Environment.MINIPROGRAM),
        (WECHAT, Environment.WECHAT),
        (PHONE, Environment.NONE),
        ("miniprogram", Environment.NONE),
        ("", Environment.NONE),
    ],
)
def test_the_user_agent_alone_names_an_environment(user_agent: str, environment: Environment) -> None:
    assert environment_of(client(), user_agent) is environment


@pytest.mark.parametrize("says", ["miniprogram", "wechat", "none"])
@pytest.mark.parametrize("user_agent", [MINI, WECHAT, PHONE])
def test_the_stricter_of_the_two_sources_counts(says: Says, user_agent: str) -> None:
    strictness = [Environment.NONE, Environment.WECHAT, Environment.MINIPROGRAM]
    both = (environment_of(client(says), ""), environment_of(client(), user_agent))

    assert environment_of(client(says), user_agent) is max(both, key=strictness.index)


# --- No way out ---------------------------------------------------------------------------------------------

VERSIONS = [
    None,
    "",
    "0",
    "1.1.9",
    "1.2",
    "1.2.0",
    "1.2.0.1",
    "1.10",
    "10",
    "v1.2.0",
    "1.٣.0",
    "9" * 5000,
    ".",
]
MARKERS = [
    (),
    ("miniprogram",),
    ("micromessenger",),
    ("micromessenger", "miniprogram"),
    ("miniprogram", "micromessenger"),
]
BROWSERS = ["", DESKTOP, PHONE, ANDROID]


def mixed(word: str, seed: int) -> str:
    """The word in some mixture of upper and lower case."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    return "".join(dice.choice((letter.upper(), letter.lower())) for letter in word)


def check_no_way_out(
    context: ClientContext, markers: tuple[str, ...], user_agent: str, rules: ChannelRules
) -> None:
    in_wechat = "micromessenger" in markers
    mini = context.environment_type == "miniprogram" or (in_wechat and "miniprogram" in markers)
    wechat = context.environment_type == "wechat" or in_wechat
    good = context.mini_program_bridge_supported is True and at_least(
        context.mini_program_bridge_version, rules.bridge_version_min
    )

    channel = chosen(context, user_agent, rules)

    if mini:
        assert channel is (BRIDGE if good else UPGRADE)
    elif wechat:
        assert channel is JSAPI
    else:
        assert channel in ((H5, NATIVE) if rules.h5 else (NATIVE,))


def at_least(version: str | None, minimum: str) -> bool:
    """The same comparison by Python's own numbers, for versions that these can hold."""

    def numbers(text: str) -> list[int]:
        parts = text.split(".")
        return [int(part[:4000]) if part.isascii() and part.isdigit() else 0 for part in parts]

    mine, least = numbers(version or ""), numbers(minimum)
    width = max(len(mine), len(least))
    return mine + [0] * (width - len(mine)) >= least + [0] * (width - len(least))


def test_no_combination_of_context_and_user_agent_leads_out_of_a_mini_program() -> None:
    """Every one of them, one after the other."""
    seen: set[tuple[Any, ...]] = set()
    for environment, supported, version, shell in itertools.product(
        (None, "miniprogram", "wechat", "none"), (None, True, False), VERSIONS, (None, "8.0.1")
    ):
        context = ClientContext(
            environment_type=environment,
            mini_program_bridge_supported=supported,
            mini_program_bridge_version=version,
            shell_version=shell,
        )
        for number, (markers, browser, h5) in enumerate(itertools.product(MARKERS, BROWSERS, (True, False))):
            agent = " ".join([browser, *(mixed(marker, number) for marker in markers)])
            check_no_way_out(context, markers, agent, ChannelRules("1.2.0", h5=h5))
            seen.add((environment, supported, version, shell, number))

    assert len(seen) == 4 * 3 * len(VERSIONS) * 2 * len(MARKERS) * len(BROWSERS) * 2


VERSION_TEXTS = st.one_of(
    st.none(),
    st.sampled_from(VERSIONS),
    st.lists(st.integers(0, 12), min_size=1, max_size=5).map(lambda parts: ".".join(map(str, parts))),
    st.text(alphabet="0123456789.v-+ _٣", max_size=12),
    st.text(max_size=20),
)


CONTEXTS = st.builds(
    ClientContext,
    environment_type=st.sampled_from((None, "miniprogram", "wechat", "none")),
    mini_program_bridge_supported=st.sampled_from((None, True, False)),
    mini_program_bridge_version=VERSION_TEXTS,
    shell_version=VERSION_TEXTS,
)
NOISE = st.lists(st.sampled_from([*BROWSERS, "Mobile", "", "\x00", "ſ", "票"]), min_size=3, max_size=3)
MINIMA = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@settings(max_examples=500, deadline=None)
@given(
    context=CONTEXTS,
    markers=st.sampled_from(MARKERS),
    noise=NOISE,
    seed=st.integers(0, 2**16),
    rules=st.builds(ChannelRules, MINIMA, h5=st.booleans()),
)
def test_nothing_that_a_client_says_leads_out_of_a_mini_program(
    context: ClientContext, markers: tuple[str, ...], noise: list[str], seed: int, rules: ChannelRules
) -> None:
    words = [*(mixed(marker, seed + place) for place, marker in enumerate(markers)), *noise]
    random.Random(seed).shuffle(words)  # noqa: S311 - no secret
    check_no_way_out(context, markers, " ".join(words), rules)


# --- Versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("1.2.0", "1.2.0", True),
        ("1.2", "1.2.0", True),
        ("1.2.0", "1.2", True),
        ("1.2.0.0.0", "1.2", True),
        ("01.002", "1.2.0", True),
        ("1.2.1", "1.2.0", True),
        ("1.10.0", "1.9.9", True),
        ("2", "1.99.99", True),
        ("1.2.0.1", "1.2.0", True),
        ("1.1.99", "1.2.0", False),
        ("1.9.9", "1.10.0", False),
        ("0.9", "1", False),
        ("1.x.5", "1.2.0", False),
        ("1.x.5", "1.0.5", True),
        ("v2.0", "1.2.0", False),
        ("1.2.0-beta", "1.2.0", True),  # "0-beta" is no number, so 0
        ("1.3-beta", "1.2.0", False),
        ("+2.0", "1.2.0", False),
        (" 2.0", "1.2.0", False),
        ("2_0", "1.2.0", False),
        ("٣.0.0", "1.2.0", False),
        ("²", "1.2.0", False),
        ("9" * 100_000, "1.2.0", True),
        ("0" * 100_000 + "1", "1.2.0", False),
        ("1." * 100_000, "1.2.0", False),
        ("", "1.2.0", False),
        (None, "1.2.0", False),
        (None, "0.0.0", True),
        ("", "0", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str | None, minimum: str, enough: bool) -> None:
    assert version_at_least(version, minimum) is enough
