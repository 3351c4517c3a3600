-- name: directory_version
-- The version that every change of the catalog or its people raises.
SELECT version FROM directory_version;

-- name: all_functions
-- Code and label of every function.
SELECT code, label FROM functions;

-- name: all_venues
-- Venues, each with the codes of the functions it serves.
SELECT venues.code, venues.name,
       coalesce(array_agg(served.function_code) FILTER (WHERE served.function_code IS NOT NULL), '{}') AS functions
FROM venues LEFT JOIN venue_functions AS served ON served.venue_code = venues.code
GROUP BY venues.code;

-- name: has_venue
-- $1 code.
SELECT EXISTS (SELECT FROM venues WHERE code = $1);

-- name: all_products
-- Products, each with its functions in the package's order.
SELECT products.*,
       (SELECT jsonb_agg(jsonb_build_object('code', part.function_code, 'label', functions.label,
                                            'quantity', part.quantity) ORDER BY part.position)
        FROM product_functions AS part JOIN functions ON functions.code = part.function_code
        WHERE part.product_id = products.id) AS functions
FROM products
ORDER BY products.id;

-- name: all_operators
-- Everyone who may log in, without the password hashes.
SELECT username, role, venue_code, enabled, generation FROM operators;

-- name: password_of
-- What a login is checked against.
SELECT password_hash, role, enabled, generation FROM operators WHERE username = $1;

-- name: lock_catalog
-- One change of the catalog at a time, until the end of its transaction.
SELECT pg_advisory_xact_lock(7301);

-- name: put_function
-- $1 code, $2 label.
INSERT INTO functions (code, label) VALUES ($1, $2)
ON CONFLICT (code) DO UPDATE SET label = excluded.label;

-- name: put_venue
-- $1 code, $2 name.
INSERT INTO venues (code, name) VALUES ($1, $2)
ON CONFLICT (code) DO UPDATE SET name = excluded.name;

-- name: drop_venue_functions
-- $1 venue: which functions it serves is written anew.
DELETE FROM venue_functions WHERE venue_code = $1;

-- name: put_venue_functions
-- $1 venue, $2 function codes.
INSERT INTO venue_functions (venue_code, function_code) SELECT $1, unnest($2::text[]);

-- name: put_product
-- $1 sku, $2 name, $3 price_fen, $4 status, $5 sale start, $6 sale end, $7 sellable, $8 valid from, $9 until, $10 days.
INSERT INTO products (sku, name, price_fen, status, sale_start_at, sale_end_at, sellable,
                      valid_from, valid_until, valid_days)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (sku) DO UPDATE SET
    name = excluded.name, price_fen = excluded.price_fen, status = excluded.status,
    sale_start_at = excluded.sale_start_at, sale_end_at = excluded.sale_end_at, sellable = excluded.sellable,
    valid_from = excluded.valid_from, valid_until = excluded.valid_until, valid_days = excluded.valid_days
RETURNING id;

-- name: drop_product_functions
-- $1 product: what is in the package is written anew (orders and tickets keep what was sold).
DELETE FROM product_functions WHERE product_id = $1;

-- name: put_product_functions
-- $1 product, $2 function codes in the package's order, $3 quantities.
INSERT INTO product_functions (product_id, position, function_code, quantity)
SELECT $1, row_number() OVER () - 1, part.code, part.quantity
FROM unnest($2::text[], $3::integer[]) AS part (code, quantity);

-- name: put_operator
-- $1 username, $2 role, $3 venue: password, generation and whether they are enabled stay as they are.
INSERT INTO operators (username, role, venue_code) VALUES ($1, $2, $3)
ON CONFLICT (username) DO UPDATE SET role = excluded.role, venue_code = excluded.venue_code;

-- name: add_operator
-- $1 username, $2 role, $3 venue, $4 password hash; nothing when the name is taken.
INSERT INTO operators (username, role, venue_code, password_hash) VALUES ($1, $2, $3, $4)
ON CONFLICT (username) DO NOTHING RETURNING username;

-- name: set_password
-- $1 username, $2 password hash: enables the operator, and ends all tokens issued before.
UPDATE operators SET password_hash = $2, enabled = true, generation = generation + 1
WHERE username = $1 RETURNING username;

-- name: disable_operator
-- $1 username: ends all tokens.
UPDATE operators SET enabled = false, generation = generation + 1 WHERE username = $1 RETURNING username;

-- name: stock_of_all
-- What each product holds and sold, according to the record.
SELECT product_id, sku, name, sellable, reserved, sold FROM stock ORDER BY product_id;

-- name: caps_of
-- $1 product ids.
SELECT id, sellable FROM products WHERE id = ANY ($1::integer[]);

-- name: stock_of
-- $1 product ids: what each holds and sold, according to the record.
SELECT product_id, sku, name, sellable, reserved, sold FROM stock WHERE product_id = ANY ($1::integer[]);

-- name: lock_publishing
-- $1 the publishers' lock: waits until none of them is at work; none begins until the transaction ends.
SELECT pg_advisory_xact_lock($1);
