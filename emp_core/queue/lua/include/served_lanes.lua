--- The lanes that have jobs and that a worker serves, by rank: first turn + penalty. Found without looking at every lane.
--- keys: heads
--- argv: prefix worker

local WINDOW, WINDOW_MAX = 2, 1024
-- A lane that is looked at by turn, whoever serves it, costs as much as so many lanes of an intersection.
local LOOK_COSTS = 4

local served = prefix .. 'worker:' .. worker .. ':lanes'
local lanes_found, all_seen = {}, false
-- What is looked at next, and the turn (by rank: the rank) of the last one that was looked at.
local position, window, seen_to = 0, WINDOW, nil
-- All lanes that are served and have jobs, by rank, once they were asked for; and those of them that were found before.
local by_rank, known = nil, {}
local served_count, least_penalty_us

-- Returns the penalty of the last one, in ms.
local function add_lanes(lanes, turns)
  local penalties = redis.call('ZMSCORE', served, unpack(lanes))
  for i, lane in ipairs(lanes) do
    if penalties[i] and not known[lane] then
      local penalty_us = penalties[i] * 1000
      lanes_found[#lanes_found + 1] = {
        lane = lane, service = string.match(lane, '^[^@]+'), penalty_us = penalty_us, rank = turns[i] + penalty_us,
      }
    end
  end
  return penalties[#lanes]
end

-- The next lanes by turn, whoever serves them: enough for a worker that serves lanes at the head.
local function look_by_turn()
  local heads = redis.call('ZRANGE', heads_key, position, position + window - 1, 'WITHSCORES')
  local lanes, turns = {}, {}
  for i = 1, #heads, 2 do
    lanes[#lanes + 1], turns[#turns + 1] = heads[i], heads[i + 1]
  end
  all_seen = #lanes < window
  if #lanes > 0 then
    add_lanes(lanes, turns)
    seen_to = tonumber(turns[#turns])
  end
end

-- The next lanes of this worker by rank. Redis intersects the two sets by the smaller one.
local function look_by_rank()
  if not by_rank then
    by_rank = redis.call('ZINTER', '2', heads_key, served, 'WEIGHTS', '1', '1000')
    position, window, least_penalty_us = 0, WINDOW, 0
    for _, found in ipairs(lanes_found) do
      known[found.lane] = true
    end
  end
  local lanes = { unpack(by_rank, position + 1, math.min(position + window, #by_rank)) }
  all_seen = position + window >= #by_rank
  if #lanes > 0 then
    local turns = redis.call('ZMSCORE', heads_key, unpack(lanes))
    seen_to = turns[#turns] + add_lanes(lanes, turns) * 1000
  end
end

local function look_further()
  served_count = served_count or redis.call('ZCARD', served)
  if by_rank or (position + window) * LOOK_COSTS > served_count then
    look_by_rank()
  else
    look_by_turn()
  end
  position, window = position + window, math.min(4 * window, WINDOW_MAX)
end

-- No lane that was not found yet has a better rank.
local function least_rank_unseen(best)
  if best.penalty_us == 0 then
    return seen_to
  end
  least_penalty_us = least_penalty_us or redis.call('ZRANGE', served, '0', '0', 'WITHSCORES')[2] * 1000
  return seen_to + least_penalty_us
end

local function first_two(usable)
  local best, second
  for _, found in ipairs(lanes_found) do
    if usable(found) then
      if not best or found.rank < best.rank then
        best, second = found, best and best.rank
      elseif not second or found.rank < second then
        second = found.rank
      end
    end
  end
  return best, second
end

-- The best lane that is usable, and the rank at which another one would be better (nil: there is no other).
local function best_lane(usable)
  while true do
    local best, second = first_two(usable)
    if all_seen then
      return best, second
    end
    local bound = best and least_rank_unseen(best)
    if bound and best.rank <= bound then
      return best, math.min(second or bound, bound)
    end
    look_further()
  end
end
