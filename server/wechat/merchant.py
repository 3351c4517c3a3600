"""A merchant's keys, where the parts that use them look: all are replaced in one step when they are read again."""

from __future__ import annotations

from server.config import WeChatAccount
from server.wechat.sealed import ApiV3Keys
from server.wechat.signing import Signer, Verifier


class MerchantKeys:
    """What signs for the merchant, verifies WeChat and opens its notifications."""

    def __init__(self, account: WeChatAccount) -> None:
        """Raises ValueError as `Verifier` does."""
        self.account = account
        self.signer = Signer(account.mchid, f"{account.mch_certificate.serial_number:X}", account.mch_key)
        self.verifier = Verifier(account.verifying_keys(), account.public_key_id)
        self.api_v3 = ApiV3Keys(account.api_v3_keys)

    def replace(self, other: MerchantKeys) -> None:
        """Use the keys of the other from now on, for everyone who holds a part of this object."""
        self.account = other.account
        self.signer.replace(other.signer)
        self.verifier.replace(other.verifier)
        self.api_v3.replace(other.api_v3)
