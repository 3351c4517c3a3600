"""The people of the simulated WeChat: an openid for each (user, appid), a unionid for each user, codes of logins.

An openid is derived and carries its own proof, so that WeChat knows its people again after a restart.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from server.limits import CASHIER_SESSIONS_MAX

CODE_S: Final = 300.0  # a code lives five minutes and works once
_MARK_CHARS: Final = 12
_PROOF_CHARS: Final = 15


class CodeFault(enum.IntEnum):
    """Errcodes of the login calls, as WeChat numbers them."""

    BUSY = -1
    BAD_SECRET = 40125
    BAD_GRANT = 40002
    BAD_APPID = 40013
    BAD_CODE = 40029
    CODE_USED = 40163  # what a second use is really told; the documentation has only 40029
    TOO_OFTEN = 45011
    BLOCKED = 40226
    NO_APPID = 41002
    NO_SECRET = 41004
    NO_CODE = 41008


@dataclass
class _Code:
    user: str
    appid: str
    expires_at: float
    used: bool = False


class People:
    """Who is who. Any name is a user; nobody has to be registered."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._codes: dict[str, _Code] = {}

    def openid(self, user: str, appid: str) -> str:
        """The user's openid for this app: 28 characters, as WeChat's are."""
        mark = self._digest(f"mark\n{appid}\n{user}")[:_MARK_CHARS]
        return f"o{mark}{self._proof(appid, mark)}"

    def unionid(self, user: str) -> str:
        """The user's id in all apps of the merchant."""
        return "o" + self._digest(f"union\n{user}")[: _MARK_CHARS + _PROOF_CHARS]

    def knows(self, openid: str, appid: str) -> bool:
        """Whether this is somebody's openid for this app."""
        mark, proof = openid[1 : 1 + _MARK_CHARS], openid[1 + _MARK_CHARS :]
        return openid.startswith("o") and hmac.compare_digest(
            proof.encode(), self._proof(appid, mark).encode()
        )

    def code(self, user: str, appid: str, now: float) -> str:
        """A code for logging in, as wx.login or a redirect gives it; past the bound the oldest is forgotten."""
        if len(self._codes) >= CASHIER_SESSIONS_MAX:
            del self._codes[next(iter(self._codes))]
        code = "0" + secrets.token_urlsafe(23)
        self._codes[code] = _Code(user, appid, now + CODE_S)
        return code

    def exchange(self, code: str, appid: str, now: float) -> str | CodeFault:
        """The user of a code, which is spent by this; or why not."""
        found = self._codes.get(code)
        if found is None or found.appid != appid or found.expires_at <= now:
            return CodeFault.BAD_CODE
        if found.used:
            return CodeFault.CODE_USED
        found.used = True
        return found.user

    def _proof(self, appid: str, mark: str) -> str:
        return self._digest(f"proof\n{appid}\n{mark}")[:_PROOF_CHARS]

    def _digest(self, text: str) -> str:
        digest = hmac.new(self._salt, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
