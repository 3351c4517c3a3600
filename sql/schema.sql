-- The whole schema of Gateline: the record of what was sold, issued and redeemed. The migrations add up to this file
-- (tested). Money is integer fen. Times are timestamptz, written in UTC. Who decides what: README, "Invariants".

-- ---------------------------------------------------------------------------------------------------------------
-- Catalog: small, changes rarely; every server keeps it in memory and follows `directory_version`.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE directory_version (
    one     boolean PRIMARY KEY DEFAULT true CONSTRAINT directory_version_single CHECK (one),
    version bigint NOT NULL
);
INSERT INTO directory_version (version) VALUES (1);

-- What an entitlement allows: a bus ride, a ferry crossing, a museum visit.
CREATE TABLE functions (
    code  text PRIMARY KEY,
    label text NOT NULL
);

CREATE TABLE venues (
    code text PRIMARY KEY,
    name text NOT NULL
);

-- Which functions are served at which venue.
CREATE TABLE venue_functions (
    venue_code    text NOT NULL REFERENCES venues (code) ON DELETE CASCADE,
    function_code text NOT NULL REFERENCES functions (code),
    PRIMARY KEY (venue_code, function_code)
);

CREATE TABLE products (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku           text NOT NULL UNIQUE,
    name          text NOT NULL,
    price_fen     integer NOT NULL CONSTRAINT products_price_not_negative CHECK (price_fen >= 0),
    -- ACTIVE <-> INACTIVE. Only ACTIVE products inside their sale window are sold. Products are never deleted.
    status        text NOT NULL CONSTRAINT products_status CHECK (status IN ('ACTIVE', 'INACTIVE')),
    sale_start_at timestamptz,
    sale_end_at   timestamptz,
    -- The cap: reserved + sold never pass it. Redis decides about holds; see commit and release in `outbox`.
    sellable      integer NOT NULL CONSTRAINT products_sellable_not_negative CHECK (sellable >= 0),
    -- Validity of its tickets: a fixed window, or so many days from issue, or for ever.
    valid_from    timestamptz,
    valid_until   timestamptz,
    valid_days    integer CONSTRAINT products_valid_days_positive CHECK (valid_days > 0),
    CONSTRAINT products_sale_window CHECK (sale_start_at < sale_end_at),
    CONSTRAINT products_valid_window CHECK (valid_from < valid_until)
);

CREATE TABLE product_functions (
    product_id    integer NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    position      integer NOT NULL,
    function_code text NOT NULL REFERENCES functions (code),
    quantity      integer NOT NULL CONSTRAINT product_functions_quantity_positive CHECK (quantity > 0),
    PRIMARY KEY (product_id, function_code)
);

CREATE TABLE operators (
    username      text PRIMARY KEY,
    -- gate: scans tickets. analyst: reads reports.
    role          text NOT NULL CONSTRAINT operators_role CHECK (role IN ('gate', 'analyst')),
    venue_code    text REFERENCES venues (code), -- where a scan of this operator happens when it names no venue
    password_hash text, -- Argon2id, PHC string; NULL: cannot log in yet
    enabled       boolean NOT NULL DEFAULT true,
    -- Part of every token; raised when the password changes or the operator is disabled, so that old tokens die.
    generation    integer NOT NULL DEFAULT 1
);

-- Any change of the above, by whatever hand, raises the version that the servers watch.
CREATE FUNCTION raise_directory_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE directory_version SET version = version + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER functions_changed AFTER INSERT OR UPDATE OR DELETE ON functions
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();
CREATE TRIGGER venues_changed AFTER INSERT OR UPDATE OR DELETE ON venues
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();
CREATE TRIGGER venue_functions_changed AFTER INSERT OR UPDATE OR DELETE ON venue_functions
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();
CREATE TRIGGER products_changed AFTER INSERT OR UPDATE OR DELETE ON products
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();
CREATE TRIGGER product_functions_changed AFTER INSERT OR UPDATE OR DELETE ON product_functions
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();
CREATE TRIGGER operators_changed AFTER INSERT OR UPDATE OR DELETE ON operators
    FOR EACH STATEMENT EXECUTE FUNCTION raise_directory_version();

