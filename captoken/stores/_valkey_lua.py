"""The scripts of the stores on Valkey or Redis, as text that `valkey` runs.

Integers are written as digits, since Lua would write large ones as 1e+15. Up to 2^53 its numbers
are exact. What a script has done stays done when it fails. So all is read and judged before the
first key is written, but for the floor.

The floor lies in a hash, with the run of the server that it was written on. If the hash is gone,
the store has lost its data, and is not there: -3. If the server is another one by now (restarted,
or a replica in its place), the last second may be lost: the floor rises over all that can have been
issued. It rises too if the server has evicted keys since; while it may evict more, that is an
error. Each step asks whether the server's history goes on, and the first of each second which run
it is and what it has evicted. `keys`, with a comma before and after each: for these there is no
floor, until it rises. `watch` 1: the run is noted and compared, whatever the server is set to: a
replica may come later, and be promoted. A server that does not say its run is refused. 0: neither.

`peek` 1: the script answers what it would, and writes nothing.

The versions of the stores under a prefix lie in a hash. What opens a store compares, before it
writes anything: for another version it answers -1000 and that below it.
"""

from __future__ import annotations

from captoken.stores.ports import FULL

_SAID = """
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
"""

_COMMON = (
    _SAID
    + """
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
"""
)

# Keys: the floor, the versions. Arguments: ahead, clock, watch, now, store, version, first, keys.
# 0 if it is there.
MAKE = (
    _COMMON
    + """
if redis.call('HEXISTS', KEYS[1], 'floor') == 1 then return 0 end
local floor = tonumber(ARGV[7]) or first_of(tonumber(ARGV[4]), tonumber(ARGV[1]), ARGV[2])
local run = ARGV[3] == '1' and server_of() or ''
redis.call('HSET', KEYS[2], ARGV[5], ARGV[6])
redis.call('HSET', KEYS[1], 'floor', digits(floor), 'server', run, 'keys', ARGV[8])
return 1
"""
)

# Keys: the floor, the versions. Arguments: ahead, clock, watch, now, store, version.
LOOK = (
    _COMMON
    + """
local now, ahead = tonumber(ARGV[4]), tonumber(ARGV[1])
if redis.call('HEXISTS', KEYS[1], 'floor') == 0 then return -3 end
local version = version_of(KEYS[2], ARGV[5])
if version ~= tonumber(ARGV[6]) then return -1000 - version end
if not floor_of(KEYS[1], now, ahead, ARGV[2], ARGV[3], false) then return -3 end
return 1
"""
)

# Keys: the floor, the proofs.
# Arguments: ahead, clock, watch, now, issued, gone, entry, limit, peek, kid.
#
# Of consents there are a floor and uses of their own: SPEND begins them with the floor of the
# proofs, its third key. It is at or above the one that the store began with.
#
# Nothing here has a time to live: a use is forgotten in the step that raises the floor over it,
# whatever the clocks say. What is next to be forgotten is passed over, so that a `peek`, which
# forgets nothing, sees what is seen after that.
_USING = """
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
"""
ADD = _COMMON + "local state, full = KEYS[1], -1" + _USING
SPEND = (
    _COMMON
    + """
local state, full, first = KEYS[1], -2, redis.call('HMGET', KEYS[3], 'floor', 'server')
if not first[1] then return -3 end
if redis.call('HEXISTS', state, 'floor') == 0 then
    if ARGV[9] == '1' then
        state = KEYS[3]
    else
        redis.call('HSET', state, 'floor', first[1], 'server', first[2] or '')
    end
end
"""
    + _USING
)

