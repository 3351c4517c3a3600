-- name: redemptions_page
-- $1 from, $2 to, $3 function, $4 location, $5 operator, $6 result (each may be NULL: any), $7 and $8 last (time, id)
-- seen or NULL, $9 how many. Newest first.
SELECT event.*, tickets.product_id, tickets.product_name
FROM redemption_events AS event JOIN tickets ON tickets.code = event.ticket_code
WHERE event.decided_at >= $1 AND event.decided_at < $2
  AND ($3::text IS NULL OR event.function_code = $3)
  AND ($4::text IS NULL OR event.venue_code = $4)
  AND ($5::text IS NULL OR event.operator = $5)
  AND ($6::text IS NULL OR event.result = $6)
  AND ($7::timestamptz IS NULL OR (event.decided_at, event.event_id) < ($7, $8::text))
ORDER BY event.decided_at DESC, event.event_id DESC
LIMIT $9;

-- name: redemptions_summary
-- $1 from, $2 to, $3 how many rows: how many events by product, function, venue, hour, result and reason.
SELECT tickets.product_id, tickets.product_name, event.function_code, event.venue_code,
       date_trunc('hour', event.decided_at, 'UTC') AS hour, event.result, event.reason, count(*) AS events
FROM redemption_events AS event JOIN tickets ON tickets.code = event.ticket_code
WHERE event.decided_at >= $1 AND event.decided_at < $2
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 5, 1, 3, 4, 6, 7
LIMIT $3;
