-- May a request be sent from this egress address now?
--
-- KEYS  pause hash, probe key (one slot)
-- ARGV  how long one prober has, ms
-- Returns {'open'}, {'paused', ms left, until ms, code} or {'probe', 0, until ms, code} for the one that may try.
local known = redis.call('HMGET', KEYS[1], 'until', 'code')
if not known[1] then
  return {'open'}
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local left = tonumber(known[1]) - now
if left > 0 then
  return {'paused', string.format('%.0f', left), known[1], known[2]}
end
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) then
  return {'probe', '0', known[1], known[2]}
end
return {'paused', '1000', known[1], known[2]}
