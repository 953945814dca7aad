-- One request was refused as if the whole address were banned: one process finds out, everybody else waits for it.
--
-- KEYS  pause hash, probe key (one slot)
-- ARGV  code, how long one prober has ms
-- Returns 1 for the one that may find out; 0 when there is a pause already, or somebody finds out.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- A pause that is over at once: should the prober die, another one follows when its time is up.
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now), 'code', ARGV[1])
redis.call('PEXPIRE', KEYS[1], 86400000)
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return 1
