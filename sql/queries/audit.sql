-- name: record
-- Arrays of one length: $2 actions, $3 subjects, $4 details; $1 who did all of it.
INSERT INTO audit_trail (actor, action, subject, details)
SELECT $1, entry.action, entry.subject, entry.details
FROM unnest($2::text[], $3::text[], $4::jsonb[]) AS entry (action, subject, details);

-- name: newest_of
-- $1 action, $2 subject: the details of the last entry.
SELECT details FROM audit_trail WHERE action = $1 AND subject = $2 ORDER BY id DESC LIMIT 1;

-- name: lock_trail
-- $1 the trail's lock: who compares with its last entry before writing another does so alone.
SELECT pg_advisory_xact_lock($1);

-- name: trail
-- $1 since when, or NULL, $2 how many: the newest, oldest first.
SELECT * FROM (SELECT * FROM audit_trail WHERE $1::timestamptz IS NULL OR at >= $1 ORDER BY id DESC LIMIT $2) AS newest
ORDER BY id;
