--- What a claim gives: how the attempt of each job begins, and the reply that has the jobs whole.
--- keys: pending active customers_active
--- argv: prefix worker machine token lease_us

local given, payload_keys = {}, {}
local begun, begun_by_customer, ghosts = {}, {}, 0
local claimed_by = ',"status":"active","worker":' .. cjson.encode(worker) .. ',"machine":' .. cjson.encode(machine) .. ',"attempt":'

local function give(id, hash)
  given[#given + 1] = { id, hash }
  payload_keys[#payload_keys + 1] = prefix .. 'jobs:' .. id .. ':payload'
end

-- Begins an attempt, unless the job is a ghost: it was deleted, or an aborted script left it in the line.
local function begin(id, customer, now)
  local job = prefix .. 'jobs:' .. id
  local f = redis.call('HMGET', job, 'status', 'attempt', 'pending_at', 'created_at', 'progress', 'watched')
  local status, attempt, since, progress, watched = f[1], (f[2] or 0) + 1, f[3] or f[4], f[5], f[6]
  if status ~= 'pending' then
    ghosts = ghosts + redis.call('ZREM', pending_key, id)
    return false
  end
  redis.call('HSET', job, 'status', 'active', 'worker_id', worker, 'machine_id', machine, 'token', token,
    'attempt', attempt, 'started_at', us(now))
  if progress then
    redis.call('HDEL', job, 'progress', 'message')
  end
  begun[#begun + 1] = id
  begun_by_customer[customer] = (begun_by_customer[customer] or 0) + 1
  emit(id, 'claimed', now, claimed_by .. attempt .. ',"waited_us":' .. us(now - since), watched)
  give(id, redis.call('HGETALL', job))
  return true
end

-- Writes each index once.
local function write_begun(now)
  if #begun == 0 then
    return
  end
  redis.call('ZREM', pending_key, unpack(begun))
  local leases, ends = {}, us(now + lease_us)
  for _, id in ipairs(begun) do
    leases[#leases + 1] = ends
    leases[#leases + 1] = id
  end
  redis.call('ZADD', active_key, unpack(leases))
  for customer, count in pairs(begun_by_customer) do
    redis.call('HINCRBY', customers_active_key, customer, count)
  end
end

-- One text for all: the client reads it faster than a list of lists.
local function reply(lanes_version, come_back_us, left)
  if #given > 0 then
    for i, payload in ipairs(redis.call('MGET', unpack(payload_keys))) do
      given[i][3] = payload or 'null'
    end
  end
  return cjson.encode({ 1, lanes_version or '0', come_back_us, left, given })
end
