-- Take users that are due; each is held under the caller's token until the lease ends.
--
-- KEYS  due, leases, wakes, homes, tokens of the homes, live bits, time last seen (one shard, one slot)
-- ARGV  limit, lease ms, token, and if only woken users are wanted: the least head start ms they were woken with
-- Returns {now ms, row, row, …}, the earliest due (head starts counted) first. A row:
-- {user, overdue ms, woken 0 or 1, hints, homeless 0 or 1, live bits, head start ms it was woken with}
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
put_clock_back(KEYS[1], KEYS[3], KEYS[4], KEYS[7], now)
local head_start = tonumber(ARGV[4] or '0')
local limit = math.min(tonumber(ARGV[1]), 2000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - head_start, 'WITHSCORES', 'LIMIT', 0, limit)
local answer = {string.format('%.0f', now)}
local users, scores, leases, deadlines = {}, {}, {}, {}
for i = 1, #due, 2 do
  -- Without a wake a user this early in the order is only very late, and waits like the others.
  if head_start == 0 or redis.call('HEXISTS', KEYS[3], due[i]) == 1 then
    users[#users + 1] = due[i]
    scores[#scores + 1] = due[i + 1]
  end
end
if #users == 0 then
  return answer
end

local held = redis.call('HMGET', KEYS[2], unpack(users))
local wakes = redis.call('HMGET', KEYS[3], unpack(users))
local homes = redis.call('ZMSCORE', KEYS[4], unpack(users))
local live = redis.call('HMGET', KEYS[6], unpack(users))
for i, user in ipairs(users) do
  local since, hints, woken, head = tonumber(scores[i]), 0, 0, 0
  if held[i] then
    -- Whoever held the user died with it; what it was to look at is not forgotten.
    hints = tonumber(string.match(held[i], ' (%d+)$') or '0')
  end
  if wakes[i] then
    local woken_since, woken_head, woken_hints = string.match(wakes[i], '^(%d+) (%d+) (%d+)$')
    since, head = tonumber(woken_since), tonumber(woken_head)
    hints = bit.bor(hints, tonumber(woken_hints))
    woken = 1
  end
  -- The score of a held user is the end of its lease: whoever died holding it loses it by doing nothing.
  deadlines[#deadlines + 1] = now + tonumber(ARGV[2])
  deadlines[#deadlines + 1] = user
  leases[#leases + 1] = user
  leases[#leases + 1] = hints > 0 and ARGV[3] .. ' ' .. hints or ARGV[3]
  local homed = homes[i] and tonumber(homes[i]) > now
  answer[#answer + 1] = {
    user, string.format('%.0f', math.max(0, now - since)), woken, hints,
    homed and 0 or 1, homed and tonumber(live[i] or '0') or 0, head,
  }
end
redis.call('ZADD', KEYS[1], unpack(deadlines))
redis.call('HSET', KEYS[2], unpack(leases))
redis.call('HDEL', KEYS[3], unpack(users))
return answer
