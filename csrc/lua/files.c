/*
 * lua/files.c - core.files: what it takes to have a file safely on disk, and Lua's library lacks.
 * Floor 4: may rely on all floors below and on Lua 5.4.
 *
 * These calls wait for the disk, as Lua's own file functions do.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "lua/binding.h"

void l_push_files(lua_State *L);

static FILE *check_file(lua_State *L, int index) {
  luaL_Stream *stream = luaL_checkudata(L, index, LUA_FILEHANDLE);
  if (!stream->closef) luaL_argerror(L, index, "the file is closed");
  return stream->f;
}

/* true; or nil, reason, errno as Lua's own file functions do */
static int push_result(lua_State *L, bool done) {
  return luaL_fileresult(L, done, NULL);
}

/* files.lock(file) -> true | false when another process has it | nil, reason; ends with the file */
static int lock(lua_State *L) {
  if (flock(fileno(check_file(L, 1)), LOCK_EX | LOCK_NB) == 0) return push_result(L, true);
  if (errno != EWOULDBLOCK) return push_result(L, false);
  lua_pushboolean(L, 0);
  return 1;
}

/* files.sync(file) -> true | nil, reason: what was written is on disk */
static int sync_file(lua_State *L) {
  FILE *file = check_file(L, 1);
  return push_result(L, fflush(file) == 0 && fsync(fileno(file)) == 0);
}

/* files.sync_directory(path) -> true | nil, reason: so are the names in it */
static int sync_directory(lua_State *L) {
  int fd = open(luaL_checkstring(L, 1), O_RDONLY | O_DIRECTORY | O_CLOEXEC), failure = 0;
  if (fd < 0) return push_result(L, false);
  if (fsync(fd) != 0 && errno != EINVAL) failure = errno; /* EINVAL: it needs none there */
  close(fd);
  errno = failure;
  return push_result(L, failure == 0);
}

/* files.rename(from, to) -> true | nil, reason: never over a file that is there */
static int rename_file(lua_State *L) {
  const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return push_result(L, true);
  if (errno != EINVAL && errno != ENOSYS) return push_result(L, false);
  /* Not every file system can do that at once; whoever shares the directory has to be lucky. */
  if (access(to, F_OK) == 0) {
    errno = EEXIST;
    return push_result(L, false);
  }
  return push_result(L, rename(from, to) == 0);
}

static const luaL_Reg functions[] = {{"lock", lock},
                                     {"sync", sync_file},
                                     {"sync_directory", sync_directory},
                                     {"rename", rename_file},
                                     {NULL, NULL}};

/* [-0, +1] the table of these functions */
void l_push_files(lua_State *L) {
  luaL_newlib(L, functions);
}
