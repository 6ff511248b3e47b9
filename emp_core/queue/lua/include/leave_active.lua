--- Ways out of active: every one of them gives the customer its slot back.
--- keys: active deadlines completed failed cancelled scheduled customers_active
--- argv: prefix keep_completed_ms keep_failed_ms keep_cancelled_ms

local function release_slot(id, customer, now)
  redis.call('ZREM', active_key, id)
  if redis.call('HINCRBY', customers_active_key, customer, -1) <= 0 then
    redis.call('HDEL', customers_active_key, customer)
  end
  unpark(customer, now)
end

local KEPT = {
  completed = { completed_key, keep_completed_ms },
  failed = { failed_key, keep_failed_ms },
  cancelled = { cancelled_key, keep_cancelled_ms },
}

-- The job has its outcome: index it, and let it go when its time is over.
local function settle(id, status, now)
  local job = prefix .. 'jobs:' .. id
  local index, keep_ms = KEPT[status][1], KEPT[status][2]
  redis.call('ZADD', index, us(now), id)
  redis.call('ZREM', deadlines_key, id)
  redis.call('PEXPIRE', job, keep_ms)
  redis.call('PEXPIRE', job .. ':payload', keep_ms)
  redis.call('PEXPIRE', job .. ':events', keep_ms)
  redis.call('PUBLISH', prefix .. 'done:' .. id, status)
end

-- Puts a job that was active back to its old place, or where it waits for its next attempt.
-- Returns the status that it has now.
local function put_back(id, facts, delay_us, now)
  local job = prefix .. 'jobs:' .. id
  if facts.deadline > 0 then
    -- The sweep took it out of the index if it passed while the job was active.
    redis.call('ZADD', deadlines_key, us(facts.deadline), id)
  end
  if delay_us > 0 then
    redis.call('HSET', job, 'status', 'scheduled', 'due_at', us(now + delay_us))
    redis.call('ZADD', scheduled_key, us(now + delay_us), id)
    return 'scheduled'
  end
  open_lane(facts.lane, facts.requirement, now)
  redis.call('HSET', job, 'status', 'pending', 'pending_at', us(now))
  enter_line(id, facts.lane, facts.customer, facts.arrival)
  wake(facts.lane, now)
  return 'pending'
end
