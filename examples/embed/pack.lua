--- Writes the Lua files of a directory as a C source, for a host that shall need no files.
--
--   lua5.4 examples/embed/pack.lua DIRECTORY PATH... > packed.c
--
-- PATH is below DIRECTORY: starttls/imap.lua becomes the module starttls.imap. The source has one
-- function, preload_packed, that puts them all into package.preload.

local directory = arg[1]
if not arg[2] then error("usage: pack.lua DIRECTORY PATH...", 0) end

local function module_name(path)
  return (path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

-- Numbers, since a compiler need not take string literals of more than 4095 characters.
local function print_bytes(index, path)
  local file <close> = assert(io.open(directory .. "/" .. path, "rb"))
  print(("static const unsigned char bytes_%d[] = {"):format(index))
  for line in file:lines "L" do
    print(table.concat({ line:byte(1, -1) }, ",") .. ",")
  end
  print "};"
end

print [[
#include <lauxlib.h>

void preload_packed(lua_State *L);
]]
for index = 2, #arg do print_bytes(index, arg[index]) end
print [[

struct packed {
  const char *name, *chunk;
  const unsigned char *bytes;
  size_t size;
};

static const struct packed modules[] = {]]
for index = 2, #arg do
  print(('    {"%s", "@%s", bytes_%d, sizeof bytes_%d},'):format(
    module_name(arg[index]), arg[index], index, index))
end
print [[
};

static int load_packed(lua_State *L) {
  const struct packed *it = lua_touserdata(L, lua_upvalueindex(1));
  if (luaL_loadbuffer(L, (const char *)it->bytes, it->size, it->chunk)) return lua_error(L);
  lua_pushstring(L, it->name);
  lua_call(L, 1, 1);
  return 1;
}

void preload_packed(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
    lua_pushlightuserdata(L, (void *)&modules[i]);
    lua_pushcclosure(L, load_packed, 1);
    lua_setfield(L, -2, modules[i].name);
  }
  lua_pop(L, 1);
}]]
