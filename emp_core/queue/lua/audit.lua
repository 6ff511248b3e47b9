--- Looks at jobs that may stand in no index, or in a wrong one, and puts them where their state says; forgets those whose
--- data is gone. Nothing should ever need it; an aborted script during a Cluster's migration once did.
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max
--- rest: ids
--- returns: the ids that were mended

local now = clock()
local mended = {}

local function note(id, facts, what)
  mended[#mended + 1] = id
  emit(id, 'mended', now, ',"found":' .. cjson.encode(what), facts.watched)
end

local function audit_waiting(id, facts)
  local listed = redis.call('ZSCORE', pending_key, id)
  local lined = redis.call('ZSCORE', line_of(facts.lane, facts.customer), id)
  local turned = redis.call('ZSCORE', turns_of(facts.lane), facts.customer) and redis.call('ZSCORE', heads_key, facts.lane)
  local known = redis.call('HEXISTS', lanes_key, facts.lane) == 1
  local parked = redis.call('HEXISTS', prefix .. 'parked:' .. facts.customer, facts.lane) == 1
  if not (listed and lined and known and (turned or parked)) then
    redis.call(parked and 'SADD' or 'SREM', prefix .. 'lane:' .. facts.lane .. ':parked', facts.customer)
    open_lane(facts.lane, facts.requirement, now)
    enter_line(id, facts.lane, facts.customer, facts.arrival)
    note(id, facts, 'pending without a place')
  end
end

-- In its line it stays until a worker, or whoever tells that none serves it, comes by: nobody else knows which that is.
local function forget_ghost(id)
  forget(id)
  local named = 0
  for _, index in ipairs({ pending_key, scheduled_key, deadlines_key }) do
    named = named + redis.call('ZREM', index, id)
  end
  if named > 0 then
    mended[#mended + 1] = id
  end
end

for i = rest, #ARGV do
  local id = ARGV[i]
  local facts = facts_of(id)
  if not facts then
    forget_ghost(id)
  elseif facts.status ~= 'pending' and redis.call('ZREM', pending_key, id) == 1 then
    note(id, facts, facts.status .. ' and counted as waiting')
  end
  if facts and facts.status == 'pending' then
    audit_waiting(id, facts)
  elseif facts and facts.status == 'active' and not redis.call('ZSCORE', active_key, id) then
    -- Without a lease nobody would ever take it away from a worker that died.
    redis.call('ZADD', active_key, us(now), id)
    note(id, facts, 'active without a lease')
  elseif facts and facts.status == 'scheduled' and not redis.call('ZSCORE', scheduled_key, id) then
    local due = redis.call('HMGET', prefix .. 'jobs:' .. id, 'due_at', 'start_at')
    redis.call('ZADD', scheduled_key, due[1] or due[2] or us(now), id)
    note(id, facts, 'scheduled without a time')
  elseif facts and FINAL_INDEX[facts.status] and not redis.call('ZSCORE', FINAL_INDEX[facts.status], id) then
    redis.call('ZADD', FINAL_INDEX[facts.status], us(now), id)
    note(id, facts, 'final without an end')
  end
end

write_lines(now)
write_events()
return mended
