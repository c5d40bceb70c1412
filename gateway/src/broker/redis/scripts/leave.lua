-- Withdraws what a node that shuts down holds in a partition, a part at a time: it reaps itself.
-- KEYS and ARGV[1] to ARGV[3]: see presence.lua
-- ARGV[4] greatest number of things to withdraw in this call
-- Result: number of things that are left; lease and inbox go with the last one
return (clean(node, ARGV[4]))
