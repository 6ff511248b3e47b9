--- Records what attempts decided. Each item carries its lease's token and is refused if that is not the current one.
--- transitions: active>completed active>failed active>cancelled active>scheduled active>pending
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max count
--- rest: per item: a JSON list (id token decision delay_us error usage lane requirement record, '' where there is none; checkpoint, if there is one), result
--- returns: JSON [per item: code, status]
--- codes: 1 recorded, 0 the same outcome was recorded before, -1 the lease is lost

-- decision: completed, failed, cancelled, retry (after delay_us), release (the attempt does not count)
local now = clock()
local reply = {}

local items, ids = {}, {}
for i = 1, tonumber(count) do
  items[i] = cjson.decode(ARGV[rest + 2 * (i - 1)])
  ids[i] = items[i][1]
end
local lease_ends = count == '0' and {} or redis.call('ZMSCORE', active_key, unpack(ids))

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
  leave_active(id, facts.customer)
  if decision == 'retry' or decision == 'release' then
    set(fields, 'attempt', string.format('%d', decision == 'release' and facts.attempt - 1 or facts.attempt))
    redis.call('HSET', prefix .. 'jobs:' .. id, unpack(fields))
    if decision == 'release' then
      -- The next attempt has the same number, and must not have the same names for what it stores.
      redis.call('HINCRBY', prefix .. 'jobs:' .. id, 'returned', 1)
    end
    return put_back(id, facts, delay_us, now), decision == 'retry' and 'retried' or 'released'
  end
  redis.call('HSET', prefix .. 'jobs:' .. id, 'status', decision, 'finished_at', us(now), unpack(fields))
  settle(id, decision, facts, now)
  return decision, decision
end

for i, item in ipairs(items) do
  local id, token, decision, delay_us, err, usage, lane, requirement, record, checkpoint = unpack(item, 1, 10)
  local facts = facts_of(id)
  local ended = lease_ends[i] and tonumber(lease_ends[i]) < now
  if not facts or facts.token ~= token or (facts.status == 'active' and ended) then
    reply[#reply + 1] = -1
    reply[#reply + 1] = facts and facts.status or ''
  elseif facts.status ~= 'active' then
    reply[#reply + 1] = 0
    reply[#reply + 1] = facts.status
  else
    local fields = {}
    set(fields, 'result', ARGV[rest + 2 * i - 1])
    set(fields, 'error', err)
    set(fields, 'usage', usage)
    set(fields, 'service_job_id', checkpoint or '')
    if lane ~= '' then
      set(fields, 'lane', lane)
      set(fields, 'requirement', requirement)
      facts.lane, facts.requirement = lane, requirement
    end
    if decision == 'completed' then
      set(fields, 'progress', '100')
      -- Nothing leaves this state, so nobody needs the key of the job's own store any more.
      if facts.error or facts.store then
        redis.call('HDEL', prefix .. 'jobs:' .. id, 'error', 'ctx_key')
      end
    end
    local status, name = decide(id, facts, decision, tonumber(delay_us), fields)
    emit(id, name, now, ',"status":"' .. status .. '","attempt":' .. facts.attempt .. record
      .. (err ~= '' and (',"error":' .. err) or ''), facts.watched)
    reply[#reply + 1] = 1
    reply[#reply + 1] = status
  end
end

write_leaving(now)
write_lines(now)
write_events()
return cjson.encode(reply)
