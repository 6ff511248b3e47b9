--- The customers whose jobs a worker takes: all, only some, or all but some.
--- argv: allow deny

local ADMITTED_AT_ONCE = 64

-- The customer admitted whose turn in a lane is first, and the turn; nil if there is none. There are no such functions
-- where everybody is admitted.
local admits, first_admitted
if allow ~= '' or deny ~= '' then
  -- The names of a list, also as keys.
  local function listed(list)
    local names = list ~= '' and cjson.decode(list) or {}
    for _, name in ipairs(names) do
      names[name] = true
    end
    return names
  end
  local allowed, denied = listed(allow), listed(deny)

  admits = function(customer)
    return (allow == '' or allowed[customer]) and not denied[customer]
  end

  -- Among those allowed: a call for many of them, however many others wait.
  local function first_allowed(turns)
    local first, turn
    for from = 1, #allowed, ADMITTED_AT_ONCE do
      local names = { unpack(allowed, from, math.min(from + ADMITTED_AT_ONCE - 1, #allowed)) }
      for i, found in ipairs(redis.call('ZMSCORE', turns, unpack(names))) do
        if found and admits(names[i]) and (not turn or tonumber(found) < tonumber(turn)) then
          first, turn = names[i], found
        end
      end
    end
    return first, turn
  end

  first_admitted = function(turns)
    local waiting = redis.call('ZCARD', turns)
    if allow ~= '' and #allowed < waiting then
      return first_allowed(turns)
    end
    for from = 0, waiting - 1, ADMITTED_AT_ONCE do
      for _, customer in ipairs(redis.call('ZRANGE', turns, from, from + ADMITTED_AT_ONCE - 1)) do
        if admits(customer) then
          return customer, redis.call('ZSCORE', turns, customer)
        end
      end
    end
  end
end
