--- Records what attempts decided. Each item carries its lease's token and is refused if that is not the current one.
--- transitions: active>completed active>failed active>cancelled active>scheduled active>pending
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max keep_completed_ms keep_failed_ms keep_cancelled_ms count
--- rest: per item: id token decision delay_us result error usage lane requirement record ('' where there is none)
--- returns: {now, then per item code, status}
--- codes: 1 recorded, 0 the same outcome was recorded before, -1 the lease is lost

-- decision: completed, failed, cancelled, retry (after delay_us), release (the attempt does not count)
local now = clock()
local reply = { us(now) }
local at = rest

local function set(fields, name, value)
  if value ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

local function decide(id, facts, decision, delay_us, fields)
  if facts.cancel and (decision == 'retry' or decision == 'release') then
    decision = 'cancelled'
  end
  if decision == 'retry' or decision == 'release' then
    local attempt = facts.attempt
    if decision == 'release' then
      attempt = attempt - 1
    end
    set(fields, 'attempt', tostring(attempt))
    redis.call('HSET', prefix .. 'jobs:' .. id, unpack(fields))
    release_slot(id, facts.customer, now)
    return put_back(id, facts, delay_us, now), decision == 'retry' and 'retried' or 'released'
  end
  set(fields, 'status', decision)
  set(fields, 'finished_at', us(now))
  redis.call('HSET', prefix .. 'jobs:' .. id, unpack(fields))
  release_slot(id, facts.customer, now)
  return decision, decision
end

for _ = 1, tonumber(count) do
  local id, token, decision, delay_us = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local result, err, usage = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local lane, requirement, record = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local facts = facts_of(id)
  local ends = facts and facts.status == 'active' and redis.call('ZSCORE', active_key, id)
  if not facts or facts.token ~= token or (ends and tonumber(ends) < now) then
    reply[#reply + 1] = -1
    reply[#reply + 1] = facts and facts.status or ''
  elseif facts.status ~= 'active' then
    reply[#reply + 1] = 0
    reply[#reply + 1] = facts.status
  else
    local fields = {}
    set(fields, 'result', result)
    set(fields, 'error', err)
    set(fields, 'usage', usage)
    if lane ~= '' then
      set(fields, 'lane', lane)
      set(fields, 'requirement', requirement)
      facts.lane, facts.requirement = lane, requirement
    end
    if decision == 'completed' then
      set(fields, 'progress', '100')
      redis.call('HDEL', prefix .. 'jobs:' .. id, 'error')
    end
    local status, name = decide(id, facts, decision, delay_us, fields)
    emit(id, name, now, ',"status":"' .. status .. '","attempt":' .. facts.attempt .. record
      .. (err ~= '' and (',"error":' .. err) or ''))
    if status == 'completed' or status == 'failed' or status == 'cancelled' then
      settle(id, status, now)
    end
    reply[#reply + 1] = 1
    reply[#reply + 1] = status
  end
  at = at + 10
end

return reply
