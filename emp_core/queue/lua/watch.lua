--- Notes that somebody follows a job: from now on its events are published as they happen.
--- argv: prefix id
--- returns: 1 noted, 0 no such job

local job = prefix .. 'jobs:' .. id
if redis.call('EXISTS', job) == 0 then
  return 0
end
redis.call('HSET', job, 'watched', '1')
return 1
