-- commit: turns an order's hold into sold units, once: only while the hold exists, so a repeat does nothing.
--
-- KEYS: 1 hold, then per line: stock
-- ARGV: per line: qty
-- RETURNS: DONE, or NO_HOLD when there is none (committed or released before, or Redis was loaded since)
-- CODES: DONE=1 NO_HOLD=0

local DONE, NO_HOLD = 1, 0
local FIRST_LINE_KEY = 2

if redis.call('DEL', KEYS[1]) == 0 then return NO_HOLD end
for key = FIRST_LINE_KEY, #KEYS do
    local qty = ARGV[key - FIRST_LINE_KEY + 1]
    redis.call('HINCRBY', KEYS[key], 'reserved', -qty)
    redis.call('HINCRBY', KEYS[key], 'sold', qty)
end
return DONE
