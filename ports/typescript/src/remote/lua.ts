/** The scripts of the stores on Valkey: made of the text of Python's stores by `python -m tests.ported`, and never edited. */

export interface Script {
  readonly text: string;
  readonly digest: string;
}

const SAID = `
local function told(...)
    local said = redis.pcall('INFO', ...)  -- an error, where that is not permitted
    return type(said) == 'string' and said or ''
end

local function refuse_evicting()
    local policy = string.match(told('memory'), 'maxmemory_policy:([%w-]+)')
    if policy and policy ~= 'noeviction' then error('captoken: evicts') end
end

local function version_of(key, store)
    local said = redis.call('HGET', key, store) or '1'
    return string.match(said, '^[1-9]%d?%d?$') and tonumber(said) or error('captoken: damaged')
end
`;

const COMMON = SAID + `
local function digits(number)
    return string.format('%.0f', number)
end

local function whole(text)
    local is_short = type(text) == 'string' and #text <= 16
    local number = is_short and string.match(text, '^%d+$') and tonumber(text)
    if not number or number > 9007199254740991 or digits(number) ~= text then
        error('captoken: damaged')
    end
    return number
end

local function after(said, name, pattern)
    local _, at = string.find(said, name, 1, true)
    return at and string.match(said, pattern, at + 1) or error('captoken: no run_id')
end

-- The run of the server, and how many keys it has evicted in it, if any.
local function server_of()
    local said = told('server', 'stats')
    local run, evicted = after(said, 'run_id:', '^%x+'), after(said, 'evicted_keys:', '^%d+')
    return evicted == '0' and run or run .. ' ' .. evicted
end

-- Its history: another one after each start, and once a replica takes its place. Asking for that
-- costs a fifth of asking for the run. A replica has its primary's, and nothing is looked at there.
local function history_of()
    local said = told('replication')
    return after(said, 'role:', '^%a+') .. ' ' .. after(said, 'master_replid:', '^%x+')
end

local function first_of(now, ahead, clock)
    return math.max(tonumber(clock) or tonumber(redis.call('TIME')[1]), now) + ahead
end

local function floor_of(key, now, ahead, clock, watch, peek)
    local known = redis.call('HMGET', key, 'floor', 'server', 'keys', 'looked')
    if not known[1] then return nil end
    local floor, keys = whole(known[1]), known[3] or ''
    if watch ~= '1' then return floor, keys end

    local look = history_of() .. ' ' .. now
    if look == known[4] then return floor, keys end

    local server = server_of()
    if server ~= known[2] then
        refuse_evicting()
        floor, keys = math.max(floor, first_of(now, ahead, clock)), ''
        if not peek then
            redis.call('HSET', key, 'floor', digits(floor), 'server', server)
            redis.call('HDEL', key, 'keys')
        end
    end
    -- Behind what refuses: a look that found a reason to refuse is none. A full server notes none.
    if not peek then redis.pcall('HSET', key, 'looked', look) end
    return floor, keys
end

local function is_above(floor, keys, issued, kid)
    return issued > floor or string.find(keys, ',' .. kid .. ',', 1, true) ~= nil
end
`;

export const MAKE: Script = {
  text: COMMON + `
if redis.call('HEXISTS', KEYS[1], 'floor') == 1 then return 0 end
local floor = tonumber(ARGV[7]) or first_of(tonumber(ARGV[4]), tonumber(ARGV[1]), ARGV[2])
local run = ARGV[3] == '1' and server_of() or ''
redis.call('HSET', KEYS[2], ARGV[5], ARGV[6])
redis.call('HSET', KEYS[1], 'floor', digits(floor), 'server', run, 'keys', ARGV[8])
return 1
`,
  digest: "daaa7f123796dbef2d3242f03d31eaef7a91ae77",
};

export const LOOK: Script = {
  text: COMMON + `
local now, ahead = tonumber(ARGV[4]), tonumber(ARGV[1])
if redis.call('HEXISTS', KEYS[1], 'floor') == 0 then return -3 end
local version = version_of(KEYS[2], ARGV[5])
if version ~= tonumber(ARGV[6]) then return -1000 - version end
if not floor_of(KEYS[1], now, ahead, ARGV[2], ARGV[3], false) then return -3 end
return 1
`,
  digest: "16a9859193c77eca389996d2c420c99259228f56",
};

