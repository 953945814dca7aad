-- Give a held user back, fenced by the token: a claim whose lease went to another changes nothing.
--
-- KEYS  due, leases, wakes (one shard, one slot)
-- ARGV  user, token, next due in ms or 'drop'
-- Returns 1, or 0 when the lease is no longer the caller's. A user woken meanwhile is due at once.
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
if redis.call('SREM', KEYS[3], ARGV[1]) == 1 then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
elseif ARGV[3] == 'drop' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
end
return 1
