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
-- All is read, arguments and buckets, before anything is written: what fails has counted nothing.

local GIVE_BACK = -1
local FIRST_BUCKET_KEY, FIRST_BUCKET_ARG, ARGS_PER_BUCKET = 1, 2, 5
local call, ceil, floor, max, min = redis.call, math.ceil, math.floor, math.max, math.min

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

-- 0 < x < 2^26: two of them multiplied are still an integer to PEXPIRE
local function positive(text)
    local x = tonumber(text or '')
    assert(x and x > 0 and x < 2 ^ 26, 'a pace is of positive numbers')
    return x
end

-- a bucket, the pause behind its latest attempt, how much of it is left, and what it would be with one more
local function look(key, arg)
    local free, forget_ms = positive(ARGV[arg]), positive(ARGV[arg + 1])
    local pause_ms, pause_ms_max = positive(ARGV[arg + 2]), positive(ARGV[arg + 3])
    local was = call('HMGET', KEYS[key], 'n', 't')
    local n, told_at = tonumber(was[1] or 0), tonumber(was[2] or 0)
    local at = min(now, told_at)
    local over = ceil(n) - free
    local pause = over < 0 and 0 or min(pause_ms_max, pause_ms * 2 ^ over)
    -- More than make the longest pause are not counted: it would be remembered for days.
    local most = free + ceil(math.log(pause_ms_max / pause_ms) / math.log(2))
    local one_more = min(max(0, n - (now - at) / forget_ms) + 1, most)
    return {
        name = KEYS[key],
        n = n,
        one_more = one_more,
        kept_ms = ceil(one_more * forget_ms + pause_ms_max),
        pause = pause,
        left = max(0, at + pause - now),
        shared = ARGV[arg + 4] == '1',
        of_tomorrow = told_at > now,
    }
end

-- What is left to wait for one who is held back by a shared bucket alone.
local function turn(own, pause)
    local due = tonumber(call('HGET', own, 'd') or '')
    if due and due <= now + pause then return max(0, due - now) end -- later ones are of a clock that went back
    call('HSET', own, 'd', now + pause)
    call('PEXPIRE', own, max(call('PTTL', own), ceil(pause * 2)))
    return pause
end

local buckets, wait, shared = {}, 0, 0
for key = FIRST_BUCKET_KEY, #KEYS do
    local bucket = look(key, FIRST_BUCKET_ARG + (key - 1) * ARGS_PER_BUCKET)
    buckets[key] = bucket
    if bucket.shared then
        shared = bucket.left > 0 and bucket.pause or 0
    else
        wait = max(wait, bucket.left)
    end
end
if tonumber(ARGV[1]) == GIVE_BACK then
    for _, bucket in ipairs(buckets) do
        if bucket.n > 0 then call('HSET', bucket.name, 'n', max(0, bucket.n - 1)) end
    end
    return 0
end
for _, bucket in ipairs(buckets) do
    -- a clock went back: the pause must not last until it is where it was
    if bucket.of_tomorrow then call('HSET', bucket.name, 't', now) end
end
if shared > 0 then wait = wait > 0 and max(wait, shared) or turn(KEYS[FIRST_BUCKET_KEY], shared) end
if wait > 0 then return ceil(wait) end
for _, bucket in ipairs(buckets) do
    call('HSET', bucket.name, 'n', bucket.one_more, 't', now)
    call('PEXPIRE', bucket.name, bucket.kept_ms)
end
if shared > 0 then call('HDEL', KEYS[FIRST_BUCKET_KEY], 'd') end
return 0