export const ADD: Script = {
  text: COMMON + `local state, full = KEYS[1], -1
local now, issued, gone = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local peek = ARGV[9] == '1'
local floor, keys = floor_of(state, now, tonumber(ARGV[1]), ARGV[2], ARGV[3], peek)
if not floor then return -3 end
local over = 0
if gone > floor then
    if not peek then
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(gone))
        redis.call('HSET', state, 'floor', digits(gone))
        redis.call('HDEL', state, 'keys')
    end
    floor, keys, over = gone, '', gone
end

local known = redis.call('ZSCORE', KEYS[2], ARGV[7])
if not is_above(floor, keys, issued, ARGV[10]) or known and tonumber(known) > over then
    return 0
end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then
    local held = redis.call('ZCOUNT', KEYS[2], '(' .. digits(over), '+inf')
    if held >= tonumber(ARGV[8]) then return full end
end
if not peek then redis.call('ZADD', KEYS[2], digits(issued), ARGV[7]) end
return 1
`,
  digest: "93a34dd7c281b16f21463ecf64f49dc2477e17a7",
};

export const SPEND: Script = {
  text: COMMON + `
local state, full, first = KEYS[1], -2, redis.call('HMGET', KEYS[3], 'floor', 'server')
if not first[1] then return -3 end
if redis.call('HEXISTS', state, 'floor') == 0 then
    if ARGV[9] == '1' then
        state = KEYS[3]
    else
        redis.call('HSET', state, 'floor', first[1], 'server', first[2] or '')
    end
end

local now, issued, gone = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local peek = ARGV[9] == '1'
local floor, keys = floor_of(state, now, tonumber(ARGV[1]), ARGV[2], ARGV[3], peek)
if not floor then return -3 end
local over = 0
if gone > floor then
    if not peek then
        redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(gone))
        redis.call('HSET', state, 'floor', digits(gone))
        redis.call('HDEL', state, 'keys')
    end
    floor, keys, over = gone, '', gone
end

local known = redis.call('ZSCORE', KEYS[2], ARGV[7])
if not is_above(floor, keys, issued, ARGV[10]) or known and tonumber(known) > over then
    return 0
end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then
    local held = redis.call('ZCOUNT', KEYS[2], '(' .. digits(over), '+inf')
    if held >= tonumber(ARGV[8]) then return full end
end
if not peek then redis.call('ZADD', KEYS[2], digits(issued), ARGV[7]) end
return 1
`,
  digest: "d16c347ace11e2733a9c6439282aec33b1c663d6",
};

export const RESERVE: Script = {
  text: COMMON + `
local now, base, keep = tonumber(ARGV[4]), ARGV[9], ARGV[8]
local peek = ARGV[11] == '1'
local is_made = redis.call('HGET', KEYS[2], 'until')
if is_made then return 0 end
local first, last = 5, #KEYS
local floor, keys = floor_of(KEYS[1], now, tonumber(ARGV[1]), ARGV[2], ARGV[3], peek)
if not floor then return -3 end
if not is_above(floor, keys, tonumber(ARGV[5]), ARGV[14]) then return -1 end
local sure = math.min(now, tonumber(ARGV[2]) or tonumber(redis.call('TIME')[1]))
local gone = redis.call('HGET', KEYS[1], 'gone')
gone = gone and whole(gone) or 0

if now - tonumber(ARGV[13]) < gone - tonumber(ARGV[10]) then return -2 end

redis.call('ZCARD', KEYS[3])  -- an error, if it is none
local lives = redis.call('TTL', KEYS[4])
redis.call('ZCARD', KEYS[4])
-- So that the key of the tree outlives what is kept until then. One that is for good stays so.
local function live_until(till)
    if till == '+inf' then
        redis.call('PERSIST', KEYS[4])
        lives = -1
    elseif lives ~= -1 then
        lives = math.min(math.max(lives, tonumber(till) - sure + 60, 60), 1e9)
        redis.call('EXPIRE', KEYS[4], digits(lives))
    end
end
local room = nil
local function room_in_tree()
    return tonumber(ARGV[12]) - redis.call('ZCOUNT', KEYS[4], '(' .. digits(sure), '+inf')
end


local spent = {}
for at = first, last do
    local key = KEYS[at]
    local limit, amount = whole(ARGV[5 + 2 * at]), whole(ARGV[5 + 1 + 2 * at])
    if not spent[key] then
        local text = redis.call('GET', key)
        if not text then
            room = room or room_in_tree()
            if room <= 0 then return at - first + 1 + 1000 end
            room = room - 1
        end
        spent[key] = text and whole(text) or 0
    end
    if limit - spent[key] < amount then return at - first + 1 end
    spent[key] = spent[key] + amount
end
if peek then return 0 end

local made, kept = {'until', ARGV[6], 'open', '1', 'debits', digits(last - first + 1)}, {}
for at = first, last do
    local amount, name = ARGV[5 + 1 + 2 * at], string.sub(KEYS[at], #base + 1)
    made[#made + 1], made[#made + 2] = digits(at - first + 1), amount .. ' ' .. name
    kept[#kept + 1], kept[#kept + 2] = keep, name
end
if not is_made and ARGV[6] ~= '' then
    -- The longest: if it has room for it, so have the others.
    redis.call('HSET', KEYS[2], unpack(made))
    redis.call('EXPIRE', KEYS[2], ARGV[7])
end
for at = first, last do redis.call('INCRBY', KEYS[at], ARGV[5 + 1 + 2 * at]) end
if #kept > 0 then
    redis.call('ZADD', KEYS[3], 'GT', unpack(kept))
    redis.call('ZADD', KEYS[4], 'GT', unpack(kept))
    live_until(keep)
end

if room then redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', digits(sure)) end

local over = redis.call(
    'ZRANGEBYSCORE', KEYS[3], '-inf', digits(sure), 'WITHSCORES', 'LIMIT', 0, 100
)
for at = 1, #over, 2 do
    redis.call('DEL', base .. over[at])
    redis.call('ZREM', KEYS[3], over[at])
    gone = math.max(gone, tonumber(over[at + 1]))
end
if #over > 0 then redis.call('HSET', KEYS[1], 'gone', digits(gone)) end
return 0
`,
  digest: "f26959bfae84e3e592a80e9fffccd11a81ebf078",
};

