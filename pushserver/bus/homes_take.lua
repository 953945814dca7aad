-- Become the home of scheduled users that have none.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  lease ms, holder, then users
-- Returns the users taken; those that were the holder's before are among them.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local taken = {}
for i = 3, #ARGV do
  local user = ARGV[i]
  local ends = tonumber(redis.call('ZSCORE', KEYS[4], user) or '0')
  local free = ends <= now or redis.call('HGET', KEYS[5], user) == ARGV[2]
  if free and redis.call('ZSCORE', KEYS[1], user) then
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), user)
    redis.call('HSET', KEYS[5], user, ARGV[2])
    redis.call('HSET', KEYS[6], user, '0')
    taken[#taken + 1] = user
  end
end
return taken
