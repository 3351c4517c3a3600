-- The tables of `bench.plain_postgres`: those of the product, in a schema of their own, so that the audit of the product
-- sees nothing of them. LIKE takes the constraints and the indexes along, among them the one by which a QR passes a
-- function once; not the foreign keys, which spares this way of doing it a look at each insert.

CREATE SCHEMA plain;
CREATE TABLE plain.tickets (LIKE public.tickets INCLUDING ALL);
CREATE TABLE plain.entitlements (LIKE public.entitlements INCLUDING ALL);
CREATE TABLE plain.redemption_events (LIKE public.redemption_events INCLUDING ALL);
CREATE SEQUENCE plain.event_ids;
INSERT INTO plain.tickets SELECT * FROM public.tickets;
INSERT INTO plain.entitlements SELECT * FROM public.entitlements;
ANALYZE plain.tickets, plain.entitlements;
