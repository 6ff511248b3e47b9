--- What happened to jobs: in each job's own list, in the stream of all events, and to whoever listens now.
--- keys: events
--- argv: prefix events_max

local JOB_EVENTS_MAX = 200
local STREAM_CHUNK = 16

local emitted = {}
-- The job whose id was published last.
local told_of

-- fragment: JSON members to go into the entry, without braces, beginning with a comma; or ''.
local function entry_of(id, name, at, fragment)
  local entry = '{"event":"' .. name .. '","job":"' .. id .. '","at":' .. us(at) .. fragment .. '}'
  emitted[#emitted + 1] = entry
  -- Once for all that a script writes of a job at a time: who listens reads the job after it.
  if told_of ~= id then
    told_of = id
    redis.call('PUBLISH', prefix .. 'job:status:update', id)
  end
  return entry
end

-- watched: whether somebody follows this job; only then there is anybody to publish the entry to.
local function emit(id, name, at, fragment, watched)
  local entry = entry_of(id, name, at, fragment)
  local list = prefix .. 'jobs:' .. id .. ':events'
  if redis.call('RPUSH', list, entry) > JOB_EVENTS_MAX then
    redis.call('LTRIM', list, -JOB_EVENTS_MAX, -1)
  end
  if watched then
    redis.call('PUBLISH', prefix .. 'events:' .. id, entry)
  end
end

-- Every script that emits ends with this. A stream entry holds several events: a call per event would cost more than
-- the event does.
local function write_events()
  for from = 1, #emitted, STREAM_CHUNK do
    local chunk = #emitted == 1 and emitted[1] or table.concat(emitted, ',', from, math.min(from + STREAM_CHUNK - 1, #emitted))
    redis.call('XADD', events_key, 'MAXLEN', '~', events_max, '*', 'events', '[' .. chunk .. ']')
  end
end
