-- How long the harness waits at most, in seconds. Slow surroundings (valgrind,
-- a busy machine) set STARTTLS_SPEC_PATIENCE to a factor, for example 10.

local patience = {}

patience.factor = tonumber(os.getenv "STARTTLS_SPEC_PATIENCE" or "") or 1

function patience.seconds(n)
  return n * patience.factor
end

return patience
