-- name: known_payment
-- $1 gateway, $2 transaction.
SELECT order_id, status FROM payments WHERE gateway = $1 AND gateway_txn_id = $2;

-- name: insert_payment
-- $1 gateway, $2 transaction, $3 order, $4 status, $5 amount, $6 currency, $7 paid at. No row: another told it first.
INSERT INTO payments (gateway, gateway_txn_id, order_id, status, amount_fen, currency, paid_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (gateway, gateway_txn_id) DO NOTHING RETURNING order_id;

-- name: insert_free_payments
-- $1 gateway, $2 orders that cost nothing, $3 currency.
INSERT INTO payments (gateway, gateway_txn_id, order_id, status, amount_fen, currency, paid_at)
SELECT $1, id, id, 'APPLIED', total_fen, $3, created_at FROM orders WHERE id = ANY ($2::text[]);
