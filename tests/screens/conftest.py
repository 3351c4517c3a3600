"""Real pages in a real Chromium, against a real server; pictures go to `tests/out/screens/`, which git ignores."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from server import config as configuration
from server.config import Config, WeChatAccount
from server.dev.gateway import Gateway
from server.dev.serving import serving
from server.dev.wechat import WeChat
from server.dev.wechat_keys import WeChatKeys
from server.web import pages
from tests.conftest import Serve
from tests.road import Road
from tests.screens.buying import Dialog
from tests.screens.looking import Window

PICTURES = Path(__file__).parents[1] / "out" / "screens"
HOW = "no chromium here: `apt-get install chromium fonts-noto-cjk`, then these tests run"
# For a network that is closed: the browser asks nobody for anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
# However slow the machine: who waits for something waits for it, and a test that fails says what was missing.
# Longer than the 20 s that a page gives one order (buyer/purchase.js): before that it has not failed.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)
DEVICES = [(phone, lang) for phone in (True, False) for lang in ("zh", "en")]
OpenWindow = Callable[..., Awaitable[Window]]
# Of a whole test, which may be one road on four devices: whatever it waits for is told sooner, by PATIENCE_MS.
TEST_S_MAX = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow machine has time for all of a test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S_MAX))


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests; each has its own context. Skipped where there is none, never on a build server."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(HOW)
        pytest.skip(HOW)
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        await running.close()


@asynccontextmanager
async def windows(browser: Browser, origin: str) -> AsyncIterator[OpenWindow]:
    """Opens windows of devices of their own: `await open_window("/gate", phone=True, lang="en")`; None: an empty one.

    Fails at the end when the console of one had an error that was not expected, or when it asked another origin for
    anything.
    """
    async with AsyncExitStack() as stack:
        opened: list[Window] = []

        async def start(
            path: str | None,
            *,
            phone: bool = True,
            lang: str = "en",
            agent: str | None = None,
            **options: Any,
        ) -> Window:
            context: BrowserContext = await browser.new_context(
                viewport=PHONE if phone else DESKTOP,
                device_scale_factor=2 if phone else 1,
                has_touch=phone,
                is_mobile=phone,
                locale="zh-CN" if lang == "zh" else "en-GB",
                user_agent=agent,
                # A test's hand on the line does not reach what a worker asks for.
                **{"timezone_id": "Asia/Shanghai", "service_workers": "block", **options},
            )
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page: Page = await context.new_page()
            window = Window(page, context, origin, PICTURES)
            opened.append(window)
            if path is not None:
                await window.go(path)
            return window

        yield start
        for window in opened:
            window.judge()


@pytest.fixture
async def open_window(browser: Browser, road: Road) -> AsyncIterator[OpenWindow]:
    """Opens windows in front of this test's server; see `windows`."""
    async with windows(browser, road.url.rstrip("/")) as start:
        yield start


@pytest.fixture(scope="session")
async def shelf() -> AsyncIterator[str]:
    """The address of the pages' files with no server behind them: for tests of single modules."""
    app = web.Application()

    async def report(request: web.Request) -> web.Response:
        return await pages.report_page(request, None, None)

    app.add_routes([web.get("/report", report), web.get("/static/{file:.+}", pages.static_file)])
    async with serving(app) as url:
        yield url


@pytest.fixture
async def wechat(environment: dict[str, str], wechat_keys: WeChatKeys) -> AsyncIterator[tuple[WeChat, str]]:
    """The simulated WeChat and its address."""
    simulator = WeChat(wechat_keys, time_scale=0.01)
    async with serving(simulator.app()) as url:
        yield simulator, url


@pytest.fixture
def dialog(wechat: tuple[WeChat, str], road: Road) -> Dialog:
    """Somebody's WeChat."""
    return Dialog(*wechat, road)


@pytest.fixture
async def cashier(config: Config) -> AsyncIterator[str]:
    """The address of the simulated hosted cashier."""
    async with serving(Gateway(config.gateway_secrets).app()) as url:
        yield url


@pytest.fixture
def account(
    environment: dict[str, str], wechat_keys: WeChatKeys, wechat: tuple[WeChat, str]
) -> WeChatAccount | None:
    """The merchant's account at the simulated WeChat."""
    return configuration.load({**environment, **wechat_keys.environment(wechat[1])}).wechat


@pytest.fixture
async def road(serve: Serve, account: WeChatAccount, cashier: str) -> Road:
    """A server with a merchant at the simulated WeChat, a hosted cashier, a demo login, and jobs."""
    return await serve(wechat=account, gateway_url=cashier)
