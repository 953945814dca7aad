-- Compare, store and publish one state of one user's type, in one step: there is no moment in which it is stored
-- but not sent, or sent but not stored.
--
-- KEYS[1] state hash   KEYS[2] channel (same slot)
-- ARGV    digest, as_of ms, committer's time ms, head, tail, time to live s
-- Returns {result, seq, listeners, freshness last told}; result: published, unchanged, stale
local state = redis.call('HMGET', KEYS[1], 'digest', 'confirmed', 'seq', 'status')
local as_of = tonumber(ARGV[2])
local confirmed = tonumber(state[2] or '0')
local last = tonumber(state[3] or '0')
local told = state[4] or 'live'

if as_of < confirmed then
  return {'stale', string.format('%.0f', last), 0, told}
end
if state[1] == ARGV[1] then
  -- The same data, seen later: a slower answer from before this moment must not replace it any more.
  redis.call('HSET', KEYS[1], 'confirmed', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[6])
  return {'unchanged', string.format('%.0f', last), 0, told}
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- The committer's clock counts where Redis's is behind, but one that runs far ahead must not poison the floor.
local committer = math.min(tonumber(ARGV[3]), now + 50000)
local seq = string.format('%.0f', math.max(last + 1, now, committer))
local frame = ARGV[4] .. seq .. ARGV[5]
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'as_of', ARGV[2], 'confirmed', ARGV[2], 'seq', seq, 'frame', frame)
redis.call('EXPIRE', KEYS[1], ARGV[6])
local listeners = redis.call('SPUBLISH', KEYS[2], 'u ' .. seq .. ' ' .. ARGV[3] .. '\n' .. frame)
return {'published', seq, listeners, told}
