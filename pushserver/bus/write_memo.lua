-- Keep what the user's newest round learned. An older round, or one that began before Redis lost its memory and
-- its clock, would leave times behind that nobody else knows.
--
-- KEYS  memo, fence of the user's rounds (one slot)
-- ARGV  memo, time to live s, fence or ''
-- Returns 1, or 0 when it is not the newest round's
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
