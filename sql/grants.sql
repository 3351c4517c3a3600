-- What the server's role may do: what its queries need, and nothing else. `gateline migrate` carries this out as the
-- owner, after the migrations, for each role of a server; its name stands as a variable of psql.
--
-- Verdicts, payments, what an order was made of, refused entries and the audit trail are only ever added: whoever holds
-- the server's password can neither change nor delete one, nor empty a table, nor touch the schema. Columns are named
-- where only some of a row may change: an order's status changes, its price does not. (Locking a row takes the right to
-- change one of its columns, which is so everywhere here.)

-- What an earlier version granted, and what a careless hand did.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM :"server_role";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM :"server_role";
REVOKE ALL ON SCHEMA public FROM :"server_role";
-- Databases that began before PostgreSQL 15 let everyone make tables.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO :"server_role";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"server_role";

-- Added, never changed
GRANT INSERT ON redemption_events, payments, order_lines, dead_letters TO :"server_role";
GRANT INSERT (actor, action, subject, details) ON audit_trail TO :"server_role"; -- not when, nor as which role

-- The catalog and its people. What a venue serves and what is in a package is written anew as a whole.
GRANT UPDATE (version) ON directory_version TO :"server_role"; -- by the triggers of the catalog
GRANT INSERT, UPDATE ON functions, venues, products, operators TO :"server_role";
GRANT INSERT, DELETE ON venue_functions, product_functions TO :"server_role";

-- Orders and payments
GRANT INSERT, UPDATE (status, ended_at, asked_at) ON orders TO :"server_role";
GRANT INSERT, UPDATE (unionid) ON wechat_identities TO :"server_role";
GRANT INSERT, UPDATE (phase, launch, launch_expires_at, asked_at) ON payment_attempts TO :"server_role";

-- Tickets
GRANT INSERT, UPDATE (status) ON tickets TO :"server_role";
GRANT INSERT, UPDATE (remaining_uses) ON entitlements TO :"server_role";

-- The two one-way streets
GRANT INSERT, UPDATE (last_id, updated_at) ON stream_cursors TO :"server_role";
GRANT INSERT, DELETE ON outbox TO :"server_role";
