"""The shop window: what is for sale, and how much of it is left right now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from server.domain.catalog import Product
from server.flows.directory import DirectoryFollower
from server.hot.connection import ask
from server.hot.stock import Level, Stock

FRESH_S = 0.2  # a flash sale's thousands of looks ask Redis five times a second, not thousands


class Shop:
    """Reads products from memory and their free units from Redis."""

    def __init__(
        self, directory: DirectoryFollower, stock: Stock, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._stock = stock
        self._now = now
        self._levels: dict[int, Level] = {}
        self._levels_at = float("-inf")
        self._looking = asyncio.Lock()

    async def window(self) -> list[tuple[Product, int]]:
        """Products with the units available, at most 0.2 s old. Raises Refusal when Redis or the catalog is away."""
        products = self._directory.current.products
        if self._stale():
            await ask(self._look(list(products)))  # bounds the wait for the one who looks, too
        return [(product, self._available(product.id)) for product in products.values()]

    async def _look(self, product_ids: list[int]) -> None:
        async with self._looking:  # one asks, those who came meanwhile share the answer
            if self._stale():
                self._levels = await self._stock.levels(product_ids)
                self._levels_at = self._now()

    def _stale(self) -> bool:
        return self._now() - self._levels_at > FRESH_S

    def _available(self, product_id: int) -> int:
        level = self._levels.get(product_id)  # None for the moment between a new product and its cap
        return 0 if level is None else level.sellable - level.reserved - level.sold
