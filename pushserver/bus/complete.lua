-- Give a held user back, fenced by the token: a claim whose lease went to another changes nothing.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  user, token, then next due in ms, or 'again': nothing was done, due now with the hints it had,
--       or 'drop': forget it, and its home
-- Returns 1, or 0 when the lease is no longer the caller's. A user woken meanwhile is due at once.
local held = redis.call('HGET', KEYS[2], ARGV[1])
local token, hints = string.match(held or '', '^(%S+) ?(%d*)$')
if token ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local woken = redis.call('HGET', KEYS[3], ARGV[1])
if woken then
  local since, head = string.match(woken, '^(%d+) (%d+) ')
  redis.call('ZADD', KEYS[1], tonumber(since) - tonumber(head), ARGV[1])
elseif ARGV[3] == 'drop' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('HDEL', KEYS[5], ARGV[1])
  redis.call('HDEL', KEYS[6], ARGV[1])
elseif ARGV[3] == 'again' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
end
if ARGV[3] == 'again' and hints ~= '' then
  wake_one(KEYS[1], KEYS[2], KEYS[3], ARGV[1], now, 0, tonumber(hints))
end
return 1
