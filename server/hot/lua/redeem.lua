-- redeem: judges a batch of scans of one shard; each scan is decided, remembered and recorded in this one step.
--
-- KEYS: 1 epoch, 2 redemptions, 3 said0, 4 said1, 5 said2, then per scan: ticket
-- ARGV: 1 shards, 2 said_s, then per scan: ticket_code, function_code, jti, scan_id, ruled, at_ms, operator, place, upload
-- RETURNS: a list with one element per scan: the verdict's line (9 parts, tab between), or an integer if undecided
-- CODES: SUCCESS=0 TICKET_NOT_VALID=6 WRONG_FUNCTION=7 ALREADY_REDEEMED=10 NO_REMAINING=11
-- CODES: GATE_CLOSED=-1 TICKET_ABSENT=-2 SCAN_ID_CONFLICT=-3 OUTSIDE_WINDOW=-4
--
-- Order of judgement: what this scan_id was told before -> the ticket is here -> what outer rules said (`ruled`) ->
-- status and validity -> function -> (jti, function) not spent -> uses left -> spend.
-- A ticket's hash: e terms, r remaining uses (",bus=2,ferry=0,"), s status unless ACTIVE, a/z validity in unix ms,
-- j:<jti>:<function> who spent that QR: event id, scan_id, place, remaining, decided_ms (tab between).
-- `ruled` below zero: the verdict -ruled concerns no known ticket (an unreadable token): remembered, not recorded.
-- `upload` of a scan that its gate made while it was offline: 1, or 2 outside of the window, when it is only told again
-- what it was told before. All others: empty.
-- What scan_ids were told stands in three hashes that take turns: every `said_s` seconds the oldest is emptied and written
-- anew, so a verdict is remembered for at least two times that long. A batch asks each hash once, and writes once. The
-- lines there are without the ticket's terms, which its own hash has. Field "": which turn the hash is of.

local SUCCESS, TICKET_NOT_VALID, WRONG_FUNCTION, ALREADY_REDEEMED, NO_REMAINING = 0, 6, 7, 10, 11
local GATE_CLOSED, TICKET_ABSENT, SCAN_ID_CONFLICT, OUTSIDE_WINDOW = -1, -2, -3, -4
local FIRST_SCAN_KEY, FIRST_SCAN_ARG, ARGS_PER_SCAN = 6, 3, 9
local find, match, sub = string.find, string.match, string.sub
local call = redis.call
local shard = match(KEYS[2], '^{s(%d+)}')

-- Here, and not where it is used: what is spent by then stays.
local said_s = tonumber(ARGV[2])
assert(said_s and said_s >= 1 and said_s % 1 == 0, 'redeem: a turn has whole seconds')

local time = call('TIME')
local now_ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))

local said_keys = { KEYS[3], KEYS[4], KEYS[5] }
local turns = {} -- of which turn each of them is
local told, news = {}, {}

-- What the scans of this batch were told before.
local function recall()
    local scan_ids = {}
    for arg = FIRST_SCAN_ARG, #ARGV, ARGS_PER_SCAN do scan_ids[#scan_ids + 1] = ARGV[arg + 3] end
    for place, said_key in ipairs(said_keys) do
        local lines = call('HMGET', said_key, '', unpack(scan_ids))
        turns[place] = tonumber(lines[1] or '') or -1
        for i, scan_id in ipairs(scan_ids) do told[scan_id] = told[scan_id] or lines[i + 1] end
    end
end

