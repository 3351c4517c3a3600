-- hold: judges a batch of orders: each reserves all its lines or none and is recorded, all in this one step.
--
-- KEYS: 1 epoch, 2 orders, then per order: idempotency, hold, recent; then per product: stock
-- ARGV: 1 idempotency_s, 2 orders_max, 3 window_ms, then per order: order_id, payload_hash, deadline_ms, order, lines
-- RETURNS: per order {code, order id (HELD, REPLAYED) or the number of the refused line from 1, units free (SOLD_OUT)}
-- RETURNS: or {TOO_MANY, '', ms after which the buyer may order again}
-- CODES: HELD=0 REPLAYED=1 CONFLICT=2 INACTIVE=3 SOLD_OUT=4 TOO_MANY=5 CLOSED=-1 NOT_LOADED=-2
--
-- `lines`: per line "<number of its product among the stock keys> <qty> <on_sale>;".
-- The idempotency key is looked at before any rule of sale: a retry finds its order also when the sale is over.
-- Then its buyer's orders of the last `window_ms` are counted, unless `orders_max` is 0: `recent` has the times of
-- the latest `orders_max`, in unix ms, each with a blank behind it, the newest first. So a retry is neither refused nor
-- counted, and what is refused is not counted either.
-- on_sale is the caller's word (status and sale window live in its memory); whether units are free is decided here,
-- in the order of the batch: stock is read once and written once, before anything is recorded, so that a Redis which
-- stops halfway has reserved too much rather than sold too much.

local HELD, REPLAYED, CONFLICT, INACTIVE, SOLD_OUT, TOO_MANY, CLOSED, NOT_LOADED = 0, 1, 2, 3, 4, 5, -1, -2
local FIRST_ORDER_KEY, KEYS_PER_ORDER, FIRST_ORDER_ARG, ARGS_PER_ORDER = 3, 3, 4, 5
local call, max = redis.call, math.max
local format, gmatch, match, sub = string.format, string.gmatch, string.match, string.sub

-- A time to live. One that Redis refuses must not be met after units are reserved.
local function life(text)
    local number = tonumber(text)
    assert(number >= 1 and number < 1e12 and number % 1 == 0)
    return number
end

local idempotency_s, orders_max = life(ARGV[1]), tonumber(ARGV[2])
local window_ms = orders_max > 0 and life(ARGV[3]) or 0
local orders = (#ARGV - FIRST_ORDER_ARG + 1) / ARGS_PER_ORDER
local first_stock_key = FIRST_ORDER_KEY + orders * KEYS_PER_ORDER
local free, reserved = {}, {} -- by number of the product; what is not loaded has nothing free
local made_now = {} -- idempotency key -> what was made under it in this batch
local held = {} -- the orders to record: places of their keys and arguments
local recent = {} -- by buyer: times of their latest orders
local ordered = {} -- buyers who made some in this batch
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local CHARS_PER_TIME = 13 -- until the year 2286
local oldest_at = (orders_max - 1) * (CHARS_PER_TIME + 1) + 1

-- ms until the buyer may order again: until the last of their latest `orders_max` leaves the window.
local function wait_of(buyer)
    if not recent[buyer] then recent[buyer] = call('GET', buyer) or '' end
    local at = tonumber(sub(recent[buyer], oldest_at, oldest_at + CHARS_PER_TIME - 1))
    if not at or at > now_ms then return 0 end -- there are fewer, or a clock went back
    return max(0, at + window_ms - now_ms)
end

local function reserve(lines)
    local wanted, line = {}, 0 -- two lines of one product must fit together
    for product, qty, on_sale in gmatch(lines, '(%d+) (%d+) (%d);') do
        line = line + 1
        local left = free[product]
        if not left then return NOT_LOADED, tostring(line), 0 end
        if on_sale ~= '1' then return INACTIVE, tostring(line), 0 end
        wanted[product] = (wanted[product] or 0) + tonumber(qty)
        if wanted[product] > left then return SOLD_OUT, tostring(line), left end
    end
    for product, qty in pairs(wanted) do
        free[product] = free[product] - qty
        reserved[product] = (reserved[product] or 0) + qty
    end
    return HELD
end

local function judge(key, arg)
    local order_id, payload_hash = ARGV[arg], ARGV[arg + 1]
    local made = made_now[KEYS[key]] or call('GET', KEYS[key])
    if made then
        local made_id, made_hash = match(made, '^([^\t]*)\t(.*)$')
        return { made_hash == payload_hash and REPLAYED or CONFLICT, made_id, 0 }
    end
    local buyer = KEYS[key + 2]
    local wait = orders_max > 0 and wait_of(buyer) or 0
    if wait > 0 then return { TOO_MANY, '', wait } end
    local code, refused_line, left = reserve(ARGV[arg + 4])
    if code ~= HELD then return { code, refused_line, left } end
    if orders_max > 0 then
        recent[buyer] = format('%.0f ', now_ms) .. sub(recent[buyer], 1, oldest_at - 1)
        ordered[buyer] = true
    end
    made_now[KEYS[key]] = order_id .. '\t' .. payload_hash
    held[#held + 1] = { key, arg }
    return { HELD, order_id, 0 }
end

-- A shut epoch does not end with its number of shards.
local open = string.find(call('GET', KEYS[1]) or '', '%d$')
for key = first_stock_key, #KEYS do
    local stock = call('HMGET', KEYS[key], 'sellable', 'reserved', 'sold')
    free[tostring(key - first_stock_key)] = stock[1] and stock[1] - stock[2] - stock[3]
end
local answers = {}
for order = 0, orders - 1 do
    local key, arg = FIRST_ORDER_KEY + order * KEYS_PER_ORDER, FIRST_ORDER_ARG + order * ARGS_PER_ORDER
    answers[order + 1] = open and judge(key, arg) or { CLOSED, '', 0 }
end
for product, qty in pairs(reserved) do
    call('HINCRBY', KEYS[first_stock_key + product], 'reserved', qty)
end
for buyer in pairs(ordered) do
    call('SET', buyer, recent[buyer], 'PX', window_ms)
end
for _, order in ipairs(held) do
    local key, arg = order[1], order[2]
    call('HSET', KEYS[key + 1], 'deadline_ms', ARGV[arg + 2], 'order', ARGV[arg + 3])
    call('SET', KEYS[key], made_now[KEYS[key]], 'EX', idempotency_s)
    call('XADD', KEYS[2], '*', 'd', ARGV[arg + 3])
end
return answers
