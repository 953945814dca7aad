-- Store and publish the freshness of one user's type, only when it changed.
--
-- KEYS[1] state hash   KEYS[2] channel   KEYS[3] fence of the user's rounds (one slot)
-- ARGV    state, reason, until ms or '', frame, time to live s, fence or ''
-- Returns 1 when it changed. Without a status it did: phones may have been told one before Redis lost its memory.
if ARGV[6] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[6] then
  return 0
end
local old = redis.call('HMGET', KEYS[1], 'status', 'reason', 'until')
local state = old[1]
if state == ARGV[1] and (state == 'live' or (old[2] == ARGV[2] and old[3] == ARGV[3])) then
  return 0
end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'reason', ARGV[2], 'until', ARGV[3], 'status_frame', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('SPUBLISH', KEYS[2], 's ' .. ARGV[1] .. ' ' .. ARGV[2] .. '\n' .. ARGV[4])
return 1
