"""What drawing a QR token costs, against segno's own ways: `python -m bench.qr_drawing`.

Each statement is timed in turn, fifteen rounds, and its best time is shown beside its ratio to `draw_svg`: the ratios
are of one run, since machines drift.
"""

from __future__ import annotations

import sys
import timeit

SETUP = """
import segno
from server.domain.qr_image import draw_png, draw_svg
token = "A2" * 43 + "A"
chosen = dict(error="m", boost_error=False, micro=False)
fixed = dict(chosen, version=4, mask=0)
"""
STATEMENTS = (
    "draw_svg(token)",
    "draw_png(token)",
    "segno.make(token, **fixed)",
    "segno.make(token, **fixed).svg_data_uri(border=4)",
    "segno.make(token, **fixed).png_data_uri(border=4, scale=8)",
    "segno.make(token, **chosen)",
    "segno.make(token, **chosen).svg_data_uri(border=4)",
)
ROUNDS = 15


def main() -> None:
    """Print one line per statement: microseconds, ratio, statement."""
    timers = {statement: timeit.Timer(statement, SETUP) for statement in STATEMENTS}
    best = dict.fromkeys(STATEMENTS, float("inf"))
    for _ in range(ROUNDS):
        for statement, timer in timers.items():
            repeats = 100 if statement.startswith("draw") else 8
            best[statement] = min(best[statement], timer.timeit(repeats) / repeats)
    for statement, seconds in best.items():
        sys.stdout.write(f"{seconds * 1e6:9.1f} us {seconds / best[STATEMENTS[0]]:7.1f}  {statement}\n")


if __name__ == "__main__":
    main()