# Keys: the floor, the reservation, until when buckets are kept, the same of this tree; of a step
# each of its marks and then those of its rules; the bucket of each debit.
# Arguments: ahead, clock, watch, now, issued, until, lives, keep, base, kept, peek, most, leeway,
# kid; of a step how many marks it has, and how many there are with those of its rules, what did it,
# the rules, and for each mark until when it is kept and whether it counts to the tree; and for each
# debit its limit and amount. Without `until` nothing is reserved.
#
# No bucket has a time to live, which would be by the server's clock alone and leave no trace. Until
# when each is kept stands in a sorted set. What both clocks say is over is deleted in the step that
# notes, in `gone`, how late the last was kept. What is over does not count as one of its tree; the
# key of a tree has a time to live, since nothing is spent again where it is gone.
#
# A mark is a bucket whose text says when and by what it was set, and stays as it is. One that is
# over is not set, and counts as gone, also before it is deleted.
_COUNTING = """
local now, base, keep = tonumber(ARGV[4]), ARGV[9], ARGV[8]
local peek = ARGV[11] == '1'
local is_made = redis.call('HGET', KEYS[2], 'until')
$begun
local floor, keys = floor_of(KEYS[1], now, tonumber(ARGV[1]), ARGV[2], ARGV[3], peek)
if not floor then return -3 end
if not is_above(floor, keys, tonumber(ARGV[5]), ARGV[14]) then return -1 end
local sure = math.min(now, tonumber(ARGV[2]) or tonumber(redis.call('TIME')[1]))
local gone = redis.call('HGET', KEYS[1], 'gone')
gone = gone and whole(gone) or 0
$looked
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
$judged

local spent = {}
for at = first, last do
    local key = KEYS[at]
    local limit, amount = whole(ARGV[$facts + 2 * at]), whole(ARGV[$facts + 1 + 2 * at])
    if not spent[key] then
        local text = redis.call('GET', key)
        if not text then
            room = room or room_in_tree()
            if room <= 0 then return at - first + 1 + $full end
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
    local amount, name = ARGV[$facts + 1 + 2 * at], string.sub(KEYS[at], #base + 1)
    made[#made + 1], made[#made + 2] = digits(at - first + 1), amount .. ' ' .. name
    kept[#kept + 1], kept[#kept + 2] = keep, name
end
if not is_made and ARGV[6] ~= '' then
    -- The longest: if it has room for it, so have the others.
    redis.call('HSET', KEYS[2], unpack(made))
    redis.call('EXPIRE', KEYS[2], ARGV[7])
end
for at = first, last do redis.call('INCRBY', KEYS[at], ARGV[$facts + 1 + 2 * at]) end
if #kept > 0 then
    redis.call('ZADD', KEYS[3], 'GT', unpack(kept))
    redis.call('ZADD', KEYS[4], 'GT', unpack(kept))
    live_until(keep)
end
$set
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
"""

_STEP_BEGUN = """
local own, marks, said = tonumber(ARGV[15]), tonumber(ARGV[16]), {}
local first, last = 5 + marks, is_made and 0 or #KEYS
"""
_MARKS_LOOKED = """
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
"""
_MARKS_JUDGED = """
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
    if room < 0 then return first_new + 2 * $full end
end
"""
_MARKS_SET = """
for at = 1, marks do
    if at <= own and not said[at] then
        redis.call('SET', KEYS[4 + at], digits(now) .. ' ' .. ARGV[17])
    end
    if at <= own or said[at] then keep_mark(at) end
end
"""


def _counting(facts: int, **parts: str) -> str:
    """The script, with what a step does beside it, and the place of its debits' facts."""
    text = _COMMON + _COUNTING
    for name, part in parts.items():
        text = text.replace(f"${name}", part.strip())
    return text.replace("$full", str(FULL)).replace("$facts", str(facts))


# A reservation that is there is told as made, whatever else has come since.
RESERVE = _counting(
    5,
    begun="if is_made then return 0 end\nlocal first, last = 5, #KEYS",
    looked="",
    judged="",
    set="",
)
STEP = _counting(
    9,
    begun=_STEP_BEGUN,
    looked=_MARKS_LOOKED,
    judged=_MARKS_JUDGED,
    set=_MARKS_SET,
)

# Keys: the reservation.
# Arguments: now, base, 'all' or '', and the unit and amount of each thing that was taken.
SETTLE = (
    _COMMON
    + """
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
"""
)

# What the scripts of the snapshot have in common. The deltas lie in a list: each is the mark of
# what it follows on, that of what it gives, both as 64 hexadecimal digits, and itself. The first of
# them, `in` many, led to the snapshot that lies there whole, and are behind it no more.
#
# The store is there where it was made, and where a snapshot lies: older ones were not made.
#
# A server that evicts may take one of the keys and leave the others: that is no older snapshot.
_OVERLAY = (
    _SAID
    + """
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
"""
)

