-- load: an open gate learns of tickets; one that is there is left alone, since Redis may be ahead of Postgres.
--
-- KEYS: 1 epoch, then per ticket: ticket
-- ARGV: 1 shards, then per ticket: field_count, then field_count fields and values in turn
-- RETURNS: how many tickets were written, or GATE_CLOSED when the shard is not loaded for so many shards
-- CODES: GATE_CLOSED=-1

local GATE_CLOSED = -1
local FIRST_TICKET_KEY, FIELDS_A_CALL = 2, 1000

local epoch = redis.call('GET', KEYS[1])
if not (epoch and string.match(epoch, '%d+$') == ARGV[1]) then return GATE_CLOSED end

-- Everything is looked at before the first write: what a failing script has written stays, and half a ticket is none.
local next_count = 2
for _ = FIRST_TICKET_KEY, #KEYS do
    local count = tonumber(ARGV[next_count])
    assert(count and count >= 2 and count % 2 == 0, 'load: fields and values come in pairs')
    next_count = next_count + 1 + count
end
assert(next_count == #ARGV + 1, 'load: as many arguments as the counts say')

local written, arg = 0, 2
for key = FIRST_TICKET_KEY, #KEYS do
    local count = tonumber(ARGV[arg])
    local first, last = arg + 1, arg + count
    arg = last + 1
    if redis.call('EXISTS', KEYS[key]) == 0 then
        for from = first, last, FIELDS_A_CALL do
            redis.call('HSET', KEYS[key], unpack(ARGV, from, math.min(from + FIELDS_A_CALL - 1, last)))
        end
        written = written + 1
    end
end
return written
