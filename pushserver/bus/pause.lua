-- Pause an egress address; a pause only ever grows.
--
-- KEYS  pause hash, probe key (one slot)
-- ARGV  pause ms, code
-- Returns {1 when it grew, until ms, code}
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local ends = now + tonumber(ARGV[1])
local known = redis.call('HMGET', KEYS[1], 'until', 'code')
redis.call('DEL', KEYS[2])
-- One that is over (or only a suspicion) does not count, however short the new one is.
if known[1] and tonumber(known[1]) > now and tonumber(known[1]) + 1000 >= ends then
  return {0, known[1], known[2]}
end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ends), 'code', ARGV[2])
-- Kept well beyond its end: until somebody has probed the exchange, nobody else asks.
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[1]) + 86400000)
return {1, string.format('%.0f', ends), ARGV[2]}
