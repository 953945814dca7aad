-- Count one user's key by what is known of it now.
--
-- KEYS  health-checked, health-expiry, health-trade, health-withdraw (one shard, one slot)
-- ARGV  user, 'forget' or the Unix second at which the key ends, can trade (0 or 1), can withdraw (0 or 1)
if ARGV[2] == 'forget' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
end
redis.call(ARGV[3] == '1' and 'SADD' or 'SREM', KEYS[3], ARGV[1])
redis.call(ARGV[4] == '1' and 'SADD' or 'SREM', KEYS[4], ARGV[1])
return 1
