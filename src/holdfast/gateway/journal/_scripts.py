"""The journal's decisions, one script each: Redis runs a script whole, and nothing of another node comes between.

Time is the server's own (`TIME`), so nodes whose clocks differ agree on leases. Under a prefix there are, for each
stream, a hash `s:<stream>` (entry, head, fence, last, ending, notes), its records `r:<stream>` as a Redis stream, and
who reads it where, `p:<stream>`. For all of them: `leases` (a set of the unfinished ones, by when their lease ends, so
it is the index of those to be taken over, too), `done` (the ended ones, by when they did), `sizes` (bytes of each).

An entry of `r:<stream>` has the number of its first record as its id: a record is found by its number, and Redis itself
refuses what is out of order. It holds records (`d`), a head (`h`), an ending (`e`), or how many numbers are left out
behind a takeover (`k`). Every script can be sent twice: an answer that did not come says nothing of what was done.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
"""

BEGIN = (
    _NOW
    + """
local prefix, stream = ARGV[1], ARGV[2]
if ARGV[3] ~= '' then
  local name = prefix .. 'i:' .. ARGV[3]
  local known = redis.call('GET', name)
  if known and known ~= stream and redis.call('EXISTS', prefix .. 's:' .. known) == 1 then
    return known
  end
  redis.call('SET', name, stream, 'PX', ARGV[6])
end
local state = prefix .. 's:' .. stream
if redis.call('EXISTS', state) == 0 then
  redis.call('HSET', state, 'entry', ARGV[4], 'fence', 1, 'last', 0, 'named', ARGV[3])
  redis.call('PEXPIRE', state, ARGV[6])
  redis.call('HSET', prefix .. 'sizes', stream, #ARGV[4])
end
redis.call('ZADD', prefix .. 'leases', now + tonumber(ARGV[5]), stream)
return stream
"""
)
"""prefix, stream, digest of the idempotency key or '', entry, ms of the lease, ms to keep -> the stream to be read:
another one where the key was given before."""

_MINE = """
local function mine(state, fence)
  local found = redis.call('HMGET', state, 'fence', 'last', 'ending', 'cancel')
  if not found[1] then return -1 end
  if found[1] ~= fence then return -2 end
  return 1, tonumber(found[2]), found[3], found[4]
end
"""

START = (
    _MINE
    + """
local state, records = ARGV[1] .. 's:' .. ARGV[2], ARGV[1] .. 'r:' .. ARGV[2]
local right, last, ending = mine(state, ARGV[3])
if right ~= 1 then return right end
if redis.call('HEXISTS', state, 'head') == 0 and not ending then
  redis.call('HSET', state, 'head', ARGV[4])
  redis.call('XADD', records, '0-1', 'h', ARGV[4])
  redis.call('PEXPIRE', records, ARGV[5])
end
return 1
"""
)
"""prefix, stream, fence, head, ms to keep -> 1, or why not: -1 there is no such stream, -2 another node writes it."""

APPEND = (
    _MINE
    + """
local prefix, stream = ARGV[1], ARGV[2]
local state, records = prefix .. 's:' .. stream, prefix .. 'r:' .. stream
local right, last, ending, cancel = mine(state, ARGV[3])
if right ~= 1 then return right end
local first, count = tonumber(ARGV[4]), tonumber(ARGV[5])
if first + count - 1 <= last then return cancel and 2 or 1 end
if first ~= last + 1 or ending then return -3 end
if last == 0 and redis.call('HEXISTS', state, 'head') == 0 then return -3 end
redis.call('XADD', records, first .. '-0', 'd', ARGV[6])
if ARGV[7] ~= '' then
  redis.call('HSET', state, 'last', first + count - 1, 'notes', ARGV[7])
else
  redis.call('HSET', state, 'last', first + count - 1)
end
local size = redis.call('HINCRBY', prefix .. 'sizes', stream, #ARGV[6])
local most = tonumber(ARGV[8])
if size > most then
  for _ = 1, 64 do
    local oldest = redis.call('XRANGE', records, '-', '+', 'COUNT', 2)
    if size <= most or #oldest < 2 then break end
    size = size - #oldest[1][2][2]
    redis.call('XDEL', records, oldest[1][1])
  end
  redis.call('HSET', prefix .. 'sizes', stream, size)
end
return cancel and 2 or 1
"""
)
"""prefix, stream, fence, number of the first record, how many, records, notes or '', most bytes -> 1, or 2
where the stream is to be cancelled; or why not: -1 and -2 as above, -3 they do not follow."""

