-- KEYS[1] state hash   ARGV: seq already delivered, time to live s
local last = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
if last >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'seq', ARGV[1])
redis.call('HDEL', KEYS[1], 'digest', 'frame')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
