-- Prolong the leases of a home, and say what it keeps fresh.
--
-- A home that was swept, or that Redis forgot, is taken back as long as nobody else has it and the user is scheduled.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  lease ms, holder, then user, live bits, user, live bits, …
-- Returns {users that another holds, users that have no home because they are not scheduled}
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local lost, unscheduled = {}, {}
for i = 3, #ARGV, 2 do
  local user = ARGV[i]
  local holder = redis.call('HGET', KEYS[5], user)
  if holder and holder ~= ARGV[2] then
    lost[#lost + 1] = user
  elseif not holder and not redis.call('ZSCORE', KEYS[1], user) then
    unscheduled[#unscheduled + 1] = user
  else
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), user)
    redis.call('HSET', KEYS[5], user, ARGV[2])
    redis.call('HSET', KEYS[6], user, ARGV[i + 1])
  end
end
return {lost, unscheduled}
