--- Whether events were trimmed that no reader of a group has seen. They count as read from then on: it is told once.
--- include: clock
--- keys: events
--- argv: group
--- returns: 1 there is a gap, 0 there is none, or nothing is known of the stream or the group yet

local function facts(flat)
  local f = {}
  for i = 1, #flat, 2 do
    f[flat[i]] = flat[i + 1]
  end
  return f
end

if redis.call('EXISTS', events_key) == 0 then
  return 0
end
local stream = facts(redis.call('XINFO', 'STREAM', events_key))
local trimmed = stream['entries-added'] - stream['length']
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', events_key)) do
  local found = facts(flat)
  if found['name'] == group then
    local read = found['entries-read']
    if not read or read >= trimmed then
      return 0
    end
    redis.call('XGROUP', 'SETID', events_key, group, found['last-delivered-id'], 'ENTRIESREAD', us(trimmed))
    return 1
  end
end
return 0
