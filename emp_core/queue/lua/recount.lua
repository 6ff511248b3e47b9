--- Corrects how many jobs customers run, and gives those who have room again their turns back.
--- include: clock inbox lines
--- keys: customers_active
--- argv: prefix
--- rest: per customer: name, how many jobs were counted that do not run
--- returns: how many customers there were

local now = clock()
for i = rest, #ARGV, 2 do
  local customer, surplus = ARGV[i], tonumber(ARGV[i + 1])
  if redis.call('HINCRBY', customers_active_key, customer, -surplus) <= 0 then
    redis.call('HDEL', customers_active_key, customer)
  end
  if surplus > 0 then
    unpark(customer, now)
  end
end
return (#ARGV - rest + 1) / 2
