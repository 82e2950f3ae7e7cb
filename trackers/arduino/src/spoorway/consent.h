/* Consent: a store around another one that takes, keeps and lets go of nothing from opt_out() to opt_in() of its tracker.

   Where the store is durable, so is the decision: it comes before the records are erased, and a start that finds it erases what a cut left. */
#ifndef SPOORWAY_CONSENT_H
#define SPOORWAY_CONSENT_H

namespace spoorway {

template <class Store> class Consent : public Store {
  bool out; /* before begin(), too: nobody has said yet */

 public:
  Consent() : Store(), out(true) {}
  explicit Consent(const Store &s) : Store(s), out(true) {}

  template <class Mark> uint32_t begin(uint32_t start, const Mark &mark) {
    uint32_t boot = Store::begin(start, mark);
    out = Store::is_out();
    if (out) Store::erase();
    return boot;
  }
  bool closed() const { return out; }
  bool ready() const { return !out && Store::ready(); }

  /* Whether it will be remembered. In any case it holds from now on. */
  bool close_for(bool whom) {
    out = whom;
    bool kept = Store::set_out(whom);
    if (out) Store::erase();
    return kept;
  }
};

}  // namespace spoorway
#endif
