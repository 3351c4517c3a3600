"""Bearer tokens: who asks, and whether their kind may.

Buyer, operator and analyst tokens differ in `aud`. The algorithm is fixed to HS256 and never taken from the token; the
key is chosen by the header's `kid` among the configured ones, so that keys can be rotated. Sources: RFC 7519, RFC 8725.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
import msgspec
from aiohttp import hdrs

from server.domain.catalog import Directory, Operator, Role
from server.domain.errors import ErrorCode, Refusal
from server.limits import TOKEN_CACHE_MAX

_ALGORITHM: Final = "HS256"
_TOKEN_CHARS_MAX: Final = 2_048  # ours are under 400
_AMONG_PROTOCOLS: Final = "bearer."
_BEARER: Final = "bearer "  # the scheme is read in any case (RFC 9110, 11.1)


class Audience(enum.Enum):
    """The kinds of tokens, as they stand in `aud`."""

    BUYER = "gateline:buyer"
    GATE = "gateline:gate"
    ANALYST = "gateline:analyst"


_AUDIENCES: Final = tuple(audience.value for audience in Audience)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Whom a verified token names; `generation` is 0 for buyers."""

    audience: Audience
    subject: str
    generation: int
    expires_at_s: int


class Tokens:
    """Issues and verifies tokens. Verified ones are remembered until they expire: checking a signature is not free."""

    def __init__(self, keys: tuple[tuple[str, bytes], ...], *, now: Callable[[], float] = time.time) -> None:
        self.keys: Mapping[str, bytes] = dict(keys)  # another object whenever they are replaced
        self._signing_kid = keys[0][0]
        self._now = now
        self._verified: dict[str, Caller] = {}

    def replace(self, keys: tuple[tuple[str, bytes], ...]) -> None:
        """From now on the first of these signs, and all are accepted; what another key had signed ends at once.

        Who remembers somebody by a token of ours for longer than a request looks whether `keys` is still the same
        object, and if not, verifies the token again.
        """
        kept, self.keys, self._signing_kid = self.keys, dict(keys), keys[0][0]
        # All are forgotten when one key leaves: that is rare, and each is verified again at its next use, in 40 us.
        if not kept.items() <= self.keys.items():
            self._verified.clear()

    def issue(self, audience: Audience, subject: str, *, seconds: int, generation: int = 0) -> str:
        """A token of this kind for so many seconds."""
        return self.sign(audience.value, subject, seconds=seconds, gen=generation)

    def sign(self, audience: str, subject: str, *, seconds: int, **more: Any) -> str:
        """A token for this audience, good for so many seconds, with these claims."""
        now = int(self._now())
        claims = {"aud": audience, "sub": subject, **more, "iat": now, "exp": now + seconds}
        kid = self._signing_kid
        return jwt.encode(claims, self.keys[kid], algorithm=_ALGORITHM, headers={"kid": kid})

    def read(self, token: str, *audiences: str) -> dict[str, Any]:
        """The claims of a token that we signed for one of these. Raises Refusal: TOKEN_INVALID, TOKEN_EXPIRED."""
        try:
            if len(token) > _TOKEN_CHARS_MAX:
                raise Refusal(ErrorCode.TOKEN_INVALID)
            key = self.keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise Refusal(ErrorCode.TOKEN_INVALID)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=audiences,
                # `exp` is held against our own clock. `iat` is not held against any: a login answered
                # by another host, whose clock is a second ahead, must be good here at once.
                options={"require": ["exp", "iat", "sub", "aud"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError) as fault:
            raise Refusal(ErrorCode.TOKEN_INVALID) from fault
        if not isinstance(claims["exp"], int):
            raise Refusal(ErrorCode.TOKEN_INVALID)  # NaN would never be over
        if self._now() >= claims["exp"]:
            raise Refusal(ErrorCode.TOKEN_EXPIRED)
        return claims

    def verify(self, authorization: str | None) -> Caller:
        """Whom the Authorization header names. Raises Refusal: TOKEN_REQUIRED, TOKEN_INVALID, TOKEN_EXPIRED."""
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            raise Refusal(ErrorCode.TOKEN_REQUIRED)
        token = authorization[len(_BEARER) :]
        caller = self._verified.get(token)
        if caller is None:
            caller = self._check(token)
            if len(self._verified) >= TOKEN_CACHE_MAX:
                for old in list(self._verified)[: TOKEN_CACHE_MAX // 2]:
                    del self._verified[old]
            self._verified[token] = caller
        if self._now() >= caller.expires_at_s:
            self._verified.pop(token, None)
            raise Refusal(ErrorCode.TOKEN_EXPIRED)
        return caller

    def remembered(self) -> int:
        """How many verified tokens are remembered."""
        return len(self._verified)

    def _check(self, token: str) -> Caller:
        claims = self.read(token, *_AUDIENCES)
        try:
            audience, generation = Audience(claims["aud"]), claims.get("gen")
        except (ValueError, TypeError) as fault:  # several
            raise Refusal(ErrorCode.TOKEN_INVALID) from fault
        if not isinstance(generation, int):
            raise Refusal(ErrorCode.TOKEN_INVALID)
        return Caller(audience, claims["sub"], generation, claims["exp"])


def authorization(headers: Mapping[str, str]) -> str | None:
    """What shows who asks: the Authorization header.

    A browser cannot set it when it opens a WebSocket: there the token may stand among the subprotocols, as
    `bearer.<token>`, beside `gateline.v1`.
    """
    given = headers.get(hdrs.AUTHORIZATION)
    if given is None and hdrs.SEC_WEBSOCKET_PROTOCOL in headers:
        for protocol in headers[hdrs.SEC_WEBSOCKET_PROTOCOL].split(","):
            if protocol.strip().startswith(_AMONG_PROTOCOLS):
                return "Bearer " + protocol.strip().removeprefix(_AMONG_PROTOCOLS)
    return given


def staff(caller: Caller, directory: Directory) -> Operator:
    """The operator or analyst of a token, as the directory knows them now.

    Raises Refusal(OPERATOR_DISABLED): gone, disabled, moved to another role, or with a newer password.
    """
    operator = directory.operators.get(caller.subject)
    role = Role.GATE if caller.audience is Audience.GATE else Role.ANALYST
    if (
        operator is None
        or not operator.enabled
        or operator.role is not role
        or operator.generation != caller.generation
    ):
        raise Refusal(ErrorCode.OPERATOR_DISABLED)
    return operator
