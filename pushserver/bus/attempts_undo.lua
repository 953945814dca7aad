-- Take back one attempt that was counted but was no failure, and the lock that it alone caused.
-- KEYS[1] the subject's hash.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HINCRBY', KEYS[1], 'failures', -1) <= 0 then
    redis.call('DEL', KEYS[1])
  else
    redis.call('HDEL', KEYS[1], 'locked_until_ms')
  end
end
return 0
