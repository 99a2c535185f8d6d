-- For specs that run whole commands, as a person would in a shell.
local shell = {}

function shell.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Runs a command; returns whether it succeeded, and all it printed on both streams.
function shell.run(command, ...)
  command = command:format(...)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1 </dev/null"))
  local output = pipe:read "a"
  return pipe:close() == true, output
end

-- Runs a command that has to succeed; returns what it printed, without the last newline.
function shell.must(command, ...)
  local ok, output = shell.run(command, ...)
  if not ok then
    error(("failed: %s\n%s"):format(command:format(...), output), 2)
  end
  return (output:gsub("\n$", ""))
end

function shell.write(path, text)
  shell.must("mkdir -p \"$(dirname %s)\"", shell.quote(path))
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

return shell