RENEW = (
    _NOW
    + """
local prefix, lease, keep, writing = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local told = {}
for i = 5, 4 + 2 * writing, 2 do
  local stream = ARGV[i]
  local state = prefix .. 's:' .. stream
  local found = redis.call('HMGET', state, 'fence', 'cancel', 'ending', 'named')
  if not found[1] then
    told[#told + 1] = -1
  elseif found[1] ~= ARGV[i + 1] then
    told[#told + 1] = -2
  else
    if not found[3] then
      redis.call('ZADD', prefix .. 'leases', now + lease, stream)
    end
    redis.call('PEXPIRE', state, keep)
    redis.call('PEXPIRE', prefix .. 'r:' .. stream, keep)
    if found[4] and found[4] ~= '' then redis.call('PEXPIRE', prefix .. 'i:' .. found[4], keep) end
    told[#told + 1] = found[2] and 2 or 1
  end
end
local node = ARGV[5 + 2 * writing]
for i = 6 + 2 * writing, #ARGV do
  if redis.call('EXISTS', prefix .. 's:' .. ARGV[i]) == 1 then
    redis.call('ZADD', prefix .. 'p:' .. ARGV[i], now + lease, node)
    redis.call('PEXPIRE', prefix .. 'p:' .. ARGV[i], math.ceil(lease))
    told[#told + 1] = 1
  else
    told[#told + 1] = -1
  end
end
return told
"""
)
"""prefix, ms of the lease, ms to keep, how many are written; each with its fence; node; those that are read -> for each
that is written 1, 2 where it is to be cancelled, or why not; for each that is read 1, or -1 where there is none."""

END = (
    _NOW
    + _MINE
    + """
local prefix, stream = ARGV[1], ARGV[2]
local state, records = prefix .. 's:' .. stream, prefix .. 'r:' .. stream
local right, last, ending = mine(state, ARGV[3])
if right ~= 1 then return right end
if not ending then
  if last ~= tonumber(ARGV[8]) then return -3 end
  redis.call('HSET', state, 'ending', ARGV[4], 'entry', ARGV[5])
  redis.call('XADD', records, (last + 1) .. '-0', 'e', ARGV[4])
  local named = redis.call('HGET', state, 'named')
  if named and named ~= '' then
    if ARGV[7] == '1' then
      redis.call('DEL', prefix .. 'i:' .. named)
    else
      redis.call('PEXPIRE', prefix .. 'i:' .. named, ARGV[6])
    end
  end
  redis.call('PEXPIRE', state, ARGV[6])
  redis.call('PEXPIRE', records, ARGV[6])
  redis.call('ZADD', prefix .. 'done', now, stream)
end
redis.call('ZREM', prefix .. 'leases', stream)
return 1
"""
)
"""prefix, stream, fence, ending, entry as it is kept from here on, ms to keep, 1: forget its name, number of the last
record -> as APPEND: a Redis that lost what it had acknowledged must not take the rest for a whole stream."""

RELEASE = (
    _MINE
    + """
local right, last, ending = mine(ARGV[1] .. 's:' .. ARGV[2], ARGV[3])
if right ~= 1 then return right end
if not ending then
  redis.call('HINCRBY', ARGV[1] .. 's:' .. ARGV[2], 'handed', 1)
  redis.call('ZADD', ARGV[1] .. 'leases', 0, ARGV[2])
  redis.call('XADD', ARGV[1] .. 'free', 'MAXLEN', '~', 64, '*', 's', ARGV[2])
end
return 1
"""
)
"""prefix, stream, fence -> as START. Whoever follows `free` hears of it at once."""

DUE = (
    _NOW
    + """
local prefix = ARGV[1]
local found = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', ARGV[3] == '1' and 0 or now, 'LIMIT', 0, ARGV[2])
local due = {}
for _, stream in ipairs(found) do
  if redis.call('EXISTS', prefix .. 's:' .. stream) == 1 then
    due[#due + 1] = stream
  else
    redis.call('ZREM', prefix .. 'leases', stream)
    redis.call('HDEL', prefix .. 'sizes', stream)
  end
end
return due
"""
)
"""prefix, how many at most, 1 for those alone that were handed over -> streams that nobody writes."""

