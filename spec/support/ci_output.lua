-- busted's plain output, closed by the one line that CI reads: "N passed, N failed".
-- A run that skipped a test, or had none, fails: a test that did not run proves nothing.

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.plainTerminal"(options)
  local subscribe = handler.subscribe

  local function report()
    local passed = handler.successesCount
    local failed = handler.failuresCount + handler.errorsCount
    local skipped = handler.pendingsCount
    local counts = ("%d passed, %d failed"):format(passed, failed)

    io.write "\n"
    if skipped > 0 then
      io.write "A test was skipped; that fails the run.\n"
      counts = counts .. (", %d skipped"):format(skipped)
    end
    if passed + failed + skipped == 0 then
      io.write "No test was run; that fails the run.\n"
    end
    io.write(counts, "\n")
    io.flush()

    if failed == 0 and (skipped > 0 or passed == 0) then
      os.exit(1, true)
    end
    return nil, true -- busted goes on to its own exit status
  end

  function handler:subscribe(settings)
    subscribe(self, settings)
    busted.subscribe({ "exit" }, report, { priority = 1 })
  end

  return handler
end
