--- What the scripts need to know of a job: its hash with the defaults filled in.
--- argv: prefix

local function facts_of(id)
  local f = redis.call(
    'HMGET', prefix .. 'jobs:' .. id,
    'status', 'service_required', 'lane', 'requirement', 'customer_id', 'arrival', 'token', 'worker_id',
    'attempt', 'max_attempts', 'crashes', 'cancel_requested', 'deadline_at', 'watched',
    'error', 'ctx_key', 'waiter'
  )
  if not f[1] then
    return nil
  end
  return {
    status = f[1],
    lane = f[3] or f[2],
    requirement = f[4],
    customer = f[5] or '',
    arrival = tonumber(f[6]),
    token = f[7],
    worker = f[8],
    attempt = tonumber(f[9] or 0),
    max_attempts = tonumber(f[10] or 0),
    crashes = tonumber(f[11] or 0),
    cancel = f[12],
    deadline = tonumber(f[13] or 0),
    watched = f[14],
    error = f[15],
    store = f[16],
    waiter = f[17],
  }
end

-- Takes away what is left of a job whose hash is gone.
local function forget(id)
  local job = prefix .. 'jobs:' .. id
  redis.call('UNLINK', job, job .. ':payload', job .. ':events', job .. ':text')
end
