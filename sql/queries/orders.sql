-- name: insert_orders
-- Arrays: $1 id, $2 buyer, $3 idempotency key, $4 payload hash, $5 total, $6 created, $7 expires.
INSERT INTO orders (id, buyer_id, idempotency_key, payload_hash, total_fen, created_at, expires_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
                     $7::timestamptz[]);

-- name: insert_order_lines
-- Arrays: $1 order, $2 position, $3 product, $4 qty, $5 unit price, $6 terms.
INSERT INTO order_lines (order_id, position, product_id, qty, unit_price_fen, terms)
SELECT * FROM unnest($1::text[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::jsonb[]);

-- name: get_order
-- $1 order.
SELECT * FROM orders WHERE id = $1;

-- name: lock_order
-- $1 order, locked until the end of the transaction: one settlement, cancel or expiry at a time.
SELECT * FROM orders WHERE id = $1 FOR UPDATE;

-- name: lines_of_orders
-- $1 orders.
SELECT * FROM order_lines WHERE order_id = ANY ($1::text[]) ORDER BY order_id, position;

-- name: orders_of_buyer
-- $1 buyer, $2 newest id to leave out (or 'Z' for the first page), $3 how many.
SELECT * FROM orders WHERE buyer_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: end_orders
-- $1 orders, $2 status, $3 when. The caller holds their locks and knows the transition to be legal. What can still be
-- paid of them at WeChat is to be closed.
WITH closing AS (
    UPDATE payment_attempts SET phase = 'CLOSING'
    WHERE order_id = ANY ($1::text[]) AND phase IN ('PREPARING', 'OPEN')
)
UPDATE orders SET status = $2, ended_at = $3 WHERE id = ANY ($1::text[]);

-- name: lock_expired_orders
-- $1 now, $2 how many, $3 not waited for any more: past their deadline and unpaid; what another transaction holds is left
-- to it. One that may have been paid at WeChat in its last moments waits until its number there is closed.
SELECT id FROM orders
WHERE status = 'PENDING_PAYMENT' AND expires_at <= $1
  AND (expires_at <= $3 OR NOT EXISTS (SELECT 1 FROM payment_attempts AS attempts
                                       WHERE attempts.order_id = orders.id
                                         AND attempts.phase IN ('PREPARING', 'OPEN', 'CLOSING')))
ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: expire_orders
-- $1 orders, $2 when.
UPDATE orders SET status = 'EXPIRED', ended_at = $2 WHERE id = ANY ($1::text[]);

-- name: claim_unpaid_orders
-- $1 created or ended before, $2 not asked since, $3 how many: orders to ask the provider about, marked as asked now.
-- Those that ended unpaid too, once after their end and then every hour for a day: a buyer may have paid in the last
-- minute, and the news of it may have been lost.
UPDATE orders SET asked_at = now()
WHERE id IN (SELECT id FROM orders
             WHERE total_fen > 0
               AND (status = 'PENDING_PAYMENT' AND created_at < $1 AND (asked_at IS NULL OR asked_at < $2)
                    OR status IN ('CANCELLED', 'EXPIRED')
                       AND ended_at BETWEEN now() - interval '1 day' AND $1
                       AND (asked_at IS NULL OR asked_at < ended_at OR asked_at < now() - interval '1 hour'))
             ORDER BY asked_at NULLS FIRST, id LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING id;

-- name: order_of_key
-- $1 buyer, $2 idempotency key: the order that stands under it, and what was asked for then.
SELECT id, payload_hash FROM orders WHERE buyer_id = $1 AND idempotency_key = $2;

-- name: pending_orders
-- Open holds, for loading Redis: $1 last id seen, $2 how many.
SELECT * FROM orders WHERE status = 'PENDING_PAYMENT' AND id > $1 ORDER BY id LIMIT $2;

-- name: recent_idempotency_keys
-- For loading Redis: $1 created since, $2 last id seen, $3 how many.
SELECT id, buyer_id, idempotency_key, payload_hash, created_at FROM orders
WHERE created_at >= $1 AND id > $2 ORDER BY id LIMIT $3;
