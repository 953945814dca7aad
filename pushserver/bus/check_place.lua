-- Say when keys are to be checked.
--
-- KEYS  health-due (one shard)
-- ARGV  'NX' (only those that are not there) or 'XX' (only those that are), key, in ms, key, in ms, …
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
for i = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[1], now + tonumber(ARGV[i + 1]), ARGV[i])
end
return 1
