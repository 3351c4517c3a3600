-- name: try_lock
-- $1 number: alone, until the transaction ends.
SELECT pg_try_advisory_xact_lock($1);

-- name: try_lock_shared
-- $1 number: together with others who share it, until the transaction ends.
SELECT pg_try_advisory_xact_lock_shared($1);

-- name: lock_session
-- $1 number: waits for it; alone, until the session ends.
SELECT pg_advisory_lock($1);

-- name: still_here
-- Answered only by a session that lives, and so still has its locks.
SELECT 1;