TAKE = (
    _NOW
    + """
local prefix, stream = ARGV[1], ARGV[2]
local state, records = prefix .. 's:' .. stream, prefix .. 'r:' .. stream
local lease = redis.call('ZSCORE', prefix .. 'leases', stream)
if not lease or tonumber(lease) > now then return false end
local found = redis.call('HMGET', state, 'entry', 'head', 'last', 'ending', 'notes', 'cancel', 'skips', 'handed')
if not found[1] or found[4] then
  redis.call('ZREM', prefix .. 'leases', stream)
  return false
end
redis.call('ZADD', prefix .. 'leases', now + tonumber(ARGV[3]), stream)
local fence = redis.call('HINCRBY', state, 'fence', 1)
local last, skips = tonumber(found[3]), found[7] or ''
if found[2] then
  local count = tonumber(ARGV[5])
  redis.call('XADD', records, (last + 1) .. '-0', 'k', count)
  skips = skips .. (last + 1) .. ' ' .. (last + count) .. ' '
  redis.call('HSET', state, 'skips', skips, 'last', last + count)
end
redis.call('PEXPIRE', state, ARGV[4])
redis.call('PEXPIRE', records, ARGV[4])
return {found[1], found[2] or '', last, fence, found[5] or '', found[6] and 1 or 0, skips, tonumber(found[8] or 0)}
"""
)
"""prefix, stream, ms of the lease, ms to keep, how many numbers to leave out -> entry, head, number of the last record,
the new fence, notes, whether to cancel, what is left out, how often it was handed over; nothing where somebody has it.
"""

READ = """
local records, from, most = ARGV[1] .. 'r:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local out, size = {}, 0
local behind = redis.call('XREVRANGE', records, from .. '-9', '0-2', 'COUNT', 1)
local start = behind[1] and behind[1][1] or from .. '-0'
while size < most do
  local found = redis.call('XRANGE', records, start, '+', 'COUNT', 16)
  for _, one in ipairs(found) do
    out[#out + 1] = one
    size = size + #one[2][2]
    if size >= most then break end
  end
  if #found < 16 then break end
  start = '(' .. out[#out][1]
end
return out
"""
"""prefix, stream, number, bytes -> entries from the one that holds that record on, about so many bytes."""

SWEEP = (
    _NOW
    + """
local prefix, keep, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not redis.call('SET', prefix .. 'swept', 1, 'NX', 'PX', 2000) then return 0 end
local function drop(stream)
  redis.call('DEL', prefix .. 's:' .. stream, prefix .. 'r:' .. stream)
  redis.call('HDEL', prefix .. 'sizes', stream)
  redis.call('ZREM', prefix .. 'done', stream)
end
local gone = redis.call('ZRANGEBYSCORE', prefix .. 'done', '-inf', now - keep, 'LIMIT', 0, 256)
for _, stream in ipairs(gone) do drop(stream) end
local total = 0
for _, size in ipairs(redis.call('HVALS', prefix .. 'sizes')) do total = total + tonumber(size) end
local dropped = #gone
while total > most do
  local oldest = redis.call('ZRANGE', prefix .. 'done', 0, 0)[1]
  if not oldest then break end
  total = total - tonumber(redis.call('HGET', prefix .. 'sizes', oldest) or 0)
  drop(oldest)
  dropped = dropped + 1
end
return dropped
"""
)
"""prefix, ms to keep, most bytes of all -> how many were dropped: the old ones, and the oldest where it is too much."""

SIGNING = """
redis.call('SET', ARGV[1] .. 'secret', ARGV[2], 'NX')
return redis.call('GET', ARGV[1] .. 'secret')
"""
"""prefix, a secret -> the one that all have."""

CANCEL = """
if redis.call('EXISTS', ARGV[1] .. 's:' .. ARGV[2]) == 1 then
  redis.call('HSET', ARGV[1] .. 's:' .. ARGV[2], 'cancel', 1)
end
return 1
"""
"""prefix, stream."""

HEARD = (
    _NOW
    + """
local count = 0
for _, node in ipairs(redis.call('ZRANGEBYSCORE', ARGV[1] .. 'p:' .. ARGV[2], now, '+inf')) do
  if node ~= ARGV[3] then count = count + 1 end
end
return count
"""
)
"""prefix, stream, node -> how many other nodes have readers of it."""

WAKE = """
local key = ARGV[1] .. 'w:' .. ARGV[2]
redis.call('XADD', key, 'MAXLEN', 1, '*', 'w', 1)
redis.call('PEXPIRE', key, 60000)
return 1
"""
"""prefix, node. Its own stream: its follower is to look at what it follows."""

FIND = """
local state = ARGV[1] .. 's:' .. ARGV[2]
return redis.call('HMGET', state, 'entry', 'head', 'last', 'ending', 'fence', 'skips')
"""
"""prefix, stream."""

ALL = (
    BEGIN,
    START,
    APPEND,
    RENEW,
    END,
    RELEASE,
    DUE,
    TAKE,
    READ,
    SWEEP,
    SIGNING,
    CANCEL,
    HEARD,
    WAKE,
    FIND,
)
