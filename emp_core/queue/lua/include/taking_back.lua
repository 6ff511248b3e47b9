--- Jobs that were handed to workers which did not say that they have them.
--- keys: handed idle
--- argv: prefix

-- Puts such a job back as if it had waited all the time: the attempt does not count. entry: its member of the index.
local function take_back(entry, now)
  redis.call('ZREM', handed_key, entry)
  local id, token = string.match(entry, '^(%S+) (%S+)$')
  local facts = facts_of(id)
  if not facts or facts.status ~= 'active' or facts.token ~= token then
    return
  end
  local job = prefix .. 'jobs:' .. id
  -- The worker may be dead: it is handed nothing more until it claims. One that registered anew does not know of this job.
  local unheard = redis.call('HGET', prefix .. 'worker:' .. (facts.worker or '') .. ':claim', 'handed')
  if unheard and string.find(unheard, entry, 1, true) then
    redis.call('ZREM', idle_key, facts.worker)
  end
  redis.call('HDEL', job, 'token', 'attempt')
  redis.call('HINCRBY', job, 'returned', 1)
  leave_active(id, facts.customer)
  if facts.cancel then
    settle_cancelled(id, facts, '', now)
  else
    put_back(id, facts, 0, now)
    local by = ',"worker":' .. cjson.encode(facts.worker or '') .. ',"attempt":' .. facts.attempt
    emit(id, 'released', now, ',"status":"pending"' .. by .. ',"reason":"the worker did not take it"', facts.watched)
  end
end
