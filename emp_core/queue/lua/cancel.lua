--- Cancels a job: at once while it waits, by asking its worker while it runs.
--- transitions: pending>cancelled scheduled>cancelled
--- include: clock events inbox lines leave_active facts
--- argv: prefix events_max id reason
--- returns: {code, status}
--- codes: 1 cancelled or asked for, 0 the job is in a final state, -1 no such job

local now = clock()
local facts = facts_of(id)
if not facts then
  return { -1, '' }
end
local job = prefix .. 'jobs:' .. id
local because = reason ~= '' and (',"reason":' .. cjson.encode(reason)) or ''

if facts.status == 'active' then
  if not facts.cancel then
    redis.call('HSET', job, 'cancel_requested', us(now))
    emit(id, 'cancel_requested', now, because, facts.watched)
    write_events()
  end
  -- With the lease's token: one that lingers is not for a later run of the job.
  tell(facts.worker, 'cancel ' .. id .. ' ' .. (facts.token or ''))
  return { 1, 'active' }
end
if facts.status == 'pending' then
  leave_line(id, facts.lane, facts.customer, now)
elseif facts.status == 'scheduled' then
  redis.call('ZREM', scheduled_key, id)
else
  return { 0, facts.status }
end
settle_cancelled(id, facts, because, now)
write_leaving(now)
write_events()
return { 1, 'cancelled' }
