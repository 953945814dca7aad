-- Add users that are not in the schedule; those that are stay as they are.
--
-- KEYS  due (one shard)
-- ARGV  user, first due in ms, user, first due in ms, …
-- Returns how many were added.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local added = 0
for i = 1, #ARGV, 2 do
  added = added + redis.call('ZADD', KEYS[1], 'NX', now + tonumber(ARGV[i + 1]), ARGV[i])
end
return added
