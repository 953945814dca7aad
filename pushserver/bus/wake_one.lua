-- Put in front of every script that wakes: makes one user due now, in front of others by its head start.
--
-- A wake is remembered as 'due since ms, head start ms, hints' until a claim takes it; of several the earliest, the
-- largest and all hints count. One that a living claim holds becomes due when that claim completes.
local function wake_one(due, leases, wakes, user, now, head, hints)
  local scheduled = redis.call('ZSCORE', due, user)
  local score = tonumber(scheduled or now)
  local since = math.min(now, score)
  -- Nothing is remembered of a user who is not scheduled: a crowd that connects at once takes few commands.
  local known = scheduled and redis.call('HGET', wakes, user)
  if known then
    local known_since, known_head, known_hints = string.match(known, '^(%d+) (%d+) (%d+)$')
    since = tonumber(known_since)
    head = math.max(head, tonumber(known_head))
    hints = bit.bor(hints, tonumber(known_hints))
  end
  local merged = string.format('%.0f %.0f %d', since, head, hints)
  if merged ~= known then
    redis.call('HSET', wakes, user, merged)
  end
  -- Who is as far in front already stays there.
  local in_front = scheduled and score <= now - head
  if not in_front and (score <= now or redis.call('HEXISTS', leases, user) == 0) then
    redis.call('ZADD', due, 'LT', now - head, user)
  end
end
