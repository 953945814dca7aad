-- The failed attempts of one subject, and the lock that they earn.
-- KEYS[1] the subject's hash. ARGV: what to do, free failures, longest lock in ms, seconds until all is forgotten.
--   look  only say how long to wait
--   try   refuse while locked, else count the attempt as failed until it is taken back
--   fail  count a failure, locked or not
-- Returns the milliseconds to wait, 0 if the attempt may be made.
local action = ARGV[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local wait_ms = tonumber(redis.call('HGET', KEYS[1], 'locked_until_ms') or '0') - now_ms
if action == 'look' or (action == 'try' and wait_ms > 0) then
  return math.max(wait_ms, 0)
end
local beyond = redis.call('HINCRBY', KEYS[1], 'failures', 1) - tonumber(ARGV[2])
if beyond >= 0 then
  local lock_ms = math.min(1000 * 2 ^ math.min(beyond, 30), tonumber(ARGV[3]))
  redis.call('HSET', KEYS[1], 'locked_until_ms', string.format('%d', now_ms + lock_ms))
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 0