-- Who changed what of the catalog, its people and the keys, and when: written in the transaction of the change. Rows are
-- only ever added.
CREATE TABLE audit_trail (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(), -- of the transaction: one catalog file, one moment
    actor         text NOT NULL, -- "alice@host" of a command, "gateline serve 4711@host" of a process
    database_role text NOT NULL DEFAULT session_user, -- as Postgres knows who wrote this
    -- CATALOG_ADDED, CATALOG_CHANGED  a catalog file; subject: "product DAY", "venue pier", "function bus"
    -- OPERATOR_ADDED, OPERATOR_CHANGED (role or venue), OPERATOR_DISABLED, PASSWORD_CHANGED  subject: the user name
    -- KEYS_CHANGED  a server accepts or uses other keys than the one before; subject: "keys"
    -- RESTORED      the record was read back from a backup; subject: the name of its file
    action        text NOT NULL CONSTRAINT audit_trail_action
                  CHECK (action IN ('CATALOG_ADDED', 'CATALOG_CHANGED', 'OPERATOR_ADDED', 'OPERATOR_CHANGED',
                                    'OPERATOR_DISABLED', 'PASSWORD_CHANGED', 'KEYS_CHANGED', 'RESTORED')),
    subject       text NOT NULL,
    -- {"price_fen": {"old": 12800, "new": 9900}}; never a secret: keys by their ids and fingerprints
    details       jsonb NOT NULL DEFAULT '{}'
);

-- ---------------------------------------------------------------------------------------------------------------
-- Orders and payments
-- ---------------------------------------------------------------------------------------------------------------

-- Written by the flusher from the orders stream; from then on only Postgres transactions change the status.
CREATE TABLE orders (
    id              text PRIMARY KEY, -- ULID, made by the server before the hold
    buyer_id        text NOT NULL,
    idempotency_key text NOT NULL,
    payload_hash    text NOT NULL,
    -- PENDING_PAYMENT -> PAID             by settlement only
    -- PENDING_PAYMENT -> CANCELLED        by the buyer
    -- PENDING_PAYMENT -> EXPIRED          by the expiry job, after expires_at
    -- CANCELLED, EXPIRED -> REFUND_REQUIRED  by settlement: the money came too late
    status          text NOT NULL DEFAULT 'PENDING_PAYMENT' CONSTRAINT orders_status
                    CHECK (status IN ('PENDING_PAYMENT', 'PAID', 'CANCELLED', 'EXPIRED', 'REFUND_REQUIRED')),
    total_fen       bigint NOT NULL CONSTRAINT orders_total_not_negative CHECK (total_fen >= 0),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    ended_at        timestamptz, -- when it left PENDING_PAYMENT
    asked_at        timestamptz, -- when the provider was last asked about it
    CONSTRAINT orders_idempotency UNIQUE (buyer_id, idempotency_key)
);
CREATE INDEX orders_by_buyer ON orders (buyer_id, id DESC);
CREATE INDEX orders_pending ON orders (expires_at) WHERE status = 'PENDING_PAYMENT';
CREATE INDEX orders_ended_unpaid ON orders (ended_at) WHERE status IN ('CANCELLED', 'EXPIRED');

CREATE TABLE order_lines (
    order_id       text NOT NULL REFERENCES orders (id),
    position       integer NOT NULL,
    product_id     integer NOT NULL REFERENCES products (id),
    qty            integer NOT NULL CONSTRAINT order_lines_qty_positive CHECK (qty > 0),
    unit_price_fen integer NOT NULL CONSTRAINT order_lines_price_not_negative CHECK (unit_price_fen >= 0),
    -- What was bought, as it stood in the catalog then: {name, functions: [{code, label, quantity}], validity}.
    terms          jsonb NOT NULL,
    PRIMARY KEY (order_id, position)
);
CREATE INDEX order_lines_by_product ON order_lines (product_id);

