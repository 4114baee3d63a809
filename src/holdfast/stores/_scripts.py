"""The decisions that Redis makes, one script each: it runs a script whole, and nothing of another comes between.

Time is the server's own (`TIME`), so processes whose clocks differ still agree. Every key expires: what nobody has
asked for in a while was as good as full, free or forgotten anyway.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

TAKE = (
    _NOW
    + """
local amount, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local was = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(was[1]) or burst, tonumber(was[2]) or now
left = math.min(burst, left + math.max(0, now - at) * rate)
local needed = math.min(amount, burst)
local wait = 0
if left >= needed or ARGV[5] == '1' then
  left = math.min(burst, left - amount)
  if rate > 0 then
    left = math.max(left, -rate * tonumber(ARGV[6]))
  end
elseif rate > 0 then
  wait = (needed - left) / rate
else
  wait = -1
end
redis.call('HSET', KEYS[1], 'left', tostring(left), 'at', tostring(now))
if rate > 0 then
  redis.call('EXPIRE', KEYS[1], math.min(math.ceil((burst - left) / rate) + 60, 2592000))
elseif ARGV[4] ~= '' then
  redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[4])))
end
return tostring(wait)
"""
)
"""bucket; amount, rate, burst, seconds to keep one that never refills, 1: in any case, seconds of the largest debt ->
seconds to wait, 0 when taken, -1 for ever.

When it was is written as the present time even where that is before what was written: a clock that was set back must
not keep the bucket from refilling until it has caught up.
"""

HOLD = (
    _NOW
    + """
local holder, places, seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], holder) and redis.call('ZCARD', KEYS[1]) >= places then
  return 0
end
redis.call('ZADD', KEYS[1], now + seconds, holder)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], math.ceil((tonumber(last[2]) - now) * 1000) + 1000)
return 1
"""
)
"""places; holder, how many places, seconds -> 1 when held."""

LOOK = (
    _NOW
    + """
local was = redis.call('HMGET', KEYS[1], 'state', 'counter', 'successes', 'opened')
local opened = tonumber(was[4])
return {was[1] or '', was[2] or '0', was[3] or '0', was[4] or '', tostring(opened and now - opened or 0)}
"""
)
"""breaker -> its state, both counters, when it opened, seconds since then."""

OPEN = (
    _NOW
    + """
redis.call('HSET', KEYS[1], 'opened', string.format('%.6f', now - tonumber(ARGV[1])))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]))
"""
)
"""breaker; seconds since it opened, seconds to keep it."""

HALF_OPEN = """
if redis.call('HGET', KEYS[1], 'opened') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'half-open')
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]))
return 1
"""
"""breaker; when it opened as the asker knows it -> 1 unless it has opened anew since then."""
