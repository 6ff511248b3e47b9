--- Redis's clock, in whole microseconds since 1970.

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Lua's own conversion loses digits beyond 14.
local function us(number)
  return string.format('%.0f', number)
end
