"""The resources that handlers reach through the application, each under its typed key; `server/app.py` fills them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import web

from server.config import Config
from server.flows.admit import Admission
from server.flows.checkout import Checkout
from server.flows.directory import DirectoryFollower
from server.flows.identity import WeChatDoor
from server.flows.settle import Settlement
from server.flows.shop import Shop
from server.flows.staff import StaffDoor
from server.flows.upload import Uploads
from server.flows.wallet import Wallet
from server.flows.wechat_news import WeChatNews
from server.hosted.signing import Secrets
from server.hot.backlog import Backlog
from server.hot.throttle import Throttle
from server.store.pool import Database
from server.web.auth import Tokens
from server.web.tally import Tally
from server.wechat.merchant import MerchantKeys

CONFIG: Final = web.AppKey("config", Config)
GATEWAY_SECRETS: Final = web.AppKey("gateway_secrets", Secrets)
TOKENS: Final = web.AppKey("tokens", Tokens)
DIRECTORY: Final = web.AppKey("directory", DirectoryFollower)
SHOP: Final = web.AppKey("shop", Shop)
CHECKOUT: Final = web.AppKey("checkout", Checkout)
SETTLEMENT: Final = web.AppKey("settlement", Settlement)
WALLET: Final = web.AppKey("wallet", Wallet)
ADMISSION: Final = web.AppKey("admission", Admission)
UPLOADS: Final = web.AppKey("uploads", Uploads)
STAFF_DOOR: Final = web.AppKey("staff_door", StaffDoor)
THROTTLE: Final = web.AppKey("throttle", Throttle)
BACKLOG: Final = web.AppKey("backlog", Backlog)
DATABASE: Final = web.AppKey("database", Database)
REPORTS_DATABASE: Final = web.AppKey("reports_database", Database)
METRICS: Final[web.AppKey[Path | None]] = web.AppKey("metrics")  # None: this process alone
TALLY: Final = web.AppKey("tally", Tally)  # of the express lane
STREAM_TALLY: Final = web.AppKey("stream_tally", Tally)  # of the socket lane
OPENAPI: Final = web.AppKey("openapi", bytes)  # the document, encoded once
# Only where there is a merchant:
WECHAT_DOOR: Final = web.AppKey("wechat_door", WeChatDoor)
WECHAT_NEWS: Final = web.AppKey("wechat_news", WeChatNews)
MERCHANT: Final = web.AppKey("merchant", MerchantKeys)
