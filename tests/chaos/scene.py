"""The scene: what is sold, where it is scanned, and who may scan; set straight in the record, then seen by servers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp

from tests.chaos.installation import Installation
from tests.processes import road_to

GATES = 8
RARE_UNITS = 60  # fewer than are asked for: the cap is fought over
PASS_USES = 400
# A ticket may show 30 QRs a minute, and gates take some sixty a second, at the most, of all tickets together.
PASS_ORDERS, PASSES = 20, 200
OWNER = "owner"  # of the tickets that are there from the beginning


@dataclass(frozen=True)
class Product:
    """Something on sale."""

    id: int
    price_fen: int
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """What clients work with. `tokens`: who -> headers."""

    day: Product  # a package of three functions
    rare: Product
    free: Product  # settled by the flusher itself
    passes: list[str]  # codes of tickets with hundreds of uses, which `owner` has
    gates: list[dict[str, str]]
    buyers: dict[str, dict[str, str]]


async def set_scene(installed: Installation, buyers: list[str]) -> Scene:
    """Write the catalog, log the gates in, and buy the passes that gates begin with."""
    async with road_to(installed.doors[0], installed.config) as road:
        await road.venue("pier", ["bus", "ferry"])
        await road.venue("hall", ["museum"])
        day = Product(
            await road.product(price_fen=1000, sellable=1_000_000), 1000, ("bus", "ferry", "museum")
        )
        rare = Product(await road.product({"bus": 2}, price_fen=500, sellable=RARE_UNITS), 500, ("bus",))
        free = Product(await road.product({"ferry": 3}, price_fen=0, sellable=1_000_000), 0, ("ferry",))
        season = await road.product({"bus": PASS_USES, "ferry": PASS_USES}, price_fen=0, sellable=1_000)
        await _followed(installed, {day.id, rare.id, free.id, season})
        gates = [await road.gate(f"gate-{number}") for number in range(GATES)]
        await _known(installed, gates)
        passes: list[str] = []
        for _ in range(PASS_ORDERS):
            made = await road.order({season: PASSES // PASS_ORDERS}, buyer=OWNER)
            assert made.status == 201, made
        async with asyncio.timeout(20):
            while len(passes) < PASSES:
                shown = await road.call("GET", "/my/tickets", headers=road.buyer(OWNER))
                passes = [ticket["ticket_code"] for ticket in shown.json["tickets"]]
                await asyncio.sleep(0.05)
        tokens = {name: road.buyer(name) for name in [*buyers, OWNER]}
        return Scene(day, rare, free, sorted(passes), gates, tokens)


async def _followed(installed: Installation, products: set[int]) -> None:
    """Wait until both servers show the products: they follow the catalog within a second."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        for door in installed.doors:
            shown: set[int] = set()
            while not products <= shown:
                async with session.get(f"{door}/catalog") as answer:
                    if answer.status == 200:
                        shown = {each["id"] for each in (await answer.json())["products"]}
                await asyncio.sleep(0.05)


async def _known(installed: Installation, gates: list[dict[str, str]]) -> None:
    """Wait until both servers know every gate: they were made a moment ago."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        for door in installed.doors:
            for headers in gates:
                while True:
                    async with session.get(f"{door}/venue", headers=headers) as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.05)
