"""How long a phase may be: a QR code lives for a minute, and it is made before its phase begins."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Final

PHASE_S_MAX: Final = 10.0  # with the seconds that making its codes takes, and an open loop that falls behind


def phase_seconds(text: str) -> float:
    """An argument: seconds of one phase."""
    return _seconds(text, PHASE_S_MAX)


def day_seconds(text: str) -> float:
    """An argument: seconds of twelve phases, one after the other."""
    return _seconds(text, 12 * PHASE_S_MAX)


def _seconds(text: str, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= most:
        raise ArgumentTypeError(
            f"from more than 0 to {most:.0f} seconds: the codes that are shown live for a minute"
        )
    return seconds
