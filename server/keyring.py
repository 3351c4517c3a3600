"""Every key of a process in one place, where those who use them hold on to it: read again, all are replaced at once."""

from __future__ import annotations

from server.config import Config
from server.config.fingerprints import keys_in_use
from server.domain.qr import QrKeys
from server.hosted.signing import Secrets
from server.telemetry import CERTIFICATE_ENDS, KEYS
from server.web.auth import Tokens
from server.wechat.merchant import MerchantKeys


class Keyring:
    """The keys of a configuration. Commands that serve nobody have none for QR and bearer tokens."""

    def __init__(self, config: Config) -> None:
        """Raises ValueError for two keys of WeChat with one serial."""
        self.qr = QrKeys(dict(config.qr_keys)) if config.qr_keys else None
        self.tokens = Tokens(config.jwt_keys) if config.jwt_keys else None
        self.gateway = Secrets(config.gateway_secrets)
        self.merchant = None if config.wechat is None else MerchantKeys(config.wechat)
        self.config = config
        self._told: frozenset[tuple[str, str, str]] = frozenset()

    def replace(self, config: Config) -> None:
        """Use the keys of `config` from now on: with the next request, since nothing waits in between.

        Raises ValueError as the constructor does; then nothing was replaced.
        """
        other = Keyring(config)
        if self.qr and other.qr:
            self.qr.replace(other.qr)
        if self.tokens:
            self.tokens.replace(config.jwt_keys)
        self.gateway.replace(other.gateway)
        if self.merchant and other.merchant:
            self.merchant.replace(other.merchant)
        self.config = config
        self.tell()

    def tell(self) -> None:
        """To the metrics: so an operator sees when every process accepts a key, before one signs with it."""
        now = {
            (purpose, key, use)
            for purpose, keys in keys_in_use(self.config).items()
            if purpose != "wechat_api_v3"  # chosen by a person, perhaps: its fingerprint is not for everyone
            for use, some in (("accepts", keys), ("signs", keys[:1]))
            for key in some
        }
        for labels in self._told - now:
            KEYS.labels(*labels).set(0)
        for labels in now:
            KEYS.labels(*labels).set(1)
        self._told = frozenset(now)
        if self.merchant is not None:
            for name, ends_at in self.merchant.account.certificates_end().items():
                CERTIFICATE_ENDS.labels(name).set(ends_at.timestamp())
