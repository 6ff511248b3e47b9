--- Gives a failed or cancelled job a new run: its attempts are counted from zero again.
--- transitions: failed>pending cancelled>pending
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max keep_completed_ms keep_failed_ms keep_cancelled_ms id
--- returns: {code, status}
--- codes: 1 waiting again, 0 the job is in another state, -1 no such job, -2 its payload is gone

local now = clock()
local facts = facts_of(id)
if not facts then
  return { -1, '' }
end
if facts.status ~= 'failed' and facts.status ~= 'cancelled' then
  return { 0, facts.status }
end
local job = prefix .. 'jobs:' .. id
if redis.call('EXISTS', job .. ':payload') == 0 then
  return { -2, facts.status }
end
for _, key in ipairs({ job, job .. ':payload', job .. ':events' }) do
  redis.call('PERSIST', key)
end
redis.call('ZREM', facts.status == 'failed' and failed_key or cancelled_key, id)
redis.call('HDEL', job, 'attempt', 'crashes', 'error', 'result', 'usage', 'token', 'worker_id', 'machine_id', 'progress',
  'message', 'cancel_requested', 'started_at', 'finished_at', 'service_job_id', 'deadline_at')
emit(id, 'revived', now, ',"status":"pending"')
return { 1, put_back(id, facts, 0, now) }
