-- One attempt of one subject: refused while a lock stands, else counted as failed until it is taken back.
-- KEYS[1] the subject's hash. ARGV: free failures, longest lock in ms, seconds until all is forgotten.
-- Returns the milliseconds to wait, 0 if the attempt may be made.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local locked_until_ms = tonumber(redis.call('HGET', KEYS[1], 'locked_until_ms') or '0')
if locked_until_ms > now_ms then
  return locked_until_ms - now_ms
end
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
local beyond = failures - tonumber(ARGV[1])
if beyond >= 0 then
  local lock_ms = math.min(1000 * 2 ^ math.min(beyond, 30), tonumber(ARGV[2]))
  redis.call('HSET', KEYS[1], 'locked_until_ms', string.format('%d', now_ms + lock_ms))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
