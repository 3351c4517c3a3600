-- limit: may something happen now? It is counted in all its buckets, or, when one of them holds it back, in none.
--
-- KEYS: per bucket: bucket
-- ARGV: 1 act, then per bucket: free, forget_ms, pause_ms, pause_ms_max, turns
-- RETURNS: ms to wait; 0: it may happen
-- CODES: GIVE_BACK=-1
--
-- A bucket's hash: n attempts that were not forgotten at t (unix ms). One is forgotten every `forget_ms`. Once there are
-- `free` of them, each is followed by a pause of `pause_ms`, doubled with every one more, never above `pause_ms_max`.
-- `turns` 1: a bucket that strangers share (one account, tried from many addresses). Whoever it alone holds back is told
-- a whole pause, and is let past it once when that is over (field d of their own, the first bucket): others who ask all
-- the time cannot keep them out, and gain one attempt per pause and address.
-- `act` GIVE_BACK: what was counted went well, or was not decided, and is taken from each bucket.

local GIVE_BACK = -1
local FIRST_BUCKET_KEY, FIRST_BUCKET_ARG, ARGS_PER_BUCKET = 1, 2, 5
local call, ceil, floor, max, min = redis.call, math.ceil, math.floor, math.max, math.min

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

-- attempts not yet forgotten, the pause behind the latest, and how much of it is left
local function look(key, arg)
    local free, forget_ms = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
    local was = call('HMGET', KEYS[key], 'n', 't')
    if not was[1] then return 0, 0, 0 end
    local n, at = tonumber(was[1]), tonumber(was[2])
    if at > now then -- a clock went back: the pause must not last until it is where it was
        at = now
        call('HSET', KEYS[key], 't', now)
    end
    local over = ceil(n) - free
    local pause = over < 0 and 0 or min(ARGV[arg + 3], ARGV[arg + 2] * 2 ^ over)
    return max(0, n - (now - at) / forget_ms), pause, max(0, at + pause - now)
end

local function count(key, arg, n)
    -- More than make the longest pause are not counted: it would be remembered for days.
    local most = ARGV[arg] + ceil(math.log(ARGV[arg + 3] / ARGV[arg + 2]) / math.log(2))
    n = min(n + 1, most)
    call('HSET', KEYS[key], 'n', n, 't', now)
    call('PEXPIRE', KEYS[key], ceil(n * ARGV[arg + 1] + ARGV[arg + 3]))
end

local function give_back(key)
    local n = call('HGET', KEYS[key], 'n')
    if n then call('HSET', KEYS[key], 'n', max(0, n - 1)) end
end

-- What is left to wait for one who is held back by a shared bucket alone.
local function turn(pause)
    local due = tonumber(call('HGET', KEYS[FIRST_BUCKET_KEY], 'd') or '')
    if due and due <= now + pause then return max(0, due - now) end -- later ones are of a clock that went back
    call('HSET', KEYS[FIRST_BUCKET_KEY], 'd', now + pause)
    call('PEXPIRE', KEYS[FIRST_BUCKET_KEY], max(call('PTTL', KEYS[FIRST_BUCKET_KEY]), ceil(pause * 2)))
    return pause
end

local levels, wait, shared = {}, 0, 0
for key = FIRST_BUCKET_KEY, #KEYS do
    local arg = FIRST_BUCKET_ARG + (key - 1) * ARGS_PER_BUCKET
    if tonumber(ARGV[1]) == GIVE_BACK then
        give_back(key)
    else
        local n, pause, left = look(key, arg)
        levels[key] = n
        if ARGV[arg + 4] == '1' then
            shared = left > 0 and pause or 0
        else
            wait = max(wait, left)
        end
    end
end
if shared > 0 then wait = wait > 0 and max(wait, shared) or turn(shared) end
if wait > 0 then return ceil(wait) end
for key = 1, #levels do count(key, FIRST_BUCKET_ARG + (key - 1) * ARGS_PER_BUCKET, levels[key]) end
if shared > 0 then call('HDEL', KEYS[FIRST_BUCKET_KEY], 'd') end
return 0
