-- Who changed the catalog, its people and the keys, and when.

CREATE TABLE audit_trail (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    actor         text NOT NULL,
    database_role text NOT NULL DEFAULT session_user,
    action        text NOT NULL CONSTRAINT audit_trail_action
                  CHECK (action IN ('CATALOG_ADDED', 'CATALOG_CHANGED', 'OPERATOR_ADDED', 'OPERATOR_CHANGED',
                                    'OPERATOR_DISABLED', 'PASSWORD_CHANGED', 'KEYS_CHANGED', 'RESTORED')),
    subject       text NOT NULL,
    details       jsonb NOT NULL DEFAULT '{}'
);
