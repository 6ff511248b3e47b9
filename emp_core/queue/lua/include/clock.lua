--- Redis's clock, in whole microseconds since 1970.

-- Lua's own conversion loses digits beyond 14, and this one is slow: what is written again and again is kept.
local texts = {}

local function us(number)
  local text = texts[number]
  if not text then
    text = string.format('%.0f', number)
    texts[number] = text
  end
  return text
end

local function clock()
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2]
  texts[now] = t[1] .. string.format('%06d', t[2])
  return now
end
