-- load_stock: rehydration of stock from Postgres, the gate being closed and the orders stream drained.
--
-- KEYS: 1 stock
-- ARGV: 1 sellable, 2 reserved, 3 sold
-- RETURNS: DONE
-- CODES: DONE=1

local DONE = 1

redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'sellable', ARGV[1], 'reserved', ARGV[2], 'sold', ARGV[3])
return DONE
