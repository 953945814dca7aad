-- Store what is known of a user's exchange key, unless what is stored is of a newer key.
--
-- KEYS[1] the user's health hash
-- ARGV    key version, digest, body, checked at (wall ms), time to live s
-- Returns 1 when phones have something new to learn, else 0; -1 when the key was replaced meanwhile.
local old = redis.call('HMGET', KEYS[1], 'version', 'digest')
if old[1] and tonumber(old[1]) > tonumber(ARGV[1]) then
  return -1
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'digest', ARGV[2], 'body', ARGV[3], 'checked', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return old[2] == ARGV[2] and 0 or 1
