--- Requests that follow from each other, as one: see `follow` in starttls.imap.class.
-- May rely on nothing.
local chain = {}

--- Goes on behind a request, or behind the last of those that follow from it.
-- @param request  the first one
-- @param go_on    function(result) -> the request that goes on from the result (one with the
--                 field `result` ends here), or nil and an error
-- @return a request, or nil and an error
function chain.behind(request, go_on)
  if request.result ~= nil then return go_on(request.result) end
  local follow, finish = request.follow, request.finish
  request.finish = nil
  function request.follow(reply, values)
    if not follow then return go_on(finish(reply, values)) end
    local following, err = follow(reply, values)
    if not following then return nil, err end
    return chain.behind(following, go_on)
  end
  return request
end

--- Says in errors what of a call was done before a request, or one that follows from it, failed:
-- see `done` in starttls.imap.class.
-- @param tell  function(fields): adds to the error's fields
-- @return the request
function chain.telling(request, tell)
  local inner, follow = request.done, request.follow
  function request.done(fields)
    if inner then inner(fields) end
    tell(fields)
  end
  if not follow then return request end
  function request.follow(reply, values)
    local following, err = follow(reply, values)
    if not following then return nil, err end
    return chain.telling(following, tell)
  end
  return request
end

return chain
