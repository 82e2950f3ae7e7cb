-- One page view as a browser's pixel request.
wrk.path = "/i?e=pv&url=https%3A%2F%2Fshop.example%2Fp%2F1%3Futm_source%3Dmail&page=Spring%20catalogue&refr=https%3A%2F%2Fwww.google.com%2F&eid=6f1c2b3a-7d40-4c52-9b1e-0c5a7e9f1a11&tv=js-4.6.0&tna=sp&aid=shop&p=web&cookie=1&cs=UTF-8&lang=en-GB&res=1920x1080&cd=24&tz=Europe%2FLondon&dtm=1795300000101&stm=1795300000999"
wrk.headers["Referer"] = "https://shop.example/p/1"
wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
