-- Compare, store and publish one fetched state of one user's type, in one step: there is no moment in which it is
-- stored but not sent, or sent but not stored.
--
-- KEYS  state hash, channel, fence of the user's rounds, bases hash, channel of the bases (one slot)
-- ARGV  digest, as_of ms, committer's time ms, head, tail, time to live s, fence or '', type, base or ''
-- Returns {result, seq, listeners, freshness last told}; result: published, unchanged, stale
local state = redis.call('HMGET', KEYS[1], 'digest', 'confirmed', 'seq', 'status', 'as_of')
local as_of = tonumber(ARGV[2])
local confirmed = tonumber(state[2] or '0')
local last = tonumber(state[3] or '0')
local told = state[4] or 'live'

-- A round that is not the newest one, or that began before Redis lost its memory, may hold old answers.
local fenced = ARGV[7] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[7]
if fenced or as_of < confirmed then
  return {'stale', string.format('%.0f', last), 0, told}
end

if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[4], ARGV[8], ARGV[9])
  redis.call('EXPIRE', KEYS[4], ARGV[6])
end
local result, seq, listeners = 'unchanged', string.format('%.0f', last), 0
if state[1] == ARGV[1] then
  -- The same data, seen later: a slower answer from before this moment must not replace it any more.
  redis.call('HSET', KEYS[1], 'confirmed', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[6])
else
  result = 'published'
  seq, listeners = publish_state(KEYS[1], KEYS[2], last, {digest = ARGV[1], head = ARGV[4], tail = ARGV[5]},
    as_of, tonumber(state[5] or '0'), ARGV[2], ARGV[3], ARGV[6])
end
if ARGV[9] ~= '' then
  redis.call('SPUBLISH', KEYS[5], ARGV[8] .. '\n' .. ARGV[9])
end
return {result, seq, listeners, told}