-- One row per successful transaction at a gateway, whatever became of it.
CREATE TABLE payments (
    gateway         text NOT NULL,
    gateway_txn_id  text NOT NULL,
    order_id        text NOT NULL REFERENCES orders (id),
    -- APPLIED: it paid the order. REFUND_REQUIRED: the order had ended, or was paid already.
    status          text NOT NULL CONSTRAINT payments_status CHECK (status IN ('APPLIED', 'REFUND_REQUIRED')),
    amount_fen      bigint NOT NULL,
    currency        text NOT NULL,
    paid_at         timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, gateway_txn_id)
);
-- An order is paid at most once, whatever a race or a fault does.
CREATE UNIQUE INDEX payments_applied_once ON payments (order_id) WHERE status = 'APPLIED';
CREATE INDEX payments_by_order ON payments (order_id);

-- Who a buyer is in each app of the merchant: an openid belongs to one appid.
CREATE TABLE wechat_identities (
    appid    text NOT NULL,
    openid   text NOT NULL,
    buyer_id text NOT NULL,
    unionid  text, -- the same for one person in all apps of the merchant, where WeChat tells it
    PRIMARY KEY (appid, openid),
    CONSTRAINT wechat_identities_one_per_app UNIQUE (buyer_id, appid)
);
CREATE INDEX wechat_identities_by_unionid ON wechat_identities (unionid) WHERE unionid IS NOT NULL;

-- What was asked of WeChat Pay: one row per number there. Written before each call and after it, so that a crash
-- between the two is resumed under the same number.
CREATE TABLE payment_attempts (
    out_trade_no      text PRIMARY KEY, -- the order's id, a dash, and five random characters
    order_id          text NOT NULL REFERENCES orders (id),
    channel           text NOT NULL CONSTRAINT payment_attempts_channel
                      CHECK (channel IN ('MINIPROGRAM_BRIDGE', 'WECHAT_JSAPI', 'WECHAT_NATIVE', 'WECHAT_H5')),
    appid             text NOT NULL,
    openid            text NOT NULL, -- empty where the channel needs none
    request           text NOT NULL, -- the JSON that is posted: the same bytes when it is posted again
    -- PREPARING -> OPEN          WeChat took it: the buyer can launch it
    -- PREPARING, OPEN -> CLOSING another channel was asked for, the order ended, or WeChat refused it
    -- CLOSING -> CLOSED          by WeChat's word: it cannot be paid any more
    -- CLOSED -> CLOSING          WeChat took it after all, by a call that was under way when it was closed
    -- any -> PAID                by settlement
    phase             text NOT NULL CONSTRAINT payment_attempts_phase
                      CHECK (phase IN ('PREPARING', 'OPEN', 'CLOSING', 'CLOSED', 'PAID')),
    launch            text, -- prepay_id, code_url or h5_url
    launch_expires_at timestamptz,
    created_at        timestamptz NOT NULL,
    asked_at          timestamptz, -- when its closing was last tried
    CONSTRAINT payment_attempts_open_can_be_launched
        CHECK (phase <> 'OPEN' OR (launch IS NOT NULL AND launch_expires_at IS NOT NULL))
);
-- A new number is taken only when the one before can no longer be paid.
CREATE UNIQUE INDEX payment_attempts_one_live ON payment_attempts (order_id)
    WHERE phase IN ('PREPARING', 'OPEN', 'CLOSING');
CREATE INDEX payment_attempts_by_order ON payment_attempts (order_id);
CREATE INDEX payment_attempts_closing ON payment_attempts (asked_at NULLS FIRST) WHERE phase = 'CLOSING';

-- ---------------------------------------------------------------------------------------------------------------
-- Tickets and redemptions
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE tickets (
    code         text PRIMARY KEY, -- 80 random bits, Crockford base32
    order_id     text NOT NULL REFERENCES orders (id),
    position     integer NOT NULL, -- of the order's line
    unit         integer NOT NULL, -- 1 .. qty of that line
    buyer_id     text NOT NULL,
    product_id   integer NOT NULL REFERENCES products (id),
    product_name text NOT NULL,
    -- ACTIVE -> REDEEMED  by the flusher, with the last use
    -- VOID: withdrawn. Gates and buyers know it; nothing sets it yet, since refunds are not sold here so far
    status       text NOT NULL DEFAULT 'ACTIVE' CONSTRAINT tickets_status
                 CHECK (status IN ('ACTIVE', 'REDEEMED', 'VOID')),
    valid_from   timestamptz,
    valid_until  timestamptz,
    issued_at    timestamptz NOT NULL,
    CONSTRAINT tickets_issued_once UNIQUE (order_id, position, unit)
);
CREATE INDEX tickets_by_buyer ON tickets (buyer_id, issued_at DESC, code);