# All of these have four keys: the snapshot, the deltas, the state, the versions. They answer -3 for
# a store that is not there.

# Arguments: store, version. 0 if it is there.
MAKE_OVERLAY = (
    _OVERLAY
    + """
if is_there(KEYS[1], KEYS[3]) then return 0 end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], 'made', '1')
return 1
"""
)

# Arguments: store, version.
LOOK_OVERLAY = (
    _OVERLAY
    + """
if not is_there(KEYS[1], KEYS[3]) then return -3 end
local version = version_of(KEYS[4], ARGV[1])
return version == tonumber(ARGV[2]) and 1 or -1000 - version
"""
)

LOAD = (
    _OVERLAY
    + """
if not is_there(KEYS[1], KEYS[3]) then return -3 end
return newest(KEYS[1], KEYS[2], KEYS[3])
"""
)

# Arguments: the new one, is there one before, the one before, the mark of the new one, and how many
# deltas are kept.
#
# What is there already is put there again: a client that sends again after a lost answer has won,
# and waits for the disk. The first key that is written is the one that a full server refuses.
PUBLISH = (
    _OVERLAY
    + """
if not is_there(KEYS[1], KEYS[3]) then return -3 end
local lies = newest(KEYS[1], KEYS[2], KEYS[3])
if lies ~= ARGV[1] and lies ~= (ARGV[2] == '1' and ARGV[3]) then return 0 end
local last = redis.call('LINDEX', KEYS[2], -1)
redis.call('SET', KEYS[1], ARGV[1])
if last and string.sub(last, 65, 128) == ARGV[4] then
    redis.call('LTRIM', KEYS[2], -tonumber(ARGV[5]), -1)
    redis.call('HSET', KEYS[3], 'in', redis.call('LLEN', KEYS[2]))
else
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[3], 'in', '0')
end
note(KEYS[3], KEYS[2], ARGV[4])
return 1
"""
)

# Arguments: the delta, the marks of what it follows on and of what it gives.
#
# What is there already as the last is not put there again, and has won, as above.
APPEND = (
    _OVERLAY
    + """
if not is_there(KEYS[1], KEYS[3]) then return -3 end
newest(KEYS[1], KEYS[2], KEYS[3])
local line = ARGV[2] .. ARGV[3] .. ARGV[1]
if redis.call('LINDEX', KEYS[2], -1) == line then return 1 end
if redis.call('HGET', KEYS[3], 'mark') ~= ARGV[2] then return 0 end
redis.call('RPUSH', KEYS[2], line)
note(KEYS[3], KEYS[2], ARGV[3])
return 1
"""
)

# Arguments: the mark of what is known.
SINCE = (
    _OVERLAY
    + """
if not is_there(KEYS[1], KEYS[3]) then return -3 end
newest(KEYS[1], KEYS[2], KEYS[3])
if redis.call('HGET', KEYS[3], 'mark') == ARGV[1] then return {} end
for at, line in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
    if string.sub(line, 1, 64) == ARGV[1] then
        return redis.call('LRANGE', KEYS[2], at - 1, -1)
    end
end
return false
"""
)

# Keys: the versions, the floors of proofs and counts, the snapshot, its state.
# Arguments: is it to be done?, and the version of each that there is to be.
#
# The version that each has, and 0 for a store that is not there. Older ones say the new version
# from then on: what they keep is the same.
VERSIONS_OF = (
    _SAID
    + """
local is_made = {
    redis.call('HEXISTS', KEYS[2], 'floor') == 1, redis.call('HEXISTS', KEYS[3], 'floor') == 1,
    redis.call('EXISTS', KEYS[4]) == 1 or redis.call('HEXISTS', KEYS[5], 'made') == 1
}
local found = {}
for at, store in ipairs({'replay', 'ledger', 'overlay'}) do
    found[at] = is_made[at] and version_of(KEYS[1], store) or 0
    if ARGV[1] == '1' and is_made[at] and found[at] < tonumber(ARGV[at + 1]) then
        redis.call('HSET', KEYS[1], store, ARGV[at + 1])
    end
end
return found
"""
)
