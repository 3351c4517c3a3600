-- name: spend
-- Texts with tabs between: $1 tickets and $2 functions that were used, $3 how often each; $4 tickets of refusals. How
-- many of the entitlements and of the refused tickets are in the record, and on which tickets a function is used up.
WITH spent AS (
    UPDATE entitlements SET remaining_uses = remaining_uses - used.uses
    FROM unnest(string_to_array($1, E'\t'), string_to_array($2, E'\t'), string_to_array($3, E'\t')::integer[])
         AS used (ticket_code, function_code, uses)
    WHERE entitlements.ticket_code = used.ticket_code AND entitlements.function_code = used.function_code
    RETURNING entitlements.ticket_code, remaining_uses
)
SELECT (SELECT count(*) FROM spent) AS entitlements,
       (SELECT count(*) FROM tickets WHERE code = ANY (string_to_array($4, E'\t'))) AS tickets,
       ARRAY(SELECT DISTINCT ticket_code FROM spent WHERE remaining_uses = 0 ORDER BY ticket_code) AS used_up;

-- name: mark_redeemed
-- $1 ticket codes: those without any use left are REDEEMED.
UPDATE tickets SET status = 'REDEEMED'
WHERE code = ANY ($1::text[]) AND status = 'ACTIVE'
  AND NOT EXISTS (SELECT FROM entitlements WHERE ticket_code = code AND remaining_uses > 0);

-- name: try_lock_cursor
-- $1 stream: its cursor, locked until the end of the transaction; no row while another flusher has it.
SELECT last_id FROM stream_cursors WHERE stream = $1 FOR UPDATE SKIP LOCKED;

-- name: lock_cursor
-- $1 stream: its cursor, locked until the end of the transaction, as soon as nobody else has it.
SELECT last_id FROM stream_cursors WHERE stream = $1 FOR UPDATE;

-- name: cursors
-- How far each stream is written.
SELECT stream, last_id FROM stream_cursors;

-- name: create_cursors
-- $1 streams: each from its beginning, unless it is known.
INSERT INTO stream_cursors (stream, last_id) SELECT unnest($1::text[]), '0-0' ON CONFLICT (stream) DO NOTHING;

-- name: move_cursor
-- $1 stream, $2 last id written. The caller holds its lock.
UPDATE stream_cursors SET last_id = $2, updated_at = now() WHERE stream = $1;

-- name: insert_dead_letter
-- $1 stream, $2 entry id, $3 reason, $4 body.
INSERT INTO dead_letters (stream, entry_id, reason, body) VALUES ($1, $2, $3, $4);

-- name: count_dead_letters
-- Entries that Postgres refused.
SELECT count(*) FROM dead_letters;

-- name: spent_since
-- $1 ticket codes, $2 decided since: the QRs spent on these tickets, for their Redis hashes.
SELECT ticket_code, jti, function_code, event_id, scan_id, venue_code, terminal_device_id, remaining, decided_at
FROM redemption_events
WHERE ticket_code = ANY ($1::text[]) AND result = 'success' AND decided_at >= $2;

-- name: verdicts_since
-- For loading Redis: $1 decided since, $2 last (time, id) seen, $4 how many: what the gates were told.
SELECT * FROM redemption_events
WHERE decided_at >= $1 AND (decided_at, event_id) > ($2, $3) ORDER BY decided_at, event_id LIMIT $4;
