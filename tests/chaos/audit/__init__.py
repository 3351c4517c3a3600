"""The auditor. It knows nothing of the server's code: it reads Postgres, Redis and what clients wrote down.

What it holds them against stands in the design and in README ("Invariants"). `books` reads, `scans`, `sales` and `gate`
are the rules, `auditor` puts them together; none of them imports anything of `server` (tested).
"""
