--- Tells of waiting jobs at some places of their lines what their turn is made of. Changes nothing.
--- include: lines
--- argv: prefix
--- rest: per line: lane, customer, how many places, the places, from 0
--- returns: per place head start and virtual arrival in µs; 0 for both where no job is

local told = {}
local at = rest
while at <= #ARGV do
  local line, last = line_of(ARGV[at], ARGV[at + 1]), at + 2 + tonumber(ARGV[at + 2])
  for i = at + 3, last do
    local id = redis.call('ZRANGE', line, ARGV[i], ARGV[i])[1] or ''
    local f = redis.call('HMGET', prefix .. 'jobs:' .. id, 'created_at', 'start_at', 'arrival')
    local came = math.max(tonumber(f[1] or 0), tonumber(f[2] or 0))
    told[#told + 1] = string.format('%.0f', math.max(0, came - (f[3] or came)))
    told[#told + 1] = f[3] or '0'
  end
  at = last + 1
end
return told
