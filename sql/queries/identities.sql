-- name: openid_of
-- $1 buyer, $2 appid.
SELECT openid FROM wechat_identities WHERE buyer_id = $1 AND appid = $2;

-- name: lock_person
-- $1 unionid: one login of a person at a time, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('wechat person ' || $1, 0));

-- name: buyer_of_identity
-- $1 appid, $2 openid, $3 unionid or null, $4 an id for a new buyer: whose identity it is. A person who is known by the
-- unionid in another app is the same buyer.
INSERT INTO wechat_identities (appid, openid, unionid, buyer_id)
VALUES ($1, $2, $3, coalesce(
    (SELECT known.buyer_id FROM wechat_identities AS known
     WHERE known.unionid = $3
       AND NOT EXISTS (SELECT 1 FROM wechat_identities AS here
                       WHERE here.buyer_id = known.buyer_id AND here.appid = $1)
     ORDER BY known.buyer_id LIMIT 1), $4))
ON CONFLICT (appid, openid) DO UPDATE SET unionid = coalesce(excluded.unionid, wechat_identities.unionid)
RETURNING buyer_id;
