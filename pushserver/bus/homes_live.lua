-- What the homes of users keep fresh.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  users
-- Returns their live bits in order, 0 where there is no home or its lease is over
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local homes = redis.call('ZMSCORE', KEYS[4], unpack(ARGV))
local live = redis.call('HMGET', KEYS[6], unpack(ARGV))
local answer = {}
for i = 1, #ARGV do
  local homed = homes[i] and tonumber(homes[i]) > now
  answer[i] = homed and tonumber(live[i] or '0') or 0
end
return answer
