--- Sessions in cqueues: the adapter for `loop`, in coroutines of a controller (cqueues.new():wrap).
-- May rely on cqueues only.
--
-- A session that is connected with it can also be given to cqueues.poll() among other objects.
-- A coroutine of one's own within a controller's must be made by cqueues.auxlib.wrap.
local cqueues = require "cqueues"

return {
  wait = function(session, _, seconds)
    return cqueues.poll(session, seconds)
  end,
  forget = cqueues.cancel,
}
