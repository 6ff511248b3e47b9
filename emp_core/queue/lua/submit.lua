--- Takes jobs into the queue, or says why not. One reply per job, in order; a repeated call changes nothing.
--- transitions: none>pending none>scheduled none>active
--- include: clock events inbox lines handing_over
--- keys: pending scheduled deadlines
--- argv: prefix events_max step_us max_pending max_lanes keep_idempotency_ms count
--- rest: per job: a JSON list (id lane requirement customer priority start_at deadline_at idempotency_key digest, then names and values of the hash), payload
--- returns: JSON [now, then per job code, id, how many workers serve its lane, at least (-1: the lane is new), or 0 where those that are idle refuse its customer]
--- codes: 1 taken, 0 the same job was there, -1 another job was there, -2 the queue is full, -3 too many lanes have jobs

-- So many lanes that should have no jobs are looked at for one that may go.
local LOOK_MOST = 100

local now = clock()
local reply = { us(now) }
local at = rest

local function answer(code, id, serving)
  reply[#reply + 1] = code
  reply[#reply + 1] = id
  reply[#reply + 1] = serving
end

-- The job that this submit repeats, and whether it has the same body.
local function known(id, idempotency_key, digest)
  local first = idempotency_key ~= '' and redis.call('GET', prefix .. 'idem:' .. idempotency_key) or id
  if redis.call('EXISTS', prefix .. 'jobs:' .. first) == 0 then
    -- The key outlives its job; one with this id may be there all the same.
    if first == id or redis.call('EXISTS', prefix .. 'jobs:' .. id) == 0 then
      return nil
    end
    first = id
  end
  -- Without a digest the id was made by the queue: it is there because this very call was sent twice. Of digests there may be two.
  return first, digest == '' or digest:find(redis.call('HGET', prefix .. 'jobs:' .. first, 'digest') or '-', 1, true) ~= nil
end

-- How many workers serve a lane, at least, once that is known; -1: the lane is new.
local serving = {}

-- Whether another lane may be. Where there are as many as may be, one goes that has no jobs, the one that had none for longest.
local function has_room_for_a_lane(now)
  if redis.call('HLEN', lanes_key) < tonumber(max_lanes) then
    return true
  end
  -- Those which jobs of this call enter have jobs.
  write_lines(now)
  for _, lane in ipairs(redis.call('ZRANGE', lanes_empty_key, 0, LOOK_MOST - 1)) do
    if let_go(lane) then
      serving[lane] = nil
      return true
    end
  end
  return false
end

for _ = 1, tonumber(count) do
  local spec, payload = cjson.decode(ARGV[at]), ARGV[at + 1]
  at = at + 2
  local id, lane, requirement, customer, priority, start_at, deadline_at, idempotency_key, digest = unpack(spec, 1, 9)
  local first, same = known(id, idempotency_key, digest)
  local is_new = not first and not serving[lane] and redis.call('HEXISTS', lanes_key, lane) == 0
  if first then
    answer(same and 0 or -1, first, 0)
  elseif tonumber(max_pending) > 0 and redis.call('ZCARD', pending_key) + #entering_pending / 2 >= tonumber(max_pending) then
    answer(-2, id, 0)
  elseif is_new and not has_room_for_a_lane(now) then
    answer(-3, id, 0)
  else
    if is_new then
      open_lane(lane, requirement, now)
      serving[lane] = -1
    end
    local job = prefix .. 'jobs:' .. id
    local later = start_at ~= '' and tonumber(start_at) > now
    local arrival = (later and tonumber(start_at) or now) - tonumber(priority) * tonumber(step_us)
    local status = later and 'scheduled' or 'pending'
    local taker, idle, is_refused
    if count == '1' and not later and fits_an_inbox(payload, spec) then
      taker, idle, is_refused = taker_for(lane, customer, now)
    end
    redis.call('SET', job .. ':payload', payload)
    if idempotency_key ~= '' then
      redis.call('SET', prefix .. 'idem:' .. idempotency_key, id, 'PX', keep_idempotency_ms)
    end
    if deadline_at ~= '' then
      put_due(deadlines_key, deadline_at, id)
    end
    -- Not into the job's own list: a list of one entry takes more memory than the rest of a small job. Whoever reads the
    -- list knows from the hash when the job was submitted.
    entry_of(id, 'submitted', now, ',"status":"' .. status .. '"')
    if taker then
      serving[lane] = serving[lane] or 1
      hand_over(taker, id, lane, customer, { 'created_at', us(now), 'arrival', us(arrival), unpack(spec, 10) }, payload, now)
    else
      redis.call('HSET', job, 'status', status, 'created_at', us(now), 'arrival', us(arrival), unpack(spec, 10))
      if later then
        put_due(scheduled_key, start_at, id)
      else
        enter_line(id, lane, customer, arrival, idle)
      end
      serving[lane] = serving[lane] or redis.call('ZCARD', prefix .. 'lane:' .. lane .. ':workers')
    end
    answer(1, id, is_refused and 0 or serving[lane])
  end
end

write_lines(now)
write_events()
return cjson.encode(reply)
