-- Put in front of the scripts that commit: stores and publishes one state, in one step.
--
-- ``told`` is the ``as_of`` that phones see, which never goes back; ``confirmed`` the one later answers are judged by.
-- Returns the new seq and how many web workers were sent it.
local function publish_state(key, channel, last, update, as_of, told, confirmed, committed_ms, ttl)
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  -- The committer's clock counts where Redis's is behind, but one that runs far ahead must not poison the floor.
  local committer = math.min(tonumber(committed_ms), now + 50000)
  local seq = string.format('%.0f', math.max(last + 1, now, committer))
  local shown, tail = string.format('%.0f', math.max(as_of, told)), update.tail
  if told > as_of then
    tail = string.gsub(tail, '"as_of":%d+', '"as_of":' .. shown)
  end
  local frame = update.head .. seq .. tail
  redis.call('HSET', key, 'digest', update.digest, 'as_of', shown, 'confirmed', confirmed, 'seq', seq, 'frame', frame)
  redis.call('EXPIRE', key, ttl)
  return seq, redis.call('SPUBLISH', channel, 'u ' .. seq .. ' ' .. committed_ms .. '\n' .. frame)
end
