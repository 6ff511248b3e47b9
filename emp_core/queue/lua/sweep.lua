--- Keeps house: ends leases, begins what is due, ends what is late, forgets dead workers and old jobs. One batch a call.
--- transitions: scheduled>pending scheduled>failed pending>failed active>pending active>failed active>cancelled
--- include: clock events inbox lines leave_active facts taking_back
--- keys: keeper handed
--- argv: prefix events_max keep_completed_ms keep_failed_ms keep_cancelled_ms worker keeper_ms rescue max_attempts max_crashes batch lane_idle_us
--- returns: {code, now, when something is due next (0: nothing), rescued, promoted, expired, dead workers, trimmed, taken back}
--- codes: 1 swept, 0 another worker keeps house

local now = clock()
local keeper = redis.call('GET', keeper_key)
if keeper and keeper ~= worker then
  return { 0, us(now), '0', 0, 0, 0, 0, 0, 0 }
end
redis.call('SET', keeper_key, worker, 'PX', keeper_ms)

local function due(index)
  return redis.call('ZRANGEBYSCORE', index, '-inf', us(now), 'LIMIT', 0, batch)
end

local function fail(id, facts, code, message)
  local err = cjson.encode({ code = code, message = message, retryable = false, details = { attempt = facts.attempt } })
  redis.call('HSET', prefix .. 'jobs:' .. id, 'status', 'failed', 'finished_at', us(now), 'error', err)
  emit(id, 'failed', now, ',"status":"failed","attempt":' .. facts.attempt .. ',"error":' .. err, facts.watched)
  settle(id, 'failed', facts, now)
end

local function late(facts)
  return facts.deadline > 0 and facts.deadline <= now
end

-- A lease ended: its worker died or cannot reach Redis.
local function rescue_job(id)
  local facts = facts_of(id)
  if not facts then
    -- Nobody knows whose slot it had: that comes out when they are counted anew.
    redis.call('ZREM', active_key, id)
    forget(id)
    return
  end
  if facts.status ~= 'active' then
    -- The script that ended it was aborted: it stands here, so its customer has no slot back yet.
    leave_active(id, facts.customer)
    return
  end
  local job = prefix .. 'jobs:' .. id
  local crashes = redis.call('HINCRBY', job, 'crashes', 1)
  local most = facts.max_attempts > 0 and facts.max_attempts or tonumber(max_attempts)
  local by = ',"worker":' .. cjson.encode(facts.worker or '') .. ',"attempt":' .. facts.attempt .. ',"crashes":' .. crashes
  emit(id, 'worker_lost', now, by, facts.watched)
  redis.call('HDEL', job, 'token')
  leave_active(id, facts.customer)
  if facts.cancel then
    settle_cancelled(id, facts, '', now)
  elseif crashes >= tonumber(max_crashes) then
    fail(id, facts, 'poison', 'the job took its worker down ' .. crashes .. ' times')
  elseif facts.attempt >= most then
    fail(id, facts, 'worker_lost', 'the worker ' .. (facts.worker or '') .. ' was lost in the last attempt')
  elseif late(facts) then
    fail(id, facts, 'deadline_exceeded', 'the deadline passed before the job was done')
  else
    put_back(id, facts, 0, now)
    emit(id, 'rescued', now, ',"status":"pending"', facts.watched)
  end
end

local rescued, taken_back = 0, 0
if rescue == '1' then
  for _, entry in ipairs(due(handed_key)) do
    take_back(entry, now)
    taken_back = taken_back + 1
  end
  -- The lease of what was taken back may have ended too: it must not leave twice.
  write_leaving(now)
  for _, id in ipairs(due(active_key)) do
    rescue_job(id)
    rescued = rescued + 1
  end
end

local promoted = 0
for _, id in ipairs(due(scheduled_key)) do
  redis.call('ZREM', scheduled_key, id)
  local facts = facts_of(id)
  if facts and facts.status == 'scheduled' then
    redis.call('HDEL', prefix .. 'jobs:' .. id, 'due_at')
    put_back(id, facts, 0, now)
    emit(id, 'promoted', now, ',"status":"pending"', facts.watched)
    promoted = promoted + 1
  elseif not facts then
    forget(id)
  end
end

-- What is late may be among what was just put back.
write_leaving(now)
write_lines(now)

local expired = 0
for _, id in ipairs(due(deadlines_key)) do
  redis.call('ZREM', deadlines_key, id)
  local facts = facts_of(id)
  -- An active job's own worker ends it; if that worker is lost, the rescue looks at the deadline.
  if facts and (facts.status == 'pending' or facts.status == 'scheduled') then
    if facts.status == 'pending' then
      leave_line(id, facts.lane, facts.customer, now)
    else
      redis.call('ZREM', scheduled_key, id)
    end
    fail(id, facts, 'deadline_exceeded', 'the deadline passed before the job was begun')
    expired = expired + 1
  end
end

local dead = due(workers_key)
for _, name in ipairs(dead) do
  local its = prefix .. 'worker:' .. name
  for _, lane in ipairs(redis.call('ZRANGE', its .. ':lanes', 0, -1)) do
    redis.call('ZREM', prefix .. 'lane:' .. lane .. ':workers', name)
  end
  redis.call('DEL', its .. ':heartbeat', its .. ':capabilities', its .. ':lanes', its .. ':claim', its .. ':inbox')
  redis.call('ZREM', workers_key, name)
  redis.call('ZREM', idle_key, name)
  redis.call('ZREM', woken_key, name)
end

local trimmed = 0
for index, keep_ms in pairs({
  [completed_key] = keep_completed_ms, [failed_key] = keep_failed_ms, [cancelled_key] = keep_cancelled_ms,
}) do
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', us(now - keep_ms * 1000), 'LIMIT', 0, batch)
  if #old > 0 then
    local forgotten = {}
    for _, id in ipairs(old) do
      local job = prefix .. 'jobs:' .. id
      forgotten[#forgotten + 1] = job
      forgotten[#forgotten + 1] = job .. ':payload'
      forgotten[#forgotten + 1] = job .. ':events'
    end
    redis.call('UNLINK', unpack(forgotten))
    trimmed = trimmed + redis.call('ZREM', index, unpack(old))
  end
end

for _, lane in ipairs(redis.call('ZRANGEBYSCORE', lanes_empty_key, '-inf', us(now - lane_idle_us), 'LIMIT', 0, batch)) do
  let_go(lane)
end

write_leaving(now)
write_events()

-- More of the same at once when a batch was full; otherwise when the next thing is due.
local full = tonumber(batch)
if rescued >= full or taken_back >= full or promoted >= full or expired >= full or #dead >= full or trimmed >= full then
  return { 1, us(now), us(now), rescued, promoted, expired, #dead, trimmed, taken_back }
end
local following
local indexes = { scheduled_key, deadlines_key, workers_key }
if rescue == '1' then
  indexes[#indexes + 1] = active_key
  indexes[#indexes + 1] = handed_key
end
for _, index in ipairs(indexes) do
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if first[1] and (not following or tonumber(first[2]) < following) then
    following = tonumber(first[2])
  end
end
return { 1, us(now), us(following or 0), rescued, promoted, expired, #dead, trimmed, taken_back }