CREATE TABLE entitlements (
    ticket_code    text NOT NULL REFERENCES tickets (code),
    position       integer NOT NULL, -- the package's order, shown so to people
    function_code  text NOT NULL,
    label          text NOT NULL,
    total_uses     integer NOT NULL CONSTRAINT entitlements_total_positive CHECK (total_uses > 0),
    remaining_uses integer NOT NULL,
    PRIMARY KEY (ticket_code, function_code),
    CONSTRAINT entitlements_remaining CHECK (remaining_uses BETWEEN 0 AND total_uses)
);

-- Every recorded verdict, exactly as the script decided it. Rows are only ever added.
CREATE TABLE redemption_events (
    event_id           text PRIMARY KEY, -- "<shard>-<stream id>"
    -- Of `tickets`: looked up once per flush; a foreign key would look it up, and lock it, for every row.
    ticket_code        text NOT NULL,
    function_code      text NOT NULL,
    result             text NOT NULL CONSTRAINT redemption_events_result CHECK (result IN ('success', 'reject')),
    reason             text CONSTRAINT redemption_events_reason CHECK ((reason IS NULL) = (result = 'success')),
    ticket_status      text NOT NULL, -- as the gate was told
    remaining          text NOT NULL, -- uses left after this decision: ",bus=2,ferry=0,"
    first_event        text NOT NULL, -- ALREADY_REDEEMED: event id, venue and terminal of the first; else empty
    jti                text NOT NULL, -- of the QR token
    scan_id            text NOT NULL, -- made by the gate
    operator           text NOT NULL,
    venue_code         text, -- the location
    terminal_device_id text,
    scanned_at         timestamptz NOT NULL, -- when the server got the scan; of an uploaded one, when its gate says
    decided_at         timestamptz NOT NULL, -- when the script decided it
    uploaded           boolean NOT NULL DEFAULT false -- its gate was offline, and told of the scan later
);
CREATE INDEX redemption_events_by_time ON redemption_events (decided_at, event_id);
-- One QR passes a function at most once (and: the events of one ticket, for loading it into Redis).
CREATE UNIQUE INDEX redemption_events_spent_once ON redemption_events (ticket_code, jti, function_code)
    WHERE result = 'success';

-- ---------------------------------------------------------------------------------------------------------------
-- The two one-way streets
-- ---------------------------------------------------------------------------------------------------------------

-- Redis -> Postgres: how far each stream is written, moved in the very transaction that writes the rows.
CREATE TABLE stream_cursors (
    stream     text PRIMARY KEY,
    last_id    text NOT NULL, -- "<ms>-<seq>"
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Entries that Postgres refused: never lost, never in the way.
CREATE TABLE dead_letters (
    stream     text NOT NULL,
    entry_id   text NOT NULL,
    reason     text NOT NULL,
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, entry_id)
);

-- Postgres -> Redis: written in the transaction that decides, applied in order, deleted when applied.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- commit:  the order is paid: its hold becomes sold units        subject: order id
    -- release: the order has ended: its units are free again         subject: order id
    -- ticket:  the ticket is issued: its gate hash is to be loaded   subject: ticket code
    -- cap:     a product is new or its cap changed                   subject: product id
    kind       text NOT NULL CONSTRAINT outbox_kind CHECK (kind IN ('commit', 'release', 'ticket', 'cap')),
    subject    text NOT NULL,
    -- commit and release: what the hold held, {"<product id>": qty}; else empty
    units      jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What each product holds and sold, according to the record.
CREATE VIEW stock AS
SELECT products.id AS product_id,
       products.sku,
       products.name,
       products.sellable,
       coalesce(sum(lines.qty) FILTER (WHERE orders.status = 'PENDING_PAYMENT'), 0)::integer AS reserved,
       coalesce(sum(lines.qty) FILTER (WHERE orders.status = 'PAID'), 0)::integer AS sold
FROM products
LEFT JOIN order_lines AS lines ON lines.product_id = products.id
LEFT JOIN orders ON orders.id = lines.order_id
GROUP BY products.id;
