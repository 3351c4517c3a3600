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

-- name: own_role
-- As whom this session works.
SELECT current_user::text;

-- name: quoted
-- $1 name of a role, as a statement has to spell it.
SELECT quote_ident($1);

-- name: server_roles
-- Roles that were given a server's rights before: they may add verdicts, and do not own the table.
SELECT DISTINCT grantee::regrole::text
FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS granted
WHERE pg_class.oid = 'redemption_events'::regclass AND granted.privilege_type = 'INSERT'
  AND granted.grantee NOT IN (0, relowner);

-- name: may_change_verdicts
-- Whether this session's role could change or delete verdicts, or become one that can.
SELECT has_any_column_privilege('redemption_events', 'UPDATE')
       OR has_table_privilege('redemption_events', 'DELETE, TRUNCATE')
       OR pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'redemption_events'::regclass), 'MEMBER');
