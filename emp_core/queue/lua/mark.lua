--- Sets a mark in a job's hash: that somebody follows it (watched: from now on its events are published as they happen).
--- argv: prefix id field
--- returns: 1 set, 0 no such job

local job = prefix .. 'jobs:' .. id
if redis.call('EXISTS', job) == 0 then
  return 0
end
redis.call('HSET', job, field, '1')
return 1
