-- End homes: those of a holder that says so, or those whose lease is over. Their users are due now, because what
-- the home kept fresh was asked for rarely.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits (one shard, one slot)
-- ARGV  holder, then users; or nothing: all whose lease is over, some hundreds at a time
-- Returns how many homes ended.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local ended = 0

local function finish(user)
  redis.call('ZREM', KEYS[4], user)
  redis.call('HDEL', KEYS[5], user)
  redis.call('HDEL', KEYS[6], user)
  if redis.call('ZSCORE', KEYS[1], user) then
    wake_one(KEYS[1], KEYS[2], KEYS[3], user, now, 0, 0)
  end
  ended = ended + 1
end

if #ARGV == 0 then
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 500)) do
    finish(user)
  end
else
  for i = 2, #ARGV do
    if redis.call('HGET', KEYS[5], ARGV[i]) == ARGV[1] then
      finish(ARGV[i])
    end
  end
end
return ended
