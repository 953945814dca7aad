-- What the schedule and the homes know of one user.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  user
-- Returns {now ms, due ms or '', lease or '', wake or '', home's end ms or '', home's token or '', live bits or ''}
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
return {
  string.format('%.0f', now),
  redis.call('ZSCORE', KEYS[1], ARGV[1]) or '',
  redis.call('HGET', KEYS[2], ARGV[1]) or '',
  redis.call('HGET', KEYS[3], ARGV[1]) or '',
  redis.call('ZSCORE', KEYS[4], ARGV[1]) or '',
  redis.call('HGET', KEYS[5], ARGV[1]) or '',
  redis.call('HGET', KEYS[6], ARGV[1]) or '',
}
