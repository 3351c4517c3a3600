-- name: insert_tickets
-- Arrays: $1 code, $2 order, $3 position, $4 unit, $5 buyer, $6 product, $7 name, $8 valid from, $9 until, $10 issued;
-- and of their entitlements: $11 ticket, $12 position, $13 function, $14 label, $15 total uses.
WITH issued AS (
    INSERT INTO tickets (code, order_id, position, unit, buyer_id, product_id, product_name, valid_from, valid_until,
                         issued_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::integer[], $7::text[],
                         $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])
)
INSERT INTO entitlements (ticket_code, position, function_code, label, total_uses, remaining_uses)
SELECT code, position, function, label, total, total
FROM unnest($11::text[], $12::integer[], $13::text[], $14::text[], $15::integer[])
     AS part (code, position, function, label, total);

-- name: tickets_by_code
-- $1 codes.
SELECT * FROM tickets WHERE code = ANY ($1::text[]);

-- name: tickets_of_buyer
-- $1 buyer, $2 how many: newest first.
SELECT * FROM tickets WHERE buyer_id = $1 ORDER BY issued_at DESC, code LIMIT $2;

-- name: codes_after
-- For loading Redis: $1 last code seen, $2 how many.
SELECT code FROM tickets WHERE code > $1 ORDER BY code LIMIT $2;

-- name: count_tickets
-- How many there are.
SELECT count(*) FROM tickets;

-- name: entitlements_of
-- $1 ticket codes.
SELECT * FROM entitlements WHERE ticket_code = ANY ($1::text[]) ORDER BY ticket_code, position;
