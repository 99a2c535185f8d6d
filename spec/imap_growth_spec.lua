-- Large answers work, and take time in proportion to their size.

local growth = require "spec.support.growth"

describe("the time of an IMAP answer", function()
  for _, case in ipairs(growth.cases) do
    it("grows with the number of " .. case.name, function()
      local seconds = {}
      for index, n in ipairs(case.sizes) do
        local counted
        seconds[index], counted = growth.measure(case, n, index == 3 and 2 or 5)
        assert.is_true(counted >= n * 0.99 and counted <= n, tostring(counted))
      end
      -- Ten times the size is ten times the work; quadratic work would be a hundred times.
      assert.is_true(seconds[3] < 40 * math.max(seconds[2], 0.0005),
        ("%g s, %g s, %g s"):format(table.unpack(seconds)))
    end)
  end
end)
