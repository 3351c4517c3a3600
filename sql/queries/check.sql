-- name: caught_up_mark
-- The newest message of the outbox; 0 when it is empty.
SELECT coalesce(max(id), 0) FROM outbox;

-- name: outbox_up_to
-- $1 message id: how many messages up to it still wait.
SELECT count(*) FROM outbox WHERE id <= $1;

-- name: orders_page
-- $1 last order seen, $2 how many: where the next page of orders ends, how many orders it has, how many are paid.
SELECT max(id) AS last, count(*) AS orders, count(*) FILTER (WHERE status = 'PAID') AS paid
FROM (SELECT id, status FROM orders WHERE id > $1 ORDER BY id LIMIT $2) AS page;

-- name: wrong_totals
-- Orders after $1 up to $2 whose total is not the sum of their lines.
SELECT orders.id, orders.total_fen, coalesce(sum(lines.qty::bigint * lines.unit_price_fen), 0)::bigint AS lines_fen
FROM orders LEFT JOIN order_lines AS lines ON lines.order_id = orders.id
WHERE orders.id > $1 AND orders.id <= $2
GROUP BY orders.id
HAVING orders.total_fen <> coalesce(sum(lines.qty::bigint * lines.unit_price_fen), 0);

-- name: wrong_issues
-- Orders after $1 up to $2 without exactly the tickets that are due: one per unit of a paid order's lines, else none.
WITH due AS (
    SELECT lines.order_id, lines.position, unit
    FROM orders JOIN order_lines AS lines ON lines.order_id = orders.id
    CROSS JOIN generate_series(1, lines.qty) AS unit
    WHERE orders.id > $1 AND orders.id <= $2 AND orders.status = 'PAID'
), issued AS (
    SELECT order_id, position, unit, count(*) AS tickets
    FROM tickets WHERE order_id > $1 AND order_id <= $2
    GROUP BY order_id, position, unit
), units AS (
    SELECT order_id, (due.order_id IS NOT NULL)::integer AS due, coalesce(issued.tickets, 0) AS tickets
    FROM due FULL JOIN issued USING (order_id, position, unit)
)
SELECT orders.id, orders.status, sum(units.due) AS due, sum(units.tickets) AS issued
FROM units JOIN orders ON orders.id = units.order_id
GROUP BY orders.id
HAVING bool_or(units.due <> units.tickets);

-- name: wrong_payments
-- Orders after $1 up to $2 whose payments do not carry their status: a paid one has exactly one that was applied, of
-- its total in CNY; any other has none; one to be refunded has one to refund.
SELECT orders.id, orders.status, orders.total_fen,
       count(*) FILTER (WHERE payments.status = 'APPLIED') AS applied,
       count(*) FILTER (WHERE payments.status = 'APPLIED' AND payments.amount_fen = orders.total_fen
                          AND payments.currency = 'CNY') AS exact,
       count(*) FILTER (WHERE payments.status = 'REFUND_REQUIRED') AS refunds
FROM orders LEFT JOIN payments ON payments.order_id = orders.id
WHERE orders.id > $1 AND orders.id <= $2
GROUP BY orders.id
HAVING CASE orders.status
           WHEN 'PAID' THEN count(*) FILTER (WHERE payments.status = 'APPLIED') <> 1
                OR count(*) FILTER (WHERE payments.status = 'APPLIED' AND payments.amount_fen = orders.total_fen
                                      AND payments.currency = 'CNY') <> 1
           WHEN 'REFUND_REQUIRED' THEN count(*) FILTER (WHERE payments.status = 'APPLIED') <> 0
                OR count(*) FILTER (WHERE payments.status = 'REFUND_REQUIRED') = 0
           ELSE count(*) FILTER (WHERE payments.status = 'APPLIED') <> 0
       END;

-- name: count_attempts
-- Payment attempts at WeChat of orders after $1 up to $2.
SELECT count(*) FROM payment_attempts WHERE order_id > $1 AND order_id <= $2;

-- name: wrong_attempts
-- Attempts of orders after $1 up to $2 that could be paid although the order waits for no payment, and paid ones whose
-- payment is not there.
SELECT attempts.out_trade_no, attempts.phase, orders.status
FROM payment_attempts AS attempts JOIN orders ON orders.id = attempts.order_id
WHERE orders.id > $1 AND orders.id <= $2
  AND (attempts.phase IN ('PREPARING', 'OPEN') AND orders.status <> 'PENDING_PAYMENT'
       OR attempts.phase = 'PAID' AND NOT EXISTS (SELECT 1 FROM payments WHERE payments.order_id = orders.id
                                                                          AND payments.gateway = 'wechat'));

