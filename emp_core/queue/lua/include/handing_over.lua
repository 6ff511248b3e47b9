--- Handing a new job to an idle worker that waits for it: it begins without having to claim it.
--- keys: active handed heads idle lanes_empty customers_active
--- argv: prefix

-- A worker has this part of its lease to say that it has the job. Else the job waits as if it had not been handed over.
local TAKING_SHARE = 0.2

-- What is larger is not sent through an inbox.
local HANDED_BYTES_MOST = 16384

-- Where more lanes than these have jobs, nobody looks whether one of them is the worker's.
local HANDED_LANES_MOST = 8

-- Whether something waits that the worker may find when it claims: that has its turn first.
local function has_other_work(worker)
  local lanes = redis.call('ZRANGE', heads_key, '0', HANDED_LANES_MOST)
  if #lanes > HANDED_LANES_MOST then
    return true
  end
  for _, served in ipairs(#lanes > 0 and redis.call('ZMSCORE', prefix .. 'worker:' .. worker .. ':lanes', unpack(lanes)) or {}) do
    if served then
      return true
    end
  end
  return false
end

-- What goes through an inbox is seen by whoever looks at it: no key of a store of the job's own does.
local function fits_an_inbox(payload, spec)
  for _, text in ipairs(spec) do
    if text == 'ctx_key' then
      return false
    end
  end
  return #payload <= HANDED_BYTES_MOST
end

-- Whether the customer runs as many jobs as it may, or has older ones in the lane that were set aside for that.
local function has_its_fill(customer, lane, cap)
  return customer ~= '' and (redis.call('HEXISTS', prefix .. 'parked:' .. customer, lane) == 1
    or (cap ~= '0' and tonumber(redis.call('HGET', customers_active_key, customer) or 0) >= tonumber(cap)))
end

-- The worker that a job may be handed to now, and on which terms; nil: it has to wait in its lane; and which worker is
-- idle for it, false: none; then whether one that is idle refuses the customer.
local function taker_for(lane, customer, now)
  local worker, penalty, said, is_silent = idle_for(lane, now, customer)
  local token, terms, room, handed = unpack(said or {}, 4, 7)
  if not worker then
    return nil, false, penalty
  end
  if not room or terms == '' or penalty > 0 or is_silent or has_other_work(worker) then
    return nil, worker
  end
  local lease_us, cap, machine = string.match(terms, '^(%d+) (%d+) (.*)$')
  if has_its_fill(customer, lane, cap) then
    return nil, worker
  end
  return { worker = worker, token = token .. '.handed', lease_us = lease_us, machine = machine,
    left = room - 1, handed = handed and ' ' .. handed or '' }
end

-- Begins a job's first attempt with the worker that takes it. fields: names and values of the job's hash.
local function hand_over(taker, id, lane, customer, fields, payload, now)
  for _, text in ipairs({ 'status', 'active', 'worker_id', taker.worker, 'machine_id', taker.machine, 'attempt', '1',
    'started_at', us(now) }) do
    fields[#fields + 1] = text
  end
  redis.call('HSET', prefix .. 'jobs:' .. id, 'token', taker.token, unpack(fields))
  redis.call('ZADD', active_key, us(now + taker.lease_us), id)
  local taken_until = us(now + taker.lease_us * TAKING_SHARE)
  local entry = id .. ' ' .. taker.token
  redis.call('ZADD', handed_key, taken_until, entry)
  -- Jobs of nobody have no cap.
  if customer ~= '' then
    redis.call('HINCRBY', customers_active_key, customer, 1)
  end
  emit(id, 'claimed', now, ',"status":"active","worker":' .. cjson.encode(taker.worker) .. ',"machine":'
    .. cjson.encode(taker.machine) .. ',"attempt":1,"waited_us":0')
  -- The lane stays empty, and is in use all the same.
  redis.call('ZADD', lanes_empty_key, us(now), lane)
  -- A claim that is on its way does not know of it yet.
  redis.call('HSET', prefix .. 'worker:' .. taker.worker .. ':claim', 'room', taker.left,
    'handed', string.match(lane, '^[^@]+') .. ' ' .. entry .. taker.handed)
  if taker.left > 0 then
    -- It is the turn of others now.
    redis.call('ZADD', idle_key, 'XX', us(now), taker.worker)
  else
    redis.call('ZREM', idle_key, taker.worker)
  end
  tell(taker.worker, 'job ' .. cjson.encode({ id, taker.token, taken_until, payload, fields, taker.left }))
end
