--- The last argument of many methods: a table of settings, all of which may be left out.
-- May rely on nothing.
--
-- A misspelt setting must not go unnoticed: a store whose "unchanged_since" is spelt otherwise
-- would be unconditional.
local settings = {}

--- Checks that a call gets no setting that it does not know. Raises on misuse.
-- @param what   the call, for errors
-- @param given  the caller's table, or nil
-- @param names  the settings that there are, with blanks between them
-- @return the table; an empty one instead of nil
function settings.check(what, given, names)
  if given == nil then return {} end
  if type(given) ~= "table" then
    error(("%s: the settings must be a table, not %s"):format(what, type(given)), 0)
  end
  for name in pairs(given) do
    if not (" " .. names .. " "):find((" %s "):format(tostring(name)), 1, true) then
      error(("%s: %s: there is no such setting"):format(what, tostring(name)), 0)
    end
  end
  return given
end

return settings