export const STEP: Script = {
  text: COMMON + `
local now, base, keep = tonumber(ARGV[4]), ARGV[9], ARGV[8]
local peek = ARGV[11] == '1'
local is_made = redis.call('HGET', KEYS[2], 'until')
local own, marks, said = tonumber(ARGV[15]), tonumber(ARGV[16]), {}
local first, last = 5 + marks, is_made and 0 or #KEYS
local floor, keys = floor_of(KEYS[1], now, tonumber(ARGV[1]), ARGV[2], ARGV[3], peek)
if not floor then return -3 end
if not is_above(floor, keys, tonumber(ARGV[5]), ARGV[14]) then return -1 end
local sure = math.min(now, tonumber(ARGV[2]) or tonumber(redis.call('TIME')[1]))
local gone = redis.call('HGET', KEYS[1], 'gone')
gone = gone and whole(gone) or 0
local function name_of(at)
    return string.sub(KEYS[4 + at], #base + 1)
end
for at = 1, marks do
    said[at] = redis.call('GET', KEYS[4 + at])
    local till = said[at] and redis.call('ZSCORE', KEYS[3], name_of(at))
    if till and tonumber(till) <= sure then
        said[at], gone = false, math.max(gone, tonumber(till))
    end
end
if now - tonumber(ARGV[13]) < gone - tonumber(ARGV[10]) then return -2 end

redis.call('ZCARD', KEYS[3])  -- an error, if it is none
local lives = redis.call('TTL', KEYS[4])
redis.call('ZCARD', KEYS[4])
-- So that the key of the tree outlives what is kept until then. One that is for good stays so.
local function live_until(till)
    if till == '+inf' then
        redis.call('PERSIST', KEYS[4])
        lives = -1
    elseif lives ~= -1 then
        lives = math.min(math.max(lives, tonumber(till) - sure + 60, 60), 1e9)
        redis.call('EXPIRE', KEYS[4], digits(lives))
    end
end
local room = nil
local function room_in_tree()
    return tonumber(ARGV[12]) - redis.call('ZCOUNT', KEYS[4], '(' .. digits(sure), '+inf')
end
local function counts(at)
    return ARGV[18 + 2 * at] == '1'
end
local function keep_mark(at)
    redis.call('ZADD', KEYS[3], 'GT', ARGV[17 + 2 * at], name_of(at))
    if counts(at) then
        redis.call('ZADD', KEYS[4], 'GT', ARGV[17 + 2 * at], name_of(at))
        live_until(ARGV[17 + 2 * at])
    end
end

local rule = 0
for members in string.gmatch(ARGV[18], '[^,]+') do
    local holds = {digits(rule)}
    for at in string.gmatch(members, '%d+') do
        local text = said[tonumber(at)]
        if holds and (text or tonumber(at) <= own) then
            holds[#holds + 1] = text or ''
        else
            holds = false
        end
    end
    if holds then
        for at = 1, peek and 0 or marks do if said[at] then keep_mark(at) end end
        return holds
    end
    rule = rule + 1
end

local new, first_new = 0, nil
for at = own, 1, -1 do
    if not said[at] and counts(at) then new, first_new = new + 1, at end
end
if new > 0 then
    room = room_in_tree() - new
    if room < 0 then return first_new + 2 * 1000 end
end

local spent = {}
for at = first, last do
    local key = KEYS[at]
    local limit, amount = whole(ARGV[9 + 2 * at]), whole(ARGV[9 + 1 + 2 * at])
    if not spent[key] then
        local text = redis.call('GET', key)
        if not text then
            room = room or room_in_tree()
            if room <= 0 then return at - first + 1 + 1000 end
            room = room - 1
        end
        spent[key] = text and whole(text) or 0
    end
    if limit - spent[key] < amount then return at - first + 1 end
    spent[key] = spent[key] + amount
end
if peek then return 0 end

local made, kept = {'until', ARGV[6], 'open', '1', 'debits', digits(last - first + 1)}, {}
for at = first, last do
    local amount, name = ARGV[9 + 1 + 2 * at], string.sub(KEYS[at], #base + 1)
    made[#made + 1], made[#made + 2] = digits(at - first + 1), amount .. ' ' .. name
    kept[#kept + 1], kept[#kept + 2] = keep, name
end
if not is_made and ARGV[6] ~= '' then
    -- The longest: if it has room for it, so have the others.
    redis.call('HSET', KEYS[2], unpack(made))
    redis.call('EXPIRE', KEYS[2], ARGV[7])
end
for at = first, last do redis.call('INCRBY', KEYS[at], ARGV[9 + 1 + 2 * at]) end
if #kept > 0 then
    redis.call('ZADD', KEYS[3], 'GT', unpack(kept))
    redis.call('ZADD', KEYS[4], 'GT', unpack(kept))
    live_until(keep)
end
for at = 1, marks do
    if at <= own and not said[at] then
        redis.call('SET', KEYS[4 + at], digits(now) .. ' ' .. ARGV[17])
    end
    if at <= own or said[at] then keep_mark(at) end
end
if room then redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', digits(sure)) end

local over = redis.call(
    'ZRANGEBYSCORE', KEYS[3], '-inf', digits(sure), 'WITHSCORES', 'LIMIT', 0, 100
)
for at = 1, #over, 2 do
    redis.call('DEL', base .. over[at])
    redis.call('ZREM', KEYS[3], over[at])
    gone = math.max(gone, tonumber(over[at + 1]))
end
if #over > 0 then redis.call('HSET', KEYS[1], 'gone', digits(gone)) end
return 0
`,
  digest: "163a13a748826648e6f1d78d08945ee0806e35d5",
};

