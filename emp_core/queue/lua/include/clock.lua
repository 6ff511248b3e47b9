--- Redis's clock, in whole microseconds since 1970.

-- What is written again and again is kept.
local texts = {}

-- Lua's own conversion loses digits beyond 14, and the one for fractions costs more than one for seconds and one for the rest.
local function us(number)
  local text = texts[number]
  if not text then
    local micros = number % 1000000
    if number >= 1000000 and micros % 1 == 0 then
      text = string.format('%d%06d', (number - micros) / 1000000, micros)
    else
      text = string.format('%.0f', number)
    end
    texts[number] = text
  end
  return text
end

local function clock()
  local t = redis.call('TIME')
  local text = t[1] .. (#t[2] == 6 and t[2] or string.format('%06d', t[2]))
  local now = tonumber(text)
  texts[now] = text
  return now
end
