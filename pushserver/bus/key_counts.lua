-- How many users' keys end when, and what they could do. Users who were not checked for long are forgotten.
--
-- KEYS  health-checked, health-expiry, health-trade, health-withdraw (one shard, one slot)
-- ARGV  forgotten after s, most to forget at once, score of a key that never ends, upper ends in days (ascending)
-- Returns {expired, up to the first end, …, later, never, can trade, can withdraw}
local now = tonumber(redis.call('TIME')[1])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
for _, user in ipairs(old) do
  redis.call('ZREM', KEYS[1], user)
  redis.call('ZREM', KEYS[2], user)
  redis.call('SREM', KEYS[3], user)
  redis.call('SREM', KEYS[4], user)
end
local counts = {redis.call('ZCOUNT', KEYS[2], '-inf', now)}
local from = now
for i = 4, #ARGV do
  local to = now + tonumber(ARGV[i]) * 86400
  counts[#counts + 1] = redis.call('ZCOUNT', KEYS[2], '(' .. from, to)
  from = to
end
counts[#counts + 1] = redis.call('ZCOUNT', KEYS[2], '(' .. from, '(' .. ARGV[3])
counts[#counts + 1] = redis.call('ZCOUNT', KEYS[2], ARGV[3], '+inf')
counts[#counts + 1] = redis.call('SCARD', KEYS[3])
counts[#counts + 1] = redis.call('SCARD', KEYS[4])
return counts
