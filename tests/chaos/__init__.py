"""Chaos: real processes under a seeded load, killed, stopped and cut off, and an audit of what clients were told.

Reading order: `storm` says what goes wrong and when, `installation` what it goes wrong for, `client` and its kinds
(`buyers`, `gateway`, `gates`) who is told what, `diary` what they write down, `audit` (which imports nothing of the
server) what must be true of it. `run` puts a storm together, `faults` goes through single faults.
"""
