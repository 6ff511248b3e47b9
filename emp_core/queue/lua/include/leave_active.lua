--- Ways out of active, and into the final states. Every way out of active gives the customer its slot back.
--- keys: active deadlines completed failed cancelled scheduled customers_active
--- argv: prefix

local left_active, left_by_customer = {}, {}
local settled, settled_deadlines = {}, {}

local FINAL_INDEX = { completed = completed_key, failed = failed_key, cancelled = cancelled_key }

local function leave_active(id, customer)
  left_active[#left_active + 1] = id
  -- Jobs of nobody have no cap.
  if customer ~= '' then
    left_by_customer[customer] = (left_by_customer[customer] or 0) + 1
  end
end

local TOLD_MOST = 16384

-- The job's hash as JSON, for those who wait for it; nil where it is large, or holds the key of a store of the job's own.
local function told(id)
  local flat, fields, size = redis.call('HGETALL', prefix .. 'jobs:' .. id), {}, 0
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
    size = size + #flat[i + 1]
  end
  return size <= TOLD_MOST and not fields.ctx_key and cjson.encode(fields) or nil
end

-- The job has its outcome, and all that is known of it is written. The keeper deletes it when it was kept for long enough.
local function settle(id, status, facts, now)
  local index = settled[status] or {}
  settled[status] = index
  index[#index + 1] = us(now)
  index[#index + 1] = id
  if facts.deadline > 0 then
    settled_deadlines[#settled_deadlines + 1] = id
  end
  local channel = prefix .. 'done:' .. id
  -- Mostly nobody waits: that costs nothing but the question.
  local are_waiting = redis.call('PUBLISH', channel, status) > 0
  local job = (are_waiting or facts.waiter) and told(id)
  if are_waiting and job then
    redis.call('PUBLISH', channel, job)
  end
  -- Who submitted it and will wait for it is told of all its jobs on one channel.
  if facts.waiter then
    redis.call('PUBLISH', prefix .. 'done:' .. facts.waiter, id .. ' ' .. (job or status))
  end
end

-- The job was cancelled, and runs nowhere. because: JSON members for the event, beginning with a comma, or nothing.
local function settle_cancelled(id, facts, because, now)
  redis.call('HSET', prefix .. 'jobs:' .. id, 'status', 'cancelled', 'finished_at', us(now))
  emit(id, 'cancelled', now, ',"status":"cancelled"' .. because, facts.watched)
  settle(id, 'cancelled', facts, now)
end

-- Every script that takes jobs out of active or settles them ends with this: it writes each index once.
local function write_leaving(now)
  if #left_active > 0 then
    redis.call('ZREM', active_key, unpack(left_active))
  end
  for customer, count in pairs(left_by_customer) do
    if redis.call('HINCRBY', customers_active_key, customer, -count) <= 0 then
      redis.call('HDEL', customers_active_key, customer)
    end
    unpark(customer, now)
  end
  for status, index in pairs(settled) do
    redis.call('ZADD', FINAL_INDEX[status], unpack(index))
  end
  if #settled_deadlines > 0 then
    redis.call('ZREM', deadlines_key, unpack(settled_deadlines))
  end
  left_active, left_by_customer, settled, settled_deadlines = {}, {}, {}, {}
end

-- Puts a job that was active back to its old place, or where it waits for its next attempt.
-- Returns the status that it has now.
local function put_back(id, facts, delay_us, now)
  local job = prefix .. 'jobs:' .. id
  redis.call('DEL', job .. ':text')
  if facts.deadline > 0 then
    -- The sweep took it out of the index if it passed while the job was active.
    put_due(deadlines_key, us(facts.deadline), id)
  end
  if delay_us > 0 then
    redis.call('HSET', job, 'status', 'scheduled', 'due_at', us(now + delay_us))
    put_due(scheduled_key, us(now + delay_us), id)
    return 'scheduled'
  end
  open_lane(facts.lane, facts.requirement, now)
  redis.call('HSET', job, 'status', 'pending', 'pending_at', us(now))
  redis.call('HDEL', job, 'unserved')
  enter_line(id, facts.lane, facts.customer, facts.arrival)
  return 'pending'
end
