-- fill: a rehydration writes tickets over whatever Redis has, as long as no other one has begun.
--
-- KEYS: 1 loading, then per ticket: ticket
-- ARGV: 1 token, then per ticket: field_count, then field_count fields and values in turn
-- RETURNS: how many tickets were written, or OVERTAKEN when the slot is loaded by another, or open
-- CODES: OVERTAKEN=-1

local OVERTAKEN = -1
local FIRST_TICKET_KEY, FIELDS_A_CALL = 2, 1000

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return OVERTAKEN end

-- Everything is looked at before the first write: what a failing script has written stays, and half a ticket is none.
local next_count = 2
for _ = FIRST_TICKET_KEY, #KEYS do
    local count = tonumber(ARGV[next_count])
    assert(count and count >= 2 and count % 2 == 0, 'fill: fields and values come in pairs')
    next_count = next_count + 1 + count
end
assert(next_count == #ARGV + 1, 'fill: as many arguments as the counts say')

local arg = 2
for key = FIRST_TICKET_KEY, #KEYS do
    local first, last = arg + 1, arg + tonumber(ARGV[arg])
    arg = last + 1
    redis.call('DEL', KEYS[key])
    for from = first, last, FIELDS_A_CALL do
        redis.call('HSET', KEYS[key], unpack(ARGV, from, math.min(from + FIELDS_A_CALL - 1, last)))
    end
end
return #KEYS - FIRST_TICKET_KEY + 1
