/* The Arduino library's side of a vector run: cases on stdin, the query strings it would send on stdout.

   A tracker with the Query format and a link that, instead of sending, writes the oldest event to stdout. */
#include <Spoorway.h>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

using std::string;

static unsigned long now_ms;
unsigned long millis() { return now_ms; }
unsigned long micros() { return now_ms * 1000; }

struct Printed { /* a link */
  string text;
  static void emit(void *self, uint8_t c) { static_cast<Printed *>(self)->text += (char)c; }
  template <class T> void step(T &tracker) {
    if (!tracker.due()) return;
    spoorway::Out out(emit, this);
    tracker.body(out);
    tracker.acked();
  }
};

static const spoorway::Template TEMPLATES[] PROGMEM = {spoorway::STRUCTURED, spoorway::SELF_DESCRIBING, spoorway::SCREEN_VIEW,
                                                       spoorway::PAGE_VIEW, spoorway::PAGE_PING};
typedef std::map<string, string> Fields;

static string decoded(const string &text) {
  string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '%') {
      out += (char)strtol(text.substr(i + 1, 2).c_str(), 0, 16);
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

static const char *of(const Fields &fields, const string &name) {
  Fields::const_iterator found = fields.find(name);
  return found == fields.end() ? 0 : found->second.c_str();
}

static string answer(const string &line) {
  Fields f;
  for (size_t at = 0; at < line.size();) {
    size_t end = line.find('&', at), equals = line.find('=', at);
    if (end == string::npos) end = line.size();
    f[decoded(line.substr(at, equals - at))] = decoded(line.substr(equals + 1, end - equals - 1));
    at = end + 1;
  }
  static const char *const NAMES[][2] = {{"platform", "p"}, {"app_id", "aid"}, {"namespace", "tna"}, {"user_id", "uid"},
      {"domain_user_id", "duid"}, {"session_id", "sid"}, {"session_index", "vid"}, {"network_user_id", "tnuid"}, {"screen", "res"},
      {"viewport", "vp"}, {"color_depth", "cd"}, {"timezone", "tz"}, {"language", "lang"}, {"ip", "ip"}, {"useragent", "ua"}};
  if (!spoorway::known_platform(of(f, "given.platform"))) return "!platform";
  std::vector<const char *> about;
  for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
    if (const char *value = of(f, string("given.") + NAMES[i][0])) {
      about.push_back(NAMES[i][1]);
      about.push_back(value);
    }
  about.push_back(0);

  typedef spoorway::Consent<spoorway::Queue<16000> > Store; /* that nobody uses: it changes nothing */
  Store queue;
  Printed link;
  spoorway::Tracker<Printed, Store, spoorway::Query, spoorway::Open, spoorway::Wall> tracker(link, queue);
  tracker.tells_clock = false;
  uint64_t tracked = strtoull(of(f, "given.now_ms"), 0, 10), sent = strtoull(of(f, "given.sent_ms"), 0, 10);
  now_ms = 5000;
  tracker.begin("desk", TEMPLATES, sizeof TEMPLATES / sizeof *TEMPLATES, about.data(), 1);
  tracker.set_time(tracked);

  spoorway::TrueTime true_time(of(f, "call.true_ms"));
  spoorway::EventId id(of(f, "given.event_id"));
  string list = f["call.entities"];
  if (list.size() > 1) list = list.substr(1, list.size() - 2); /* the library takes what is within the brackets */
  spoorway::Entities entities(list.c_str());
  string verb = f["call.verb"];
  const char *url = of(f, "call.url"), *title = of(f, "call.title"), *referrer = of(f, "call.referrer");
  int32_t taken;
  if (verb == "structured")
    taken = tracker.track_structured(0, of(f, "call.category"), of(f, "call.action"), of(f, "call.label"), of(f, "call.property"),
                                     of(f, "call.value"), true_time, id, entities);
  else if (verb == "self_describing")
    taken = tracker.track_self_describing(1, of(f, "call.schema"), of(f, "call.data"), true_time, id, entities);
  else if (verb == "screen_view")
    taken = tracker.track_screen_view(2, of(f, "call.name"), of(f, "call.id"), of(f, "call.type"), of(f, "call.previous_name"),
                                      of(f, "call.previous_id"), of(f, "call.previous_type"), of(f, "call.transition_type"), true_time,
                                      id, entities);
  else if (!url || !*url)
    taken = spoorway::MISSING;
  else if (verb == "page_view")
    taken = tracker.track(3, url, title, referrer, true_time, id, entities);
  else
    taken = tracker.track(4, url, title, referrer, of(f, "call.min_x"), of(f, "call.max_x"), of(f, "call.min_y"), of(f, "call.max_y"),
                          true_time, id, entities);
  if (taken < 0) return "!" + std::to_string(taken);
  now_ms += (unsigned long)(sent - tracked);
  tracker.loop();
  return link.text;
}

int main() {
  string line;
  while (std::getline(std::cin, line)) std::cout << answer(line) << "\n";
}
