-- Ten page views in one batch, about 4.7 KB, as a browser posts them.
local ev = {}
for i = 1, 10 do
  ev[i] = '{"e":"pv","url":"https://shop.example/p/'..i..'?utm_source=mail&utm_campaign=spring","page":"Spring catalogue page '..i..'","refr":"https://www.google.com/","eid":"6f1c2b3a-7d40-4c52-9b1e-0c5a7e9f1a'..(10+i)..'","tv":"js-4.6.0","tna":"sp","aid":"shop","p":"web","cookie":"1","cs":"UTF-8","lang":"en-GB","res":"1920x1080","cd":"24","tz":"Europe/London","dtm":"1795300000'..(100+i)..'","stm":"1795300000999","vp":"1280x720","ds":"1280x4210","vid":"3","sid":"8d1b9a2e-4f0c-4e38-8d0d-51a1a9b6f0aa","duid":"0b8f2f0a-93de-4f0b-a4a4-2b1f6d3c9e77"}'
end
wrk.method = "POST"
wrk.path = "/com.snowplowanalytics.snowplow/tp2"
wrk.headers["Content-Type"] = "application/json; charset=UTF-8"
wrk.headers["Origin"] = "https://shop.example"
wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
wrk.body = '{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":['..table.concat(ev, ",")..']}'
