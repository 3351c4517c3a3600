-- One scan at the plain Postgres gate, decided and recorded in one statement; one row if it passes, none if not.
-- $1 ticket, $2 function, $3 jti, $4 scan_id, $5 operator, $6 venue, $7 terminal, $8 scanned at.
WITH taken AS (
    UPDATE plain.entitlements AS granted SET remaining_uses = granted.remaining_uses - 1
    FROM plain.tickets AS ticket
    WHERE granted.ticket_code = $1 AND granted.function_code = $2 AND granted.remaining_uses > 0
      AND ticket.code = $1 AND ticket.status IN ('ACTIVE', 'REDEEMED')
      AND (ticket.valid_from IS NULL OR ticket.valid_from <= $8)
      AND (ticket.valid_until IS NULL OR ticket.valid_until > $8)
    RETURNING granted.remaining_uses
), uses AS (
    SELECT granted.position, granted.function_code, granted.label, granted.total_uses,
           CASE WHEN granted.function_code = $2 THEN taken.remaining_uses ELSE granted.remaining_uses END AS remaining
    FROM plain.entitlements AS granted, taken WHERE granted.ticket_code = $1
), written AS (
    INSERT INTO plain.redemption_events (event_id, ticket_code, function_code, result, ticket_status, remaining,
                                         first_event, jti, scan_id, operator, venue_code, terminal_device_id,
                                         scanned_at, decided_at)
    SELECT '00-' || to_char(nextval('plain.event_ids'), 'FM0000000000000') || '-0', $1, $2, 'success',
           CASE WHEN bool_or(remaining > 0) THEN 'ACTIVE' ELSE 'REDEEMED' END,
           ',' || string_agg(function_code || '=' || remaining, ',' ORDER BY position) || ',', '',
           $3, $4, $5, $6, $7, $8, now()
    FROM uses HAVING count(*) > 0
    RETURNING event_id, ticket_status, decided_at
)
SELECT written.event_id, written.ticket_status, written.decided_at,
       (SELECT array_agg((function_code, label, total_uses, remaining) ORDER BY position) FROM uses) AS uses
FROM written;
