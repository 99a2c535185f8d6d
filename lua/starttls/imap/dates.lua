--- Dates as IMAP writes them. The months' names must not depend on the locale.
-- May rely on nothing.
local dates = {}

local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
  "Dec" }
local month_numbers = {}
for number, month in ipairs(months) do month_numbers[month:upper()] = number end

--- "1-Feb-1994", or as ISO 8601 has it "1994-02-01".
local function parts_of_text(text)
  local day, month, year = text:match "^(%d%d?)%-(%a%a%a)%-(%d%d%d%d)$"
  if day then return { year, month_numbers[month:upper()] or 0, day } end
  return { text:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)$" }
end

local function parts_of_date(value)
  if type(value) == "string" then return parts_of_text(value) end
  if type(value) == "table" then return value end
  if type(value) ~= "number" or not (value > -1e11 and value < 1e11) then return {} end
  local date = os.date("!*t", math.floor(value))
  return { date.year, date.month, date.day }
end

local function within(value, least, most)
  value = math.tointeger(tonumber(value))
  return value and value >= least and value <= most and value
end

--- RFC 9051 9: date-text = date-day "-" date-month "-" date-year
-- @param value  seconds since the epoch (the day in UTC), { year, month, day }, "1-Feb-1994" or
--               "1994-02-01"
-- @return the text; false or nil when the value is none of these
function dates.day(value)
  local parts = parts_of_date(value)
  local year, month, day = within(parts[1], 1, 9999), within(parts[2], 1, 12),
    within(parts[3], 1, 31)
  return year and month and day and ("%d-%s-%04d"):format(day, months[month], year)
end

--- RFC 9051 9: date-time
-- @param value  seconds since the epoch, or a text that is a date-time already
-- @param what   the call, for errors
-- @return the text. Raises on anything else.
function dates.moment(value, what)
  if math.type(value) == "float" then value = math.floor(value) end
  if math.type(value) == "integer" then
    local parts = os.date("!*t", value)
    if parts.year < 0 or parts.year > 9999 then
      error(what .. ": the date is out of range", 0)
    end
    return ("%02d-%s-%04d %02d:%02d:%02d +0000"):format(parts.day, months[parts.month], parts.year,
      parts.hour, parts.min, parts.sec)
  end
  if type(value) == "string"
    and value:find "^[ %d]%d%-%a%a%a%-%d%d%d%d %d%d:%d%d:%d%d [+-]%d%d%d%d$" then
    return value
  end
  error(what .. ': the date must be seconds since the epoch, or like "17-Jul-1996 02:44:25 -0700"',
    0)
end

return dates
