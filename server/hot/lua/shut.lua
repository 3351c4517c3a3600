-- shut: shuts a gate that was loaded for another Redis process, since this one may have less than that one told.
--
-- KEYS: 1 epoch
-- ARGV: 1 run_id
-- RETURNS: SHUT, or LEFT when the gate is absent or shut already, or was loaded for this very process
-- CODES: SHUT=1 LEFT=0

local SHUT, LEFT = 1, 0

local epoch = redis.call('GET', KEYS[1])
-- A shut epoch does not end with its number of shards.
if not epoch or not string.find(epoch, '%d$') or string.match(epoch, '^%S+') == ARGV[1] then return LEFT end
redis.call('SET', KEYS[1], epoch .. ' shut')
return SHUT
