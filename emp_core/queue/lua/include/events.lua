--- What happened to a job: in its own list, in the stream of all events, and to whoever listens now.
--- keys: events
--- argv: prefix events_max

local JOB_EVENTS_MAX = 200

-- fragment: JSON members to go into the entry, without braces, beginning with a comma; or ''.
local function emit(id, name, at, fragment)
  local entry = '{"event":"' .. name .. '","job":"' .. id .. '","at":' .. string.format('%.0f', at) .. fragment .. '}'
  local list = prefix .. 'jobs:' .. id .. ':events'
  if redis.call('RPUSH', list, entry) > JOB_EVENTS_MAX then
    redis.call('LTRIM', list, -JOB_EVENTS_MAX, -1)
  end
  redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*', 'event', entry)
  redis.call('PUBLISH', prefix .. 'events:' .. id, entry)
  redis.call('PUBLISH', prefix .. 'job:status:update', id)
end