export const SETTLE: Script = {
  text: COMMON + `
local known, listed = {}, redis.call('HGETALL', KEYS[1])
for at = 1, #listed, 2 do known[listed[at]] = listed[at + 1] end
if #listed == 0 or known['open'] ~= '1' or whole(known['until']) <= tonumber(ARGV[1]) then
    return 0
end

local taken, backs, left = {}, {}, {}
for at = 4, #ARGV, 2 do taken[ARGV[at]] = whole(ARGV[at + 1]) end
for at = 1, ARGV[3] == 'all' and 0 or whole(known['debits']) do
    local debit = known[digits(at)] or ''
    local amount, name, unit = string.match(debit, '^(%d+) (%x+:(.+))$')
    amount = whole(amount)
    local key, back = ARGV[2] .. name, amount - math.min(amount, taken[unit] or 0)
    local text = left[key] or redis.call('GET', key)
    if text and back > 0 then
        left[key] = digits(whole(text) - back)
        whole(left[key])
        backs[#backs + 1] = {key, digits(back)}
    end
end

redis.call('HSET', KEYS[1], 'open', '0')
for _, back in ipairs(backs) do redis.call('DECRBY', back[1], back[2]) end
return 1
`,
  digest: "ad49fd96d815a462a25e4e8eebd346c18b15f0b4",
};

export const LOAD: Script = {
  text: SAID + `
local function is_there(snapshot, state)
    refuse_evicting()
    return redis.call('EXISTS', snapshot) == 1 or redis.call('HEXISTS', state, 'made') == 1
end

local function newest(snapshot, deltas, state)
    local lies = redis.call('GET', snapshot)
    local known = redis.call('HMGET', state, 'mark', 'many')
    local is_whole = not known[2] or redis.call('LLEN', deltas) == tonumber(known[2])
    if (lies and 1) ~= (known[1] and 1) or not is_whole then error('captoken: damaged') end
    if not lies then return false end
    local is_in = tonumber(redis.call('HGET', state, 'in') or '0')
    local parts = {lies}
    for _, line in ipairs(redis.call('LRANGE', deltas, is_in, -1)) do
        parts[#parts + 1] = string.sub(line, 129)
    end
    return table.concat(parts, '\\n')
end

local function note(state, deltas, mark)
    redis.call('HSET', state, 'mark', mark, 'many', redis.call('LLEN', deltas))
end

if not is_there(KEYS[1], KEYS[3]) then return -3 end
return newest(KEYS[1], KEYS[2], KEYS[3])
`,
  digest: "039b1c982adf65793ecbf08687c12a1c5e4412a2",
};

export const REPLAY_VERSION = 2;
export const LEDGER_VERSION = 3;
