--- Whether events were trimmed that no reader of a group has seen. Those that are known to the caller count as read from then on.
--- include: clock
--- keys: events
--- argv: group known
--- returns: how many were trimmed ever, where the group has not seen some of them that are not known; 0 there are none, or nothing is known of the stream or the group yet

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
    known = math.min(tonumber(known), trimmed)
    if read < known then
      redis.call('XGROUP', 'SETID', events_key, group, found['last-delivered-id'], 'ENTRIESREAD', us(known))
    end
    return known < trimmed and trimmed or 0
  end
end
return 0
