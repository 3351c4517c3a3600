-- name: get_attempt
-- $1 number.
SELECT * FROM payment_attempts WHERE out_trade_no = $1;

-- name: live_attempt
-- $1 order: the number that can still be paid, or that may turn out to be.
SELECT * FROM payment_attempts WHERE order_id = $1 AND phase IN ('PREPARING', 'OPEN', 'CLOSING');

-- name: insert_attempt
-- $1 number, $2 order, $3 channel, $4 appid, $5 openid, $6 request, $7 when.
INSERT INTO payment_attempts (out_trade_no, order_id, channel, appid, openid, request, phase, created_at)
VALUES ($1, $2, $3, $4, $5, $6, 'PREPARING', $7) RETURNING *;

-- name: open_attempt
-- $1 number, $2 what launches it, $3 until when, unless it is being closed. The caller holds the order's lock.
UPDATE payment_attempts SET phase = 'OPEN', launch = $2, launch_expires_at = $3
WHERE out_trade_no = $1 AND phase IN ('PREPARING', 'OPEN') RETURNING out_trade_no;

-- name: begin_closing
-- $1 number, if it is live.
UPDATE payment_attempts SET phase = 'CLOSING'
WHERE out_trade_no = $1 AND phase IN ('PREPARING', 'OPEN', 'CLOSING') RETURNING *;

-- name: close_once_more
-- $1 number that was closed. The caller holds the order's lock, and there is no live one.
UPDATE payment_attempts SET phase = 'CLOSING' WHERE out_trade_no = $1 AND phase = 'CLOSED';

-- name: begin_closing_of_orders
-- $1 orders, that have ended.
UPDATE payment_attempts SET phase = 'CLOSING' WHERE order_id = ANY ($1::text[]) AND phase IN ('PREPARING', 'OPEN');

-- name: begin_closing_of_overdue
-- $1 now: of orders past their deadline that are not ended yet.
UPDATE payment_attempts SET phase = 'CLOSING'
WHERE phase IN ('PREPARING', 'OPEN')
  AND order_id IN (SELECT id FROM orders WHERE status = 'PENDING_PAYMENT' AND expires_at <= $1);

-- name: attempt_closed
-- $1 number.
UPDATE payment_attempts SET phase = 'CLOSED' WHERE out_trade_no = $1 AND phase <> 'PAID';

-- name: attempt_paid
-- $1 number.
UPDATE payment_attempts SET phase = 'PAID' WHERE out_trade_no = $1;

-- name: claim_closing
-- $1 not tried since, $2 how many: numbers to close, marked as tried now. After two days every hour only.
UPDATE payment_attempts SET asked_at = now()
WHERE out_trade_no IN (SELECT out_trade_no FROM payment_attempts
                       WHERE phase = 'CLOSING'
                         AND (asked_at IS NULL OR asked_at < $1
                              AND (created_at > now() - interval '2 days' OR asked_at < now() - interval '1 hour'))
                       ORDER BY asked_at NULLS FIRST LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING *;
