-- WeChat Pay: who is who in which app, and what was asked of WeChat for an order.

CREATE TABLE wechat_identities (
    appid    text NOT NULL,
    openid   text NOT NULL,
    buyer_id text NOT NULL,
    unionid  text,
    PRIMARY KEY (appid, openid),
    CONSTRAINT wechat_identities_one_per_app UNIQUE (buyer_id, appid)
);
CREATE INDEX wechat_identities_by_unionid ON wechat_identities (unionid) WHERE unionid IS NOT NULL;

CREATE TABLE payment_attempts (
    out_trade_no      text PRIMARY KEY,
    order_id          text NOT NULL REFERENCES orders (id),
    channel           text NOT NULL CONSTRAINT payment_attempts_channel
                      CHECK (channel IN ('MINIPROGRAM_BRIDGE', 'WECHAT_JSAPI', 'WECHAT_NATIVE', 'WECHAT_H5')),
    appid             text NOT NULL,
    openid            text NOT NULL,
    request           text NOT NULL,
    phase             text NOT NULL CONSTRAINT payment_attempts_phase
                      CHECK (phase IN ('PREPARING', 'OPEN', 'CLOSING', 'CLOSED', 'PAID')),
    launch            text,
    launch_expires_at timestamptz,
    created_at        timestamptz NOT NULL,
    asked_at          timestamptz,
    CONSTRAINT payment_attempts_open_can_be_launched
        CHECK (phase <> 'OPEN' OR (launch IS NOT NULL AND launch_expires_at IS NOT NULL))
);
CREATE UNIQUE INDEX payment_attempts_one_live ON payment_attempts (order_id)
    WHERE phase IN ('PREPARING', 'OPEN', 'CLOSING');
CREATE INDEX payment_attempts_by_order ON payment_attempts (order_id);
CREATE INDEX payment_attempts_closing ON payment_attempts (asked_at NULLS FIRST) WHERE phase = 'CLOSING';
