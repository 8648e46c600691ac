-- Counts the proxies that share budgets: each says that it is there, and is forgotten if it has not for a while.
--
-- KEYS[1]  the proxies, each with when it last spoke
-- ARGV     this proxy, microseconds until one is forgotten
-- returns  how many there are
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return {redis.call('ZCARD', KEYS[1])}
