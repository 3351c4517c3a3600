"""The gate's page is on the device: it opens without a network, shows what waits, and never decides by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from server.web import pages
from tests.road import Road
from tests.screens.at_the_gate import NO_NETWORK, Gate, on_duty, successes, tokens
from tests.screens.buying import PATIENCE_S
from tests.screens.conftest import OpenWindow

KEPT = """async () => {
  const kept = {};
  for (const name of await caches.keys()) {
    for (const asked of await (await caches.open(name)).keys()) {
      const text = await (await caches.match(asked)).text();
      (kept[name] ??= {})[new URL(asked.url).pathname] = text;
    }
  }
  return kept;
}"""


async def kept_by(page: Page) -> dict[str, dict[str, str]]:
    """Names of the caches -> path -> text of what the browser keeps for this origin."""
    told: dict[str, dict[str, str]] = await page.evaluate(KEPT)
    return told


async def settled(page: Page) -> None:
    """The page is on the device."""
    await page.evaluate("() => navigator.serviceWorker.ready.then(() => {})")
    await page.wait_for_function("() => navigator.serviceWorker.controller?.state === 'activated'")


async def on_duty_with_worker(open_window: OpenWindow, road: Road) -> Gate:
    """Ready to scan, with the page on the device."""
    gate = await on_duty(open_window, road, service_workers="allow")
    gate.window.expected = [*NO_NETWORK]
    await settled(gate.page)
    return gate


def with_file(name: str, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the server has another version of this file."""
    old: Any = pages._FILES[name]
    monkeypatch.setitem(pages._FILES, name, pages._file(old.body + more, old.kind))
    plain = {**pages._FILES, pages._WORKER: pages._file((pages._DIR / pages._WORKER).read_bytes(), old.kind)}
    monkeypatch.setitem(pages._FILES, pages._WORKER, pages._worker(plain))


async def test_a_reload_without_network_shows_the_page_and_what_waits_and_sends_it_when_the_network_is_back(
    road: Road, open_window: OpenWindow
) -> None:
    first, second = await tokens(road, 2)
    gate = await on_duty_with_worker(open_window, road)
    await gate.window.context.set_offline(True)
    await gate.present(first)
    await expect(gate.word).to_have_text("NOT DECIDED")

    await gate.page.reload()
    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_visible()
    await expect(gate.banner).to_contain_text("No network")
    await expect(gate.banner).to_contain_text("1 waiting")
    await gate.window.picture("gate-reloaded-offline-phone-en")
    faces = await gate.watch_faces()
    await gate.present(second)
    await expect(gate.word).to_have_text("NOT DECIDED")
    await expect(gate.banner).to_contain_text("2 waiting")
    assert set(await faces()) == {"wait"}
    await gate.page.reload()
    await expect(gate.banner).to_contain_text("2 waiting")
    faces = await gate.watch_faces()
    await gate.window.context.set_offline(False)

    await expect(gate.late).to_have_count(2)
    await expect(gate.banner).to_be_hidden()
    assert await gate.waiting() == []
    assert await faces() == []  # nobody knows who stands there now
    assert len(await successes(road)) == 2


async def test_only_files_are_kept_and_no_answer_and_no_token(road: Road, open_window: OpenWindow) -> None:
    [token] = await tokens(road, 1)
    gate = await on_duty_with_worker(open_window, road)
    await gate.page.reload()
    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_visible()
    await gate.present(token)
    await expect(gate.word).to_have_text("LET IN")

    [files] = (await kept_by(gate.page)).values()
    loaded = await gate.page.evaluate(
        "() => performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname)"
    )
    parts = {path for path in loaded if path.startswith("/static/") and path != "/static/gate/worker.js"}
    assert set(files) == {"/gate", *parts}  # what the page is made of, and nothing else
    session = await gate.page.evaluate("() => JSON.parse(localStorage['gateline.gate.session']).token")
    assert session
    assert not any(secret in text for text in files.values() for secret in (session, token))


async def test_a_new_version_of_a_file_is_seen_at_once_and_takes_the_place_of_the_kept_one(
    road: Road, open_window: OpenWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await on_duty_with_worker(open_window, road)
    [before] = await kept_by(gate.page)
    with_file("gate/icons.js", b"\nwindow.newer = true;\n", monkeypatch)
    await gate.page.reload()
    assert await gate.page.evaluate("() => window.newer") is True

    async with asyncio.timeout(PATIENCE_S):
        while list(kept := await kept_by(gate.page)) == [before] or len(kept) != 1:
            await gate.page.wait_for_timeout(50)
    [files] = kept.values()
    assert "window.newer" in files["/static/gate/icons.js"]
    await gate.window.context.set_offline(True)
    await gate.page.reload()
    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_visible()
    assert await gate.page.evaluate("() => window.newer") is True


async def test_of_an_upgrade_that_is_half_done_nothing_is_kept(
    road: Road, open_window: OpenWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await on_duty_with_worker(open_window, road)
    before = await kept_by(gate.page)
    other: Any = pages._FILES["gate/icons.js"]
    with_file("gate/icons.js", b"\nwindow.newer = true;\n", monkeypatch)
    monkeypatch.setitem(pages._FILES, "gate/icons.js", other)  # another server, with the files of before
    assert (
        await gate.page.evaluate(
            """async () => {
          const registration = await navigator.serviceWorker.getRegistration("/gate");
          const end = new Promise((done) => registration.addEventListener("updatefound", () => {
            const worker = registration.installing;
            worker.addEventListener("statechange", () => done(worker.state));
          }));
          registration.update();
          return end;
        }"""
        )
        == "redundant"
    )

    name, files = next(iter(before.items()))
    assert (await kept_by(gate.page))[name] == files
    await gate.window.context.set_offline(True)
    await gate.page.reload()
    await expect(gate.banner).to_contain_text("No network")


async def test_a_server_that_fails_does_not_take_the_page_away(
    road: Road, open_window: OpenWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await on_duty_with_worker(open_window, road)

    def broken(*_: Any) -> Any:
        raise OSError("as a proxy has nobody behind it")

    monkeypatch.setattr(pages, "_answer", broken)
    await gate.page.reload()

    await expect(gate.page.get_by_role("heading", name="Ferry crossing")).to_be_visible()
