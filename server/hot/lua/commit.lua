-- commit: turns an order's hold into sold units, once: only while the hold exists, so a repeat does nothing.
--
-- KEYS: 1 hold, then per line: stock
-- ARGV: per line: qty
-- RETURNS: DONE, or NO_HOLD when there is none (committed or released before, or Redis was loaded since)
-- CODES: DONE=1 NO_HOLD=0

local DONE, NO_HOLD = 1, 0
local FIRST_LINE_KEY = 2

local function whole(number) return number and number % 1 == 0 end

-- First, since the lines of an order that was never held may be anything, and their message must not come again for ever.
if redis.call('EXISTS', KEYS[1]) == 0 then return NO_HOLD end

-- Everything is looked at before the first write: what a failing script has written stays.
local units = {}
for key = FIRST_LINE_KEY, #KEYS do
    units[key] = tonumber(ARGV[key - FIRST_LINE_KEY + 1])
    assert(whole(units[key]) and units[key] >= 1 and units[key] < 1e9, 'commit: a line has some units')
    local taken = redis.call('HMGET', KEYS[key], 'reserved', 'sold')
    assert(whole(tonumber(taken[1] or 0)) and whole(tonumber(taken[2] or 0)), 'commit: stock is no number')
end

redis.call('DEL', KEYS[1])
for key = FIRST_LINE_KEY, #KEYS do
    redis.call('HINCRBY', KEYS[key], 'reserved', -units[key])
    redis.call('HINCRBY', KEYS[key], 'sold', units[key])
end
return DONE
