-- Take users that are due; each is held under the caller's token until the lease ends.
--
-- KEYS  due, leases, wakes (one shard, one slot)
-- ARGV  limit, lease ms, token
-- Returns {now ms, user, overdue ms, user, overdue ms, …}, the longest overdue first.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local answer = {string.format('%.0f', now)}
for i = 1, #due, 2 do
  local user = due[i]
  -- The score of a held user is the end of its lease: whoever died holding it loses it by doing nothing.
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), user)
  redis.call('HSET', KEYS[2], user, ARGV[3])
  redis.call('SREM', KEYS[3], user)
  answer[#answer + 1] = user
  answer[#answer + 1] = string.format('%.0f', now - tonumber(due[i + 1]))
end
return answer
