-- name: count_tables
-- How many tables there are: none in a database that was just made.
SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p');

-- name: count_others
-- How many other clients this database has now (Postgres' own workers have no user).
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL;

-- name: analyze
-- A database that was read back has no statistics, and would choose its ways blindly.
ANALYZE;

-- name: contents
-- How much the record holds, and the time of the last thing in it.
SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM tickets) AS tickets,
       (SELECT count(*) FROM redemption_events) AS redemptions,
       greatest((SELECT max(created_at) FROM orders), (SELECT max(issued_at) FROM tickets),
                (SELECT max(decided_at) FROM redemption_events)) AS ends_at;

-- name: known_events
-- $1 event ids: those that are recorded.
SELECT event_id FROM redemption_events WHERE event_id = ANY ($1::text[]);