-- name: tickets_page
-- $1 last ticket seen, $2 how many: where the next page of tickets ends, and how many tickets it has.
SELECT max(code) AS last, count(*) AS tickets
FROM (SELECT code FROM tickets WHERE code > $1 ORDER BY code LIMIT $2) AS page;

-- name: wrong_uses
-- (Ticket, function) of tickets after $1 up to $2: more successes than uses, or what remains is not the rest.
WITH spent AS (
    SELECT ticket_code, function_code, count(*) AS successes
    FROM redemption_events WHERE result = 'success' AND ticket_code > $1 AND ticket_code <= $2
    GROUP BY ticket_code, function_code
), granted AS (
    SELECT ticket_code, function_code, total_uses, remaining_uses
    FROM entitlements WHERE ticket_code > $1 AND ticket_code <= $2
)
SELECT ticket_code, function_code, coalesce(granted.total_uses, 0) AS total,
       coalesce(granted.remaining_uses, 0) AS remaining, coalesce(spent.successes, 0) AS successes
FROM granted FULL JOIN spent USING (ticket_code, function_code)
WHERE coalesce(spent.successes, 0) > coalesce(granted.total_uses, 0)
   OR coalesce(granted.remaining_uses, 0) <> coalesce(granted.total_uses, 0) - coalesce(spent.successes, 0);

-- name: count_entitlements
-- How many (ticket, function) the tickets after $1 up to $2 have.
SELECT count(*) FROM entitlements WHERE ticket_code > $1 AND ticket_code <= $2;

-- name: wrong_statuses
-- Tickets after $1 up to $2, not void, that are REDEEMED with uses left, or not REDEEMED without any.
SELECT tickets.code, tickets.status, sum(granted.remaining_uses) AS remaining
FROM tickets JOIN entitlements AS granted ON granted.ticket_code = tickets.code
WHERE tickets.code > $1 AND tickets.code <= $2 AND tickets.status <> 'VOID'
GROUP BY tickets.code
HAVING (tickets.status = 'REDEEMED') <> (sum(granted.remaining_uses) = 0);

-- name: not_as_sold
-- Tickets after $1 up to $2 that differ from what their order's line sold: buyer, product, functions and their uses.
SELECT tickets.code
FROM tickets
JOIN orders ON orders.id = tickets.order_id
LEFT JOIN order_lines AS lines ON lines.order_id = tickets.order_id AND lines.position = tickets.position
WHERE tickets.code > $1 AND tickets.code <= $2
  AND ((tickets.buyer_id, tickets.product_id) IS DISTINCT FROM (orders.buyer_id, lines.product_id)
       OR (SELECT jsonb_object_agg(granted.function_code, granted.total_uses)
           FROM entitlements AS granted WHERE granted.ticket_code = tickets.code)
          IS DISTINCT FROM
          (SELECT jsonb_object_agg(part ->> 'code', part -> 'quantity')
           FROM jsonb_array_elements(lines.terms -> 'functions') AS part));

-- name: qrs_spent_twice
-- QRs of tickets after $1 up to $2 that passed one function more than once.
SELECT ticket_code, jti, function_code, count(*) AS passed
FROM redemption_events
WHERE result = 'success' AND ticket_code > $1 AND ticket_code <= $2
GROUP BY ticket_code, jti, function_code
HAVING count(*) > 1;

-- name: count_successes
-- How many successes the tickets after $1 up to $2 have.
SELECT count(*) FROM redemption_events WHERE result = 'success' AND ticket_code > $1 AND ticket_code <= $2;

-- name: event_times
-- The first and the last verdict's time.
SELECT min(decided_at) AS first, max(decided_at) AS last FROM redemption_events;

-- name: scans_told_twice
-- Verdicts decided from $1 to before $2 that follow another verdict on the same ticket and scan_id by less than $3;
-- at most $4 of them are listed. `events`: how many verdicts were looked at; `repeats`: how many followed another.
WITH looked AS (
    SELECT ticket_code, scan_id, event_id, decided_at,
           lag(event_id) OVER same AS earlier_id, lag(decided_at) OVER same AS earlier_at
    FROM redemption_events
    WHERE decided_at >= $1::timestamptz - $3::interval AND decided_at < $2
    WINDOW same AS (PARTITION BY ticket_code, scan_id ORDER BY decided_at, event_id)
), repeated AS (
    SELECT * FROM looked WHERE decided_at >= $1 AND decided_at - earlier_at < $3
)
SELECT (SELECT count(*) FROM looked WHERE decided_at >= $1) AS events,
       (SELECT count(*) FROM repeated) AS repeats,
       ARRAY(SELECT ticket_code || ' scan ' || scan_id || ': ' || earlier_id || ' and ' || event_id
             FROM repeated ORDER BY decided_at LIMIT $4) AS examples;

