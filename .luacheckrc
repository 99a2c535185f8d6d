std = "lua54"
max_line_length = 100
exclude_files = { "build", "lua_modules", ".luarocks" }

files["spec/**/*_spec.lua"].std = "+busted"
files["examples/embed/inbox.lua"].read_globals = { "host" } -- which host.c gives it
files[".busted"] = {}