local function tell(scan_id, line)
    told[scan_id] = line
    news[#news + 1] = scan_id
    news[#news + 1] = line
end

local function remember()
    if #news == 0 then return end
    local turn = math.floor(time[1] / said_s)
    local place = turn % #said_keys + 1
    local said_key = said_keys[place]
    if turns[place] ~= turn then
        -- Here and not by its time to live, which some versions of Redis stand still for. After a clock that went back,
        -- the hash is of a turn of the future: what was told then is kept, and grows old from now on.
        if turns[place] < turn then call('UNLINK', said_key) end
        call('HSET', said_key, '', turn)
        call('EXPIREAT', said_key, (turn + #said_keys + 1) * said_s)
    end
    call('HSET', said_key, unpack(news))
end

local function spent_status(remaining)
    if find(remaining, '=[1-9]') then return 'ACTIVE' end
    return 'REDEEMED'
end

-- The status as the rules of validity see it: ACTIVE and REDEEMED may be scanned, all others may not.
local function ticket_status(ticket, at_ms)
    if ticket[3] then return ticket[3] end
    if ticket[4] and at_ms < tonumber(ticket[4]) then return 'NOT_YET_VALID' end
    if ticket[5] and at_ms >= tonumber(ticket[5]) then return 'EXPIRED' end
    return spent_status(ticket[2])
end

-- verdict, remaining uses after it, and who spent this QR first
local function judge(ticket, status, function_code, ruled)
    local remaining, spent = ticket[2], ticket[6]
    if ruled > SUCCESS then return ruled, remaining, '' end
    if status ~= 'ACTIVE' and status ~= 'REDEEMED' then return TICKET_NOT_VALID, remaining, '' end
    local _, at = find(remaining, ',' .. function_code .. '=', 1, true)
    if not at then return WRONG_FUNCTION, remaining, '' end
    if spent then
        local event_id, place = match(spent, '^([^\t]*)\t[^\t]*\t([^\t]*)')
        return ALREADY_REDEEMED, remaining, event_id .. '\31' .. place
    end
    local left = match(remaining, '^%d+', at + 1)
    if left == '0' then return NO_REMAINING, remaining, '' end
    return SUCCESS, sub(remaining, 1, at) .. (tonumber(left) - 1) .. sub(remaining, at + #left + 1), ''
end

local function redeem(ticket_key, arg)
    local code, function_code, jti, scan_id = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local ruled, at_ms, operator, place = tonumber(ARGV[arg + 4]), ARGV[arg + 5], ARGV[arg + 6], ARGV[arg + 7]
    local upload = ARGV[arg + 8]
    local outside = upload == '2'
    local subject = '\t' .. code .. '\t' .. function_code .. '\t'

    local said = told[scan_id]
    if said then
        if not find(said, subject, 1, true) then return SCAN_ID_CONFLICT end
        if find(said, '^%d+\t\t') then return said end -- it concerned no known ticket
        local terms = call('HGET', ticket_key, 'e')
        return terms and said .. terms or TICKET_ABSENT
    end
    if ruled < SUCCESS then
        if outside then return OUTSIDE_WINDOW end
        local line = -ruled .. '\t' .. subject .. '\t\t\t' .. now_ms .. '\t'
        tell(scan_id, line)
        return line
    end

    local jti_field = 'j:' .. jti .. ':' .. function_code
    local ticket = call('HMGET', ticket_key, 'e', 'r', 's', 'a', 'z', jti_field)
    local terms = ticket[1]
    if not terms then return outside and OUTSIDE_WINDOW or TICKET_ABSENT end
    if ticket[6] then
        local event_id, by, remaining, decided =
            match(ticket[6], '^([^\t]*)\t([^\t]*)\t[^\t]*\t([^\t]*)\t(%d+)$')
        if by == scan_id then
            return SUCCESS .. '\t' .. event_id .. subject .. spent_status(remaining) .. '\t' .. remaining
                .. '\t\t' .. decided .. '\t' .. terms
        end
    end

    if outside then return OUTSIDE_WINDOW end

    local status = ticket_status(ticket, tonumber(at_ms))
    local verdict, remaining, first = judge(ticket, status, function_code, ruled)
    if verdict == SUCCESS then status = spent_status(remaining) end
    local body = subject .. status .. '\t' .. remaining .. '\t' .. first .. '\t' .. now_ms
    local event_id = shard .. '-' .. call('XADD', KEYS[2], '*', 'd', verdict .. body .. '\t' .. jti .. '\t' .. scan_id
        .. '\t' .. at_ms .. '\t' .. operator .. '\t' .. place .. (upload == '' and '' or '\t1'))
    if verdict == SUCCESS then
        local spent = event_id .. '\t' .. scan_id .. '\t' .. place .. '\t' .. remaining .. '\t' .. now_ms
        call('HSET', ticket_key, 'r', remaining, jti_field, spent)
    end
    local line = verdict .. '\t' .. event_id .. body .. '\t'
    tell(scan_id, line)
    return line .. terms
end

-- An epoch names the number of shards that its tickets were loaded for: a process of another number is kept out.
local epoch = call('GET', KEYS[1])
local open = epoch and match(epoch, '%d+$') == ARGV[1]
local answers = {}
if open then recall() end
local done, fault = pcall(function()
    local arg = FIRST_SCAN_ARG
    for key = FIRST_SCAN_KEY, #KEYS do
        answers[#answers + 1] = open and redeem(KEYS[key], arg) or GATE_CLOSED
        arg = arg + ARGS_PER_SCAN
    end
end)
remember() -- also when a later scan failed: what is spent must be known by its scan_id
if not done then error(fault) end
return answers