-- name: events_of_no_ticket
-- Verdicts decided from $1 to before $2 on tickets that are not recorded: how many, and at most $3 of them.
WITH orphans AS (
    SELECT event_id, ticket_code FROM redemption_events
    WHERE decided_at >= $1 AND decided_at < $2
      AND NOT EXISTS (SELECT FROM tickets WHERE code = redemption_events.ticket_code)
)
SELECT (SELECT count(*) FROM orphans) AS events,
       ARRAY(SELECT event_id || ' on ticket ' || ticket_code FROM orphans LIMIT $3) AS examples;

-- name: scans_out_of_their_time
-- Verdicts decided from $1 to before $2: uploaded ones on scans of more than $3 before, and others on scans of more than
-- $4 before, or any on scans of more than $4 after: how many, and at most $5 of them.
WITH strange AS (
    SELECT event_id, uploaded, scanned_at FROM redemption_events
    WHERE decided_at >= $1 AND decided_at < $2
      AND NOT scanned_at BETWEEN decided_at - CASE WHEN uploaded THEN $3::interval ELSE $4::interval END
                             AND decided_at + $4::interval
)
SELECT (SELECT count(*) FROM strange) AS events,
       ARRAY(SELECT event_id || CASE WHEN uploaded THEN ', uploaded,' ELSE '' END || ' scanned at ' || scanned_at
             FROM strange LIMIT $5) AS examples;

-- name: money_columns
-- Every column that holds money, with its type.
SELECT table_name::text, column_name::text, data_type::text
FROM information_schema.columns
WHERE table_schema = current_schema() AND column_name LIKE '%\_fen'
ORDER BY table_name, column_name;

-- name: units_of_products
-- $1 product ids, or NULL for all: units ever ordered, reserved and sold according to the record, and those that Redis
-- is yet to be told of: to be committed and to be released (of any order, also one that the record refused).
WITH lines AS (
    SELECT product_id, sum(qty) AS ordered,
           coalesce(sum(qty) FILTER (WHERE orders.status = 'PENDING_PAYMENT'), 0) AS reserved,
           coalesce(sum(qty) FILTER (WHERE orders.status = 'PAID'), 0) AS sold
    FROM order_lines JOIN orders ON orders.id = order_lines.order_id
    WHERE $1::integer[] IS NULL OR product_id = ANY ($1)
    GROUP BY product_id
), waiting AS (
    SELECT unit.key::integer AS product_id,
           coalesce(sum(unit.value::integer) FILTER (WHERE kind = 'commit'), 0) AS committing,
           coalesce(sum(unit.value::integer) FILTER (WHERE kind = 'release'), 0) AS releasing
    FROM outbox CROSS JOIN jsonb_each_text(units) AS unit
    GROUP BY unit.key::integer
)
SELECT products.id, products.sellable,
       coalesce(ordered, 0)::bigint AS ordered, coalesce(reserved, 0)::bigint AS reserved,
       coalesce(sold, 0)::bigint AS sold, coalesce(committing, 0)::bigint AS committing,
       coalesce(releasing, 0)::bigint AS releasing,
       EXISTS (SELECT FROM outbox WHERE kind = 'cap' AND subject = products.id::text) AS capping
FROM products
LEFT JOIN lines ON lines.product_id = products.id
LEFT JOIN waiting ON waiting.product_id = products.id
WHERE $1 IS NULL OR products.id = ANY ($1)
ORDER BY products.id;

-- name: statuses_of_orders
-- $1 order ids: the status of those that are recorded.
SELECT id, status FROM orders WHERE id = ANY ($1::text[]);

-- name: pending_ids
-- $1 last order seen, $2 how many: orders that hold units.
SELECT id FROM orders WHERE status = 'PENDING_PAYMENT' AND id > $1 ORDER BY id LIMIT $2;

-- name: known_codes
-- $1 ticket codes: those that are recorded.
SELECT code FROM tickets WHERE code = ANY ($1::text[]);

-- name: told_about
-- $1 subjects: those of which the outbox has yet to tell Redis something.
SELECT DISTINCT subject FROM outbox WHERE subject = ANY ($1::text[]);

-- name: events_by_id
-- $1 event ids.
SELECT * FROM redemption_events WHERE event_id = ANY ($1::text[]);

-- name: refused_entries
-- $1 stream, $2 entry ids: those that were set aside, with the reason.
SELECT entry_id, reason FROM dead_letters WHERE stream = $1 AND entry_id = ANY ($2::text[]);

-- name: newest_dead_letters
-- $1 how many.
SELECT stream, entry_id, reason FROM dead_letters ORDER BY created_at DESC, entry_id DESC LIMIT $1;
