--- Media types by the ending of a file's name: those that are mailed most.
-- May rely on nothing.
local types = {
  bmp = "image/bmp", gif = "image/gif", ico = "image/vnd.microsoft.icon", jpeg = "image/jpeg",
  jpg = "image/jpeg", png = "image/png", svg = "image/svg+xml", tif = "image/tiff",
  tiff = "image/tiff", webp = "image/webp", avif = "image/avif", heic = "image/heic",
  aac = "audio/aac", flac = "audio/flac", m4a = "audio/mp4", mp3 = "audio/mpeg",
  ogg = "audio/ogg", opus = "audio/ogg", wav = "audio/wav",
  avi = "video/x-msvideo", mov = "video/quicktime", mp4 = "video/mp4", mpeg = "video/mpeg",
  webm = "video/webm",
  css = "text/css", csv = "text/csv", htm = "text/html", html = "text/html",
  ics = "text/calendar", log = "text/plain", md = "text/markdown", txt = "text/plain",
  vcf = "text/vcard",
  bz2 = "application/x-bzip2", gz = "application/gzip", json = "application/json",
  pdf = "application/pdf", ps = "application/postscript", rtf = "application/rtf",
  tar = "application/x-tar", xml = "application/xml", xz = "application/x-xz",
  yaml = "application/yaml", zip = "application/zip", zst = "application/zstd",
  doc = "application/msword", xls = "application/vnd.ms-excel",
  ppt = "application/vnd.ms-powerpoint",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  pptx = "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  odt = "application/vnd.oasis.opendocument.text",
  ods = "application/vnd.oasis.opendocument.spreadsheet",
  odp = "application/vnd.oasis.opendocument.presentation",
}

--- The type of a file of that name, or nil.
return function(name)
  local ending = name:match "%.(%w+)$"
  return ending and types[ending:lower()]
end
