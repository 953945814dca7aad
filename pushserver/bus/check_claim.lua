-- Take keys whose check is due; one that is neither placed again nor removed is due again when the lease ends.
--
-- KEYS  health-due (one shard)
-- ARGV  limit, lease ms
-- Returns the keys, the longest overdue first.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, key in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), key)
end
return due
