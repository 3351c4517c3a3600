-- hold: reserves all lines of an order or none, and records the order, in one step.
--
-- KEYS: 1 epoch, 2 idempotency, 3 hold, 4 orders, then per line: stock
-- ARGV: 1 order_id, 2 payload_hash, 3 idempotency_s, 4 deadline_ms, 5 order, then per line: qty, on_sale
-- RETURNS: {code, order id (HELD, REPLAYED) or the number of the refused line from 1, units available (SOLD_OUT)}
-- CODES: HELD=0 REPLAYED=1 CONFLICT=2 INACTIVE=3 SOLD_OUT=4 CLOSED=-1 NOT_LOADED=-2
--
-- The idempotency key is looked at before any rule of sale: a retry finds its order also when the sale is over.
-- on_sale is the caller's word (status and sale window live in its memory); whether units are free is decided here.

local HELD, REPLAYED, CONFLICT, INACTIVE, SOLD_OUT, CLOSED, NOT_LOADED = 0, 1, 2, 3, 4, -1, -2
local FIRST_LINE_KEY, FIRST_LINE_ARG, ARGS_PER_LINE = 5, 6, 2
local order_id, payload_hash = ARGV[1], ARGV[2]

-- A shut epoch does not end with its number of shards.
if not string.find(redis.call('GET', KEYS[1]) or '', '%d$') then return { CLOSED, '', 0 } end

local made = redis.call('GET', KEYS[2])
if made then
    local made_id, made_hash = string.match(made, '^([^\t]*)\t(.*)$')
    if made_hash == payload_hash then return { REPLAYED, made_id, 0 } end
    return { CONFLICT, made_id, 0 }
end

local lines = #KEYS - FIRST_LINE_KEY + 1
local wanted = {} -- by key: two lines of one product must fit together
for line = 1, lines do
    local arg = FIRST_LINE_ARG + (line - 1) * ARGS_PER_LINE
    local key = KEYS[FIRST_LINE_KEY + line - 1]
    local stock = redis.call('HMGET', key, 'sellable', 'reserved', 'sold')
    if not stock[1] then return { NOT_LOADED, tostring(line), 0 } end
    if ARGV[arg + 1] ~= '1' then return { INACTIVE, tostring(line), 0 } end
    local free = stock[1] - stock[2] - stock[3]
    wanted[key] = (wanted[key] or 0) + tonumber(ARGV[arg])
    if wanted[key] > free then return { SOLD_OUT, tostring(line), free } end
end

for line = 1, lines do
    local arg = FIRST_LINE_ARG + (line - 1) * ARGS_PER_LINE
    redis.call('HINCRBY', KEYS[FIRST_LINE_KEY + line - 1], 'reserved', ARGV[arg])
end
redis.call('HSET', KEYS[3], 'deadline_ms', ARGV[4], 'order', ARGV[5])
redis.call('SET', KEYS[2], order_id .. '\t' .. payload_hash, 'EX', ARGV[3])
redis.call('XADD', KEYS[4], '*', 'd', ARGV[5])
return { HELD, order_id, 0 }
