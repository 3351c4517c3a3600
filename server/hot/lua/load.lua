-- load: writes tickets from Postgres into Redis.
--
-- KEYS: 1 epoch, then per ticket: ticket
-- ARGV: 1 mode, 2 shards, then per ticket: field_count, then field_count fields and values in turn
-- RETURNS: how many tickets were written, or GATE_CLOSED when mode is "absent" and the shard is not loaded for so many shards
-- CODES: GATE_CLOSED=-1
--
-- mode "absent": an open gate learns of a ticket; one that is there is left alone, since Redis may be ahead of Postgres.
-- mode "replace": rehydration, the gate being closed and the stream drained: Postgres knows best.

local GATE_CLOSED = -1
local FIRST_TICKET_KEY, FIELDS_A_CALL = 2, 1000
local replace = ARGV[1] == 'replace'

local epoch = redis.call('GET', KEYS[1])
if not replace and not (epoch and string.match(epoch, '%d+$') == ARGV[2]) then return GATE_CLOSED end

local written, arg = 0, 3
for key = FIRST_TICKET_KEY, #KEYS do
    local count = tonumber(ARGV[arg])
    local first, last = arg + 1, arg + count
    arg = last + 1
    if replace then redis.call('DEL', KEYS[key]) end
    if replace or redis.call('EXISTS', KEYS[key]) == 0 then
        for from = first, last, FIELDS_A_CALL do
            redis.call('HSET', KEYS[key], unpack(ARGV, from, math.min(from + FIELDS_A_CALL - 1, last)))
        end
        written = written + 1
    end
end
return written
