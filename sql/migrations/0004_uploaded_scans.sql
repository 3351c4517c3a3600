-- Gates that were offline upload their scans later: `scanned_at` is then what the gate says, and this says so.
-- A default that does not change is kept beside the table: no row is written again.

ALTER TABLE redemption_events ADD COLUMN uploaded boolean NOT NULL DEFAULT false;
