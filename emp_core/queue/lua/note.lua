--- Writes into a job's events what is worth knowing and changes no state.
--- include: clock events
--- argv: prefix events_max id name fragment
--- returns: 1 written, 0 no such job

if redis.call('EXISTS', prefix .. 'jobs:' .. id) == 0 then
  return 0
end
emit(id, name, clock(), fragment, redis.call('HEXISTS', prefix .. 'jobs:' .. id, 'watched') == 1)
write_events()
return 1
