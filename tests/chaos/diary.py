"""What one client meant to do and what it was told, a JSON line each: the intent is written before a byte is sent."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class Diary:
    """One client's file. It is flushed line by line, so that an intent is on its way before its command is."""

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self._file: TextIO = (folder / f"{who}.jsonl").open("a", encoding="utf-8", buffering=1)

    def intend(self, kind: str, command_id: str, **what: Any) -> None:
        """A command that is sent next, perhaps not for the first time. `command_id`: what makes a retry the same."""
        self._write("intent", kind, command_id, what)

    def told(self, kind: str, command_id: str, status: int, body: Any, ms: float) -> None:
        """What came back: a status of HTTP and the parsed body."""
        self._write("answer", kind, command_id, {"status": status, "body": body, "ms": round(ms, 1)})

    def silence(self, kind: str, command_id: str, fault: str, ms: float) -> None:
        """Nothing came back: whether the command was done is unknown."""
        self._write("silence", kind, command_id, {"fault": fault, "ms": round(ms, 1)})

    def _write(self, said: str, kind: str, command_id: str, what: dict[str, Any]) -> None:
        line = {
            "at": round(time.time(), 4),
            "who": self.who,
            "said": said,
            "kind": kind,
            "id": command_id,
            **what,
        }
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """The end of the day."""
        self._file.close()

    def __enter__(self) -> Diary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
