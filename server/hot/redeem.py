"""Judging scans: a batch of one shard is one call of `redeem.lua`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from server.domain.redemption import WHERE_SEPARATOR, Scan, Undecided
from server.hot import keys
from server.hot.batcher import Batcher
from server.hot.scripts import Script, ScriptRunner
from server.limits import SAID_TURN_S
from server.telemetry import SCAN_BATCH

REDEEM: Final = Script("redeem")


class Redeemer:
    """The gate of all shards. One batcher per shard: no caller ever asks Redis for one scan alone."""

    def __init__(self, runner: ScriptRunner, shards: int) -> None:
        self._runner = runner
        self._shards = shards
        self._batchers: list[Batcher[Scan, str | Undecided]] = [
            Batcher(self._judge(shard)) for shard in range(shards)
        ]

    def shard_of(self, scan: Scan) -> int:
        """Where a scan is judged: at its ticket, or, when its token named none, where its scan_id falls."""
        return keys.shard_of(scan.ticket_code or scan.scan_id, self._shards)

    async def redeem(self, scan: Scan, patience_s: float | None = None) -> str | Undecided:
        """The verdict's line (`Decision.parse` reads it), or why nothing was decided.

        Raises Refusal: OVERLOADED at once, DEADLINE_PASSED after `patience_s`, REDIS_UNAVAILABLE, NOT_ACKNOWLEDGED. A
        retry with the same scan_id is safe.
        """
        return await self._batchers[self.shard_of(scan)].submit(scan, patience_s)

    def post(
        self,
        scan: Scan,
        told: Callable[[str | Undecided | BaseException], None],
        patience_s: float | None = None,
    ) -> None:
        """The same without a coroutine: `told` is called once, with the line, or why there is none.

        Raises Refusal(OVERLOADED) at once.
        """
        self._batchers[self.shard_of(scan)].post(scan, told, patience_s)

    @property
    def full(self) -> bool:
        """Whether no shard takes a scan now."""
        return all(batcher.full for batcher in self._batchers)

    def waiting(self) -> int:
        """How many scans are queued, over all shards."""
        return sum(batcher.waiting() for batcher in self._batchers)

    async def drain(self) -> None:
        """Wait until every submitted scan is answered."""
        for batcher in self._batchers:
            await batcher.drain()

    def _judge(self, shard: int) -> Callable[[Sequence[Scan]], Awaitable[list[str | Undecided]]]:
        shared = [keys.epoch(shard), keys.redemptions(shard), *keys.said(shard)]
        ticket = keys.ticket(shard, "")

        async def judge(scans: Sequence[Scan]) -> list[str | Undecided]:
            SCAN_BATCH.observe(len(scans))
            names = list(shared)
            args: list[str | int] = [self._shards, SAID_TURN_S]
            for scan in scans:
                names.append(ticket + scan.ticket_code)
                args += (
                    scan.ticket_code,
                    scan.function_code,
                    scan.jti,
                    scan.scan_id,
                    _ruled(scan),
                    scan.at_ms,
                    scan.operator,
                    scan.venue_code + WHERE_SEPARATOR + scan.terminal_device_id,
                    _upload(scan) if scan.uploaded else "",
                )
            answers = await self._runner.run(REDEEM, names, args)
            return [answer if isinstance(answer, str) else Undecided(answer) for answer in answers]

        return judge


def _ruled(scan: Scan) -> int:
    """0: nothing ruled yet; a verdict's number; below zero for verdicts that concern no known ticket."""
    if scan.ruled is None:
        return 0
    return int(scan.ruled) if scan.ruled.names_ticket else -int(scan.ruled)


def _upload(scan: Scan) -> int:
    """1: uploaded later; 2: and outside of the window in which it may be judged."""
    return 2 if scan.outside_window else 1
