-- name: send
-- Arrays: $1 kind, $2 subject, $3 units.
INSERT INTO outbox (kind, subject, units) SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[]);

-- name: oldest
-- $1 how many, in the order in which they were written.
SELECT id, kind, subject, units, created_at FROM outbox ORDER BY id LIMIT $1;

-- name: delete_applied
-- $1 ids.
DELETE FROM outbox WHERE id = ANY ($1::bigint[]);

-- name: backlog
-- How many are waiting, and for how many seconds the oldest.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_s FROM outbox;
