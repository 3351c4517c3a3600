"""`gateline`, with less patience than in production: `python -m tests.payment.impatient WORDS`.

What takes minutes is done within seconds, by the same code: the limits are changed before anything else is imported.
"""

from __future__ import annotations

import sys

from server import limits

limits.RECONCILE_AFTER_S = 2
limits.RECONCILE_POLL_S = 0.5
limits.CLOSE_RETRY_S = 1
limits.GATEWAY_CALL_S_MAX = 1.5  # of a call that hangs: one in thirty does
limits.FLUSH_WAIT_S = 0.03
# A machine that stands still for some seconds is no part of the market.
limits.REDIS_CALL_S_MAX = limits.QUEUED_S_MAX = 15.0
limits.POSTGRES_CALL_S_MAX = limits.POSTGRES_USE_S_MAX = limits.POSTGRES_ACQUIRE_S_MAX = 15.0

if __name__ == "__main__":
    from server.cli import main

    sys.exit(main())
