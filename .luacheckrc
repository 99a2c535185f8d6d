std = "lua54"
max_line_length = 100
exclude_files = { "build", "lua_modules", ".luarocks" }

files["spec/**/*_spec.lua"].std = "+busted"
-- What examples/embed/host.c gives the scripts that it runs.
files["examples/embed/inbox.lua"].read_globals = { "host" }
files["spec/check/threads_script.lua"].read_globals = { "host" }
files[".busted"] = {}
