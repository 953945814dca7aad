-- Make users due now. One that a living claim holds is remembered, and becomes due when that claim completes.
--
-- KEYS  due, leases, wakes (one shard, one slot)
-- ARGV  head start ms, hints, then users
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
for i = 3, #ARGV do
  wake_one(KEYS[1], KEYS[2], KEYS[3], ARGV[i], now, tonumber(ARGV[1]), tonumber(ARGV[2]))
end
return 1
