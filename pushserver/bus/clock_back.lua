-- Put in front of claim.lua: what was written by a clock that was ahead of Redis's is put back with it, or its users
-- would not be due, and its dead homes would count as living, until time catches up.

local CLOCK_STEP_MS = 1000

local function put_clock_back(due, wakes, homes, seen_key, now)
  local seen = tonumber(redis.call('GET', seen_key) or '0')
  local back = seen - now
  if back > CLOCK_STEP_MS then
    -- What a clock ahead for a moment only has not touched is right as it is, or due now at the worst.
    for _, set in ipairs({due, homes}) do
      local rows = redis.call('ZRANGEBYSCORE', set, string.format('(%.0f', now), '+inf', 'WITHSCORES')
      for i = 1, #rows, 2 do
        local score = tonumber(rows[i + 1]) - back
        if score < now and redis.call('HEXISTS', wakes, rows[i]) == 0 then
          score = now
        end
        redis.call('ZADD', set, score, rows[i])
      end
    end
    local woken = redis.call('HGETALL', wakes)
    for i = 1, #woken, 2 do
      local since, rest = string.match(woken[i + 1], '^(%d+)( %d+ %d+)$')
      if tonumber(since) > now then
        redis.call('HSET', wakes, woken[i], string.format('%.0f', math.min(now, tonumber(since) - back)) .. rest)
      end
    end
  end
  if now ~= seen then
    redis.call('SET', seen_key, string.format('%.0f', now))
  end
end
