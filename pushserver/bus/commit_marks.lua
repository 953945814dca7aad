-- Bring fetched states of one user up to newer mark prices, each in one step as commit.lua does.
--
-- Such a state stands on a base, the answer it was computed from: it is taken only while that very answer is what was
-- fetched last, and never after a state with newer marks. What it says does not count as fetched.
--
-- KEYS  state hash, channel, for each type (one slot)
-- ARGV  as_of ms of the marks, committer's time ms, time to live s, then for each type: as_of ms of its base, digest,
--       head, tail
-- Returns {{result, seq, listeners, freshness last told}, …}
local answers = {}
local time = redis.call('TIME')
-- A stamp far ahead would stay: no later answer could be shown as newer.
local is_ahead = tonumber(ARGV[1]) > tonumber(time[1]) * 1000 + 60000
for i = 1, #KEYS, 2 do
  local own = 4 + (i - 1) * 2
  local state = redis.call('HMGET', KEYS[i], 'digest', 'confirmed', 'seq', 'status', 'as_of')
  local last, as_of, shown = tonumber(state[3] or '0'), tonumber(ARGV[1]), tonumber(state[5] or '0')
  local result, seq, listeners = 'unchanged', string.format('%.0f', last), 0
  if state[2] ~= ARGV[own] or as_of < shown or is_ahead then
    result = 'stale'
  elseif state[1] ~= ARGV[own + 1] then
    result = 'published'
    seq, listeners = publish_state(KEYS[i], KEYS[i + 1], last,
      {digest = ARGV[own + 1], head = ARGV[own + 2], tail = ARGV[own + 3]},
      as_of, shown, state[2], ARGV[2], ARGV[3])
  end
  answers[#answers + 1] = {result, seq, listeners, state[4] or 'live'}
end
return answers
