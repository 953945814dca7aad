-- How many web workers listen to each of a user's channels. A script, because PUBSUB names no key: in a cluster any
-- node would answer it, but only the owner of the slot knows the listeners, and it alone runs a script on that slot.
--
-- KEYS  channels (one slot)
-- Returns {channel, listeners, channel, listeners, …}
return redis.call('PUBSUB', 'SHARDNUMSUB', unpack(KEYS))
