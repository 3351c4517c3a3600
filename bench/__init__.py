"""The load harness: `scripts/bench`. It measures every lane of a real server against what bounds it, in one run."""
