-- name: lock_migrations
-- One migrator at a time, until the end of its transaction.
SELECT pg_advisory_xact_lock($1);

-- name: create_migrations_table
-- Where it is written which migrations were applied; not part of the schema itself.
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
-- What was applied, with the checksum of the file as it was then.
SELECT name, checksum FROM schema_migrations;

-- name: record_migration
-- $1 name, $2 checksum.
INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2);

-- name: has_migrations_table
-- Whether any migration was ever applied.
SELECT to_regclass('schema_migrations') IS NOT NULL;
