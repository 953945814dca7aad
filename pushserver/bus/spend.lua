-- Pay for requests that will leave one egress address: the gate of its pauses and its budget in one step.
-- Why no window ever holds more than is allowed is shown in budgets.py.
--
-- KEYS  budget hash, pause hash, probe key (one slot)
-- ARGV  1 cost of one request us, 2 capacity us, 3 how far ahead may be reserved us, 4 how far ahead it can be
--       reserved at all us, 5 pause of an unknown budget us, 6 length of the window us,
--       7 Redis's time of the caller's last grant us (0: none), 8 what was spent then us, 9 at most so long ago us,
--       10 how long the caller may probe ms (0: not at all), 11 pause known to the caller ms (0: none), 12 its code,
--       13 requests sent without being paid for, 14 1: asked again after 'unsure',
--       then the sizes of the payments wanted, in order
-- Returns {verdict, now us, …}:
--   'open',   now, spent until us, us until more is worth asking, requests in the last whole window, us until each
--             payment may be used, …: a prefix of what was wanted
--   'paused', now, ms left, until ms, code
--   'probe',  now, 0, until ms, code: the caller alone may ask one thing
--   'unsure': nothing was done, ask again
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now / 1000)
local cost, capacity, horizon, ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local unknown, window = tonumber(ARGV[5]), tonumber(ARGV[6])
local granted_at, granted_to, granted_ago = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local function text(number)
  return string.format('%.0f', number)
end

local row = redis.call('HMGET', KEYS[1], 'spent', 'opens', 'slow', 'window', 'used', 'before')
local spent, opens, slow = tonumber(row[1]), tonumber(row[2] or '0'), tonumber(row[3] or '0')
-- The most that a budget can ever have been spent ahead: true or too much, and hence always safe to believe.
local worst = now + ahead
local lived = granted_at > 0
if not spent then
  -- Redis has lost it. Who was granted requests lately knows that all was well until then.
  spent = worst
  if not lived then
    opens = now + unknown
    spent = unknown > 0 and opens or now + capacity
  end
elseif lived and opens > now then
  -- Somebody who knew nothing came first after the loss.
  opens, spent = 0, worst
elseif lived and now - granted_at > granted_ago + 500000 then
  -- Redis's clock was put forward: what looks refilled is not. Or the question was under way for long: then not the
  -- next one as well.
  if ARGV[14] ~= '1' then
    return {'unsure'}
  end
  spent = worst
elseif opens <= now then
  -- A master that lacks the last writes learns them from us; a clock that was put back must not silence us.
  spent = math.min(math.max(spent, granted_to), worst)
end
opens = math.min(opens, now + unknown)
slow = math.min(slow, now + window)
local price = now < slow and cost * 2 or cost

local number, used, before = math.floor(now / window), tonumber(row[5] or '0'), tonumber(row[6] or '0')
if row[4] ~= text(number) then
  before = row[4] == text(number - 1) and used or 0
  used = 0
end

local function charge(count)
  spent = math.max(spent, now) + count * price
  used = used + count
end

local function keep()
  redis.call('HSET', KEYS[1], 'spent', text(spent), 'opens', text(opens), 'slow', text(slow),
    'window', text(number), 'used', used, 'before', before)
  redis.call('EXPIRE', KEYS[1], 2592000)
end

if tonumber(ARGV[13]) > 0 then
  charge(tonumber(ARGV[13]))
end

local pause = redis.call('HMGET', KEYS[2], 'until', 'code')
local own = tonumber(ARGV[11])
if own > 0 and (not pause[1] or tonumber(pause[1]) + 1000 < now_ms + own) then
  pause = {text(now_ms + own), ARGV[12]}
  redis.call('HSET', KEYS[2], 'until', pause[1], 'code', pause[2])
  redis.call('PEXPIRE', KEYS[2], own + 86400000)
end
if pause[1] then
  local left = tonumber(pause[1]) - now_ms
  local verdict = 'paused'
  if left <= 0 then
    left = 1000
    if tonumber(ARGV[10]) > 0 and opens <= now and spent + cost - capacity <= now
        and redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[10]) then
      verdict, left = 'probe', 0
      charge(1)
    end
  end
  keep()
  return {verdict, text(now), text(left), pause[1], pause[2]}
end

local delays = {}
if opens <= now then
  for i = 15, #ARGV do
    -- The same for every size, or small payments would always find a gap before large ones.
    if math.max(spent, now) + price - capacity - now > horizon then
      break
    end
    charge(tonumber(ARGV[i]))
    delays[#delays + 1] = text(math.max(0, spent - capacity - now))
  end
end
keep()
local again = math.max(opens - now, math.max(spent, now) + price - capacity - now - horizon, 0)
local answer = {'open', text(now), text(spent), text(again), before}
for i = 1, #delays do
  answer[#answer + 1] = delays[i]
end
return answer
