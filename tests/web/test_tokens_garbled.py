"""Bearer tokens that were garbled: none says anything but what was issued, and none makes the server fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from typing import Any

import jwt
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, Refusal
from server.web.auth import Audience, Caller, Tokens

KEY, OLD = b"k" * 32, b"o" * 32
NOW = 1_790_000_000.0
REFUSED = frozenset({ErrorCode.TOKEN_REQUIRED, ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED})
QUICK = settings(deadline=None, database=None, max_examples=300)


def tokens() -> Tokens:
    return Tokens((("k1", KEY), ("old", OLD)), now=lambda: NOW)


def verified(authorization: str | None) -> Caller | None:
    """Who asks; None: refused, with a code that clients know."""
    try:
        return tokens().verify(authorization)
    except Refusal as refusal:
        assert refusal.code in REFUSED
        return None


ISSUED = tokens().issue(Audience.GATE, "gina", seconds=60, generation=3)
GINA = Caller(Audience.GATE, "gina", 3, int(NOW) + 60)
HEAD, PAYLOAD, SIGNATURE = ISSUED.split(".")


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(head: Any, payload: Any, key: bytes = KEY) -> str:
    """A token over whatever stands in it, truly signed."""
    text = f"{segment(head)}.{segment(payload)}"
    return f"{text}.{segment(hmac.digest(key, text.encode(), 'sha256'))}"


ODD = st.sampled_from([*'.="{}[]-_ \t\r\n\x00é票', "\ud800", "..", "=="])
ANYTHING = st.one_of(
    st.text(st.characters(), max_size=60),
    st.lists(ODD | st.sampled_from([HEAD, PAYLOAD, SIGNATURE, "eyJhbGciOiJub25lIn0"]), max_size=8).map(
        "".join
    ),
    st.binary(max_size=90).map(lambda raw: f"{HEAD}.{segment(raw)}.{SIGNATURE}"),
    st.binary(max_size=90).map(lambda raw: f"{segment(raw)}.{PAYLOAD}.{SIGNATURE}"),
)


@QUICK
@given(ANYTHING, st.sampled_from(["Bearer ", "bearer ", "BEARER ", "", "Basic "]))
def test_no_text_is_a_token(text: str, scheme: str) -> None:
    caller = verified(scheme + text)
    assert caller is None or (caller == GINA and text == ISSUED)


def test_the_token_itself_is_one() -> None:
    assert verified(f"Bearer {ISSUED}") == GINA


@QUICK
@given(
    place=st.integers(0, len(ISSUED) - 1),
    how=st.sampled_from(["flip", "drop", "insert", "cut", "swap", "again"]),
    bit=st.integers(0, 6),
    odd=ODD,
)
def test_a_token_that_was_changed_names_nobody_else(place: int, how: str, bit: int, odd: str) -> None:
    changed = {
        "flip": ISSUED[:place] + chr(ord(ISSUED[place]) ^ 1 << bit) + ISSUED[place + 1 :],
        "drop": ISSUED[:place] + ISSUED[place + 1 :],
        "insert": ISSUED[:place] + odd + ISSUED[place:],
        "cut": ISSUED[:place],
        "swap": ISSUED[place:] + ISSUED[:place],
        "again": f"{ISSUED}.{ISSUED[place:]}",
    }[how]
    caller = verified(f"Bearer {changed}")
    # Base64 has spare bits and a reader passes over odd characters: another spelling of the same signature may hold.
    assert caller is None or (caller == GINA and changed.startswith(f"{HEAD}.{PAYLOAD}."))


CLAIM = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.lists(st.sampled_from([each.value for each in Audience]), max_size=2),
    st.just({}),
    st.sampled_from([each.value for each in Audience]),
)
CLAIMS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("aud", "sub", "gen", "exp", "iat", "nbf", "jti", "iss"), CLAIM)
)
HONEST = {"aud": Audience.GATE.value, "sub": "gina", "gen": 3, "iat": int(NOW), "exp": int(NOW) + 60}


@QUICK
@given(changes=CLAIMS, bare=st.booleans())
def test_even_what_our_key_signed_is_taken_only_in_its_form(changes: dict[str, Any], bare: bool) -> None:
    """Another program may share the key: its claims are looked at all the same."""
    claims = changes if bare else HONEST | changes
    caller = verified(f"Bearer {signed({'alg': 'HS256', 'kid': 'k1'}, claims)}")
    if caller is None:
        return
    assert type(caller.subject) is str and type(caller.audience) is Audience
    assert math.isfinite(caller.expires_at_s) and caller.expires_at_s > NOW
    assert (caller.audience.value, caller.subject) == (claims["aud"], claims["sub"])


@QUICK
@given(
    head=st.fixed_dictionaries(
        {},
        optional={
            "alg": st.sampled_from(["HS256", "none", "None", "HS512", "RS256", "ES256", "", "hs256"]) | CLAIM,
            "kid": st.sampled_from(["k1", "old", "k2", "", "../k1"]) | CLAIM,
            "typ": CLAIM,
            "crit": CLAIM,
            "b64": CLAIM,
            "jwk": st.just({"kty": "oct", "k": segment(KEY)}),
            "jku": st.just("http://127.0.0.1/keys"),
        },
    ),
    key=st.sampled_from([KEY, OLD, b"", b"another"]),
)
def test_a_head_chooses_one_of_our_keys_and_nothing_else(head: dict[str, Any], key: bytes) -> None:
    caller = verified(f"Bearer {signed(head, HONEST, key)}")
    if caller is not None:
        assert caller == GINA and head["alg"] == "HS256"
        assert {"k1": KEY, "old": OLD}[head["kid"]] == key


def test_algorithms_of_the_same_secret_are_not_taken() -> None:
    for algorithm in ("HS384", "HS512"):
        stronger = jwt.encode(
            HONEST, hashlib.sha512(KEY).digest(), algorithm=algorithm, headers={"kid": "k1"}
        )
        assert verified(f"Bearer {stronger}") is None
