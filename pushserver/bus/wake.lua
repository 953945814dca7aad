-- Make users due now. One that a living claim holds is remembered, and becomes due when that claim completes.
--
-- KEYS  due, leases, wakes (one shard, one slot)
-- ARGV  users
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
for _, user in ipairs(ARGV) do
  local score = tonumber(redis.call('ZSCORE', KEYS[1], user) or '0')
  if score > now and redis.call('HEXISTS', KEYS[2], user) == 1 then
    redis.call('SADD', KEYS[3], user)
  else
    redis.call('ZADD', KEYS[1], 'LT', now, user)
  end
end
return 1
