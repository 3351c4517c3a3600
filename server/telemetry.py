"""Logs, metrics and alerts: what the operators of the service see.

Logs are JSON lines on standard error. Metrics are Prometheus; the processes of one address keep them in one folder, so
that whichever is scraped answers for all (PROMETHEUS_MULTIPROC_DIR, named by the command line before this is imported:
the library chooses its storage at import). No secret, token, QR or signature is ever passed to either.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

REQUESTS: Final = Counter(
    "gateline_http_requests", "Requests by route and status.", ["method", "route", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "gateline_http_request_seconds",
    "Time from the head of a request to its answer.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CONNECTIONS_CUT: Final = Counter(
    "gateline_connections_cut",
    "Connections of clients that were ended: half a head (HALF_HEAD), an answer not taken (DEAF), no room (NO_ROOM), "
    "too much in line (LINE_FULL).",
    ["reason"],
)
SCANS: Final = Counter("gateline_scans", "Verdicts told to gates, replays included.", ["verdict"])
GATE_SOCKETS: Final = Gauge("gateline_gate_sockets", "Open sockets of gates.", multiprocess_mode="livesum")
SCAN_BATCH: Final = Histogram(
    "gateline_scan_batch", "Scans of one script call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
ORDERS: Final = Counter("gateline_orders", "Requests for an order by outcome.", ["outcome"])
LIMITED: Final = Counter(
    "gateline_limited",
    "What came too often (held), or was counted by this process alone since Redis was away (local).",
    ["limit", "outcome"],
)
SETTLEMENTS: Final = Counter(
    "gateline_settlements", "Payment news by gateway and outcome.", ["gateway", "outcome"]
)
PREPARATIONS: Final = Counter(
    "gateline_payment_preparations", "Payments prepared, by channel and outcome.", ["channel", "outcome"]
)
PREPARE_SECONDS: Final = Histogram(
    "gateline_payment_prepare_seconds",
    "Time to prepare a payment, calls to the gateway included.",
    ["channel"],
    buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CERTIFICATE_ENDS: Final = Gauge(
    "gateline_wechat_certificate_not_after_seconds",
    "Unix time at which a certificate ends.",
    ["certificate"],
    multiprocess_mode="mostrecent",
)
KEYS: Final = Gauge(
    "gateline_keys",
    "Processes that accept a key, and that issue or sign with it, by the key's id and fingerprint.",
    ["purpose", "key", "use"],
    multiprocess_mode="livesum",
)
KEY_RELOADS: Final = Counter(
    "gateline_key_reloads", "How often keys were read again by a process, by outcome.", ["outcome"]
)
WECHAT_CALLS: Final = Counter(
    "gateline_wechat_calls", "Calls sent to WeChat, repeated ones too, by outcome.", ["call", "outcome"]
)
TICKETS_ISSUED: Final = Counter("gateline_tickets_issued", "Tickets issued.")
FLUSHED: Final = Counter("gateline_flushed", "Stream entries written to Postgres.", ["stream"])
FLUSH_SECONDS: Final = Histogram(
    "gateline_flush_seconds",
    "Time of each stage of a flush: read, parse, write, commit, trim.",
    ["stream", "stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
DEAD_LETTERS: Final = Counter("gateline_dead_letters", "Stream entries that Postgres refused.", ["stream"])
ALERTS: Final = Counter("gateline_alerts", "What a person has to look at.", ["alert"])
STREAM_ENTRIES: Final = Gauge(
    "gateline_stream_entries", "Entries not yet trimmed.", ["stream"], multiprocess_mode="mostrecent"
)
FLUSH_LAG: Final = Gauge(
    "gateline_flush_lag_seconds", "Age of the oldest entry not yet flushed.", ["stream"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
OUTBOX_WAITING: Final = Gauge(
    "gateline_outbox_waiting", "Messages to Redis not yet applied.", multiprocess_mode="mostrecent"
)

_log: Final = structlog.get_logger("alert")
# Without the values of variables: a token, a password or a signed body is among them wherever a request fails.
_trace: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def _without_rows(stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what each exception says, the first line: in the others Postgres shows the row, a buyer's openid with it."""
    for stack in stacks:
        stack["exc_value"] = stack["exc_value"].partition("\n")[0]
        for each in stack["exceptions"]:
            _without_rows(each)
    return stacks


_traces: Final = structlog.processors.ExceptionRenderer(lambda fault: _without_rows(_trace(fault)))


def alert(name: str, **facts: Any) -> None:
    """Something that a person has to look at: an error in the log, and a count that a rule can watch."""
    ALERTS.labels(name).inc()
    _log.error("alert", alert=name, **facts)


def configure_logging(level: str) -> None:
    """JSON lines on standard error, from our loggers and from the libraries' (warnings and worse)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            _traces,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_tell_without_bytes)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder({"kind"}),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _traces,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _tell_without_bytes(record: logging.LogRecord) -> bool:
    """What cannot be read as HTTP is logged by aiohttp with its bytes, a token among them: its kind is enough.

    It is a warning, since any stranger can send it.
    """
    fault = record.exc_info[1] if record.exc_info else None
    if isinstance(fault, HttpProcessingError):
        record.msg, record.args, record.exc_info = "not_http", (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.__dict__["kind"] = type(fault).__name__
    return True


def forget_dead_processes(folder: Path) -> None:
    """Begin the metrics of `folder` at zero when no other process that counted in it is alive any more.

    Prometheus takes that as a counter reset. As long as one process lives, the counts of those that ended stay. This
    process has its own files there already: they were made when this module was imported.
    """
    others = {
        file: int(pid)
        for file in folder.glob("*.db")
        if (pid := file.stem.rpartition("_")[2]).isdigit() and int(pid) != os.getpid()
    }
    if not any(_alive(pid) for pid in others.values()):
        for file in others:
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def render_metrics(folder: Path | None) -> bytes:
    """The text that Prometheus scrapes: of all processes that share `folder`, or of this one alone."""
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
