-- Begin a round of one user: from now on only what carries its fence may commit answers or tell freshness. What an
-- older round still holds was asked before; after a loss of Redis's memory nobody's fence is known, and none passes.
--
-- A script, because PUBSUB names no key: in a cluster any node would answer it, but only the owner of the slot knows
-- the listeners, and it alone runs a script on that slot.
--
-- KEYS  fence of the user's rounds, then channels (one slot)
-- ARGV  fence, time to live s
-- Returns {channel, listeners, channel, listeners, …}
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return redis.call('PUBSUB', 'SHARDNUMSUB', unpack(KEYS, 2))
