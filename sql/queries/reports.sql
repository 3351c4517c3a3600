-- name: redemptions_page
-- $1 from, $2 to, $3 function, $4 location, $5 operator, $6 terminal, $7 result, $8 reason (each may be NULL: any),
-- $9 and $10 last (time, id) seen or NULL, $11 how many. Newest first.
SELECT event.*, tickets.product_id, tickets.product_name
FROM redemption_events AS event JOIN tickets ON tickets.code = event.ticket_code
WHERE event.decided_at >= $1 AND event.decided_at < $2
  AND ($3::text IS NULL OR event.function_code = $3)
  AND ($4::text IS NULL OR event.venue_code = $4)
  AND ($5::text IS NULL OR event.operator = $5)
  AND ($6::text IS NULL OR event.terminal_device_id = $6)
  AND ($7::text IS NULL OR event.result = $7)
  AND ($8::text IS NULL OR event.reason = $8)
  AND ($9::timestamptz IS NULL OR (event.decided_at, event.event_id) < ($9, $10::text))
ORDER BY event.decided_at DESC, event.event_id DESC
LIMIT $11;

-- name: redemptions_summary
-- $1 from, $2 to, $3 how many rows: how many events by product, function, venue, hour, result and reason.
SELECT tickets.product_id, tickets.product_name, event.function_code, event.venue_code,
       date_trunc('hour', event.decided_at, 'UTC') AS hour, event.result, event.reason, count(*) AS events
FROM redemption_events AS event JOIN tickets ON tickets.code = event.ticket_code
WHERE event.decided_at >= $1 AND event.decided_at < $2
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 5, 1, 3, 4, 6, 7
LIMIT $3;

-- name: redemptions_figures
-- $1 to $8 as in redemptions_page, $9 unit ('minute', 'hour', 'day') and $10 the zone in which it begins, $11 beginning
-- of the last hour, $12 how many rows. One row for all of them, and one for each unit, function, venue, operator,
-- terminal and reason: `kind` says of what a row is. (grouping() has a bit for each column, 0 where it is grouped by.)
SELECT CASE grouping(began_at, function_code, venue_code, operator, terminal_device_id, reason)
         WHEN 31 THEN 'time' WHEN 47 THEN 'function' WHEN 55 THEN 'location' WHEN 59 THEN 'operator'
         WHEN 61 THEN 'terminal' WHEN 62 THEN 'reason' ELSE 'all'
       END AS kind,
       began_at, coalesce(function_code, venue_code, operator, terminal_device_id, reason) AS code,
       count(*) FILTER (WHERE result = 'success') AS success,
       count(*) FILTER (WHERE result = 'reject') AS reject,
       count(*) FILTER (WHERE result = 'success' AND decided_at >= $11) AS success_last_hour,
       count(*) FILTER (WHERE result = 'reject' AND decided_at >= $11) AS reject_last_hour
FROM (SELECT event.*, date_trunc($9::text, event.decided_at, $10::text) AS began_at
      FROM redemption_events AS event
      WHERE event.decided_at >= $1 AND event.decided_at < $2
        AND ($3::text IS NULL OR event.function_code = $3)
        AND ($4::text IS NULL OR event.venue_code = $4)
        AND ($5::text IS NULL OR event.operator = $5)
        AND ($6::text IS NULL OR event.terminal_device_id = $6)
        AND ($7::text IS NULL OR event.result = $7)
        AND ($8::text IS NULL OR event.reason = $8)) AS chosen
GROUP BY GROUPING SETS ((), (began_at), (function_code), (venue_code), (operator), (terminal_device_id), (reason))
HAVING grouping(reason) = 1 OR reason IS NOT NULL
ORDER BY kind, began_at, count(*) DESC, code
LIMIT $12;

-- name: zone_known
-- $1 name: fails with invalid_parameter_value where Postgres knows no such time zone.
SELECT now() AT TIME ZONE $1::text;
