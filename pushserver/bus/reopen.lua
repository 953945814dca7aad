-- The exchange answers again: everybody behind the address may ask.
--
-- KEYS  budget hash, pause hash, probe key (one slot)
-- ARGV  capacity us, for how long requests cost twice as much us (0: not at all)
if tonumber(ARGV[2]) > 0 then
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local spent = math.max(tonumber(redis.call('HGET', KEYS[1], 'spent') or '0'), now + tonumber(ARGV[1]))
  redis.call('HSET', KEYS[1], 'spent', string.format('%.0f', spent), 'slow',
    string.format('%.0f', now + tonumber(ARGV[2])))
end
redis.call('DEL', KEYS[2], KEYS[3])
return 1
