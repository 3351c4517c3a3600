-- cap: sets how many units of a product may be sold, never below what is reserved and sold already.
--
-- KEYS: 1 epoch, 2 stock
-- ARGV: 1 sellable
-- RETURNS: {code, reserved + sold}
-- CODES: CAPPED=0 BELOW_TAKEN=1 CLOSED=-1

local CAPPED, BELOW_TAKEN, CLOSED = 0, 1, -1

-- A shut epoch does not end with its number of shards.
if not string.find(redis.call('GET', KEYS[1]) or '', '%d$') then return { CLOSED, 0 } end
assert(string.find(ARGV[1], '^%d+$'), 'cap: sellable is a whole number')
local stock = redis.call('HMGET', KEYS[2], 'reserved', 'sold')
local taken = (stock[1] or 0) + (stock[2] or 0)
if tonumber(ARGV[1]) < taken then return { BELOW_TAKEN, taken } end
redis.call('HSET', KEYS[2], 'sellable', ARGV[1])
if not stock[1] then redis.call('HSET', KEYS[2], 'reserved', 0, 'sold', 0) end
return { CAPPED, taken }
