// The shop: what the pages show, the cart, and what of it is tracked.
//
// Tracking is optional: /tracker.js may define window.peer (the tracker's functions) and window.tracking (collector address
// and options). Without it the shop works and tells nobody anything.
import { CURRENCY, PRODUCTS, money, product } from "./products.js";

const page = document.body.dataset.page;
const query = new URLSearchParams(location.search);
const at = (selector) => document.querySelector(selector);

const cart = {
  get lines() { return JSON.parse(localStorage.getItem("cart") ?? "[]"); },
  set lines(lines) { localStorage.setItem("cart", JSON.stringify(lines)); },
  add(sku, quantity) {
    const lines = this.lines, line = lines.find((one) => one.sku === sku);
    if (line) line.quantity += quantity; else lines.push({ sku, quantity });
    this.lines = lines;
  },
  get count() { return this.lines.reduce((sum, line) => sum + line.quantity, 0); },
  get total() { return cents(this.lines.reduce((sum, line) => sum + product(line.sku).price * line.quantity, 0)); },
};
const cents = (amount) => Math.round(amount * 100) / 100;
const SHIPPING = 4.95;

// ---- tracking -------------------------------------------------------------------------------------------------------

const peer = window.peer, tracking = window.tracking;
const track = (method, ...args) => peer?.[method]?.(...args);
const asProduct = ({ sku, name, category, price, brand }, more = {}) => ({ id: sku, name, category, price, brand, currency: CURRENCY, ...more });
const asCart = () => ({
  total_value: cart.total, currency: CURRENCY,
  products: cart.lines.map(({ sku, quantity }) => asProduct(product(sku), { quantity })),
});

function startTracking() {
  if (!peer || !tracking) return;
  peer.newTracker("shop", tracking.collector, {
    appId: "glass-and-loam", contexts: { webPage: true, session: true }, plugins: peer.plugins(), ...tracking.options,
  });
  peer.enableActivityTracking({ minimumVisitLength: 10, heartbeatDelay: 10 });
  peer.enableLinkClickTracking();
  // What people type is nobody's business but theirs: only which field, not what.
  peer.enableFormTracking({ options: { fields: { transform: (value, field) => (field.type === "search" ? value : value && "hidden") } } });
  const customer = localStorage.getItem("customer");
  if (customer) peer.setUserId(customer);
  peer.setPageType({ type: page, language: document.documentElement.lang });
  peer.trackPageView();
}

// ---- pages ----------------------------------------------------------------------------------------------------------

const card = (one, from) => `<li class="card"><a class="product" href="product.html?sku=${one.sku}" data-sku="${one.sku}" data-list="${from}">
  <span class="picture">${one.picture}</span>
  <span class="text"><span class="small">${one.category}</span><h3>${one.name}</h3><span class="price">${money(one.price)}</span></span></a></li>`;

function list(selector, products, name) {
  at(selector).innerHTML = products.map((one) => card(one, name)).join("");
  if (products.length) {
    track("trackProductListView", { name, products: products.map((one, i) => asProduct(one, { position: i + 1 })) });
  }
  at(selector).addEventListener("click", (event) => {
    const link = event.target.closest("a[data-sku]");
    if (link) track("trackProductListClick", { name, product: asProduct(product(link.dataset.sku)) });
  });
}

const pages = {
  home() {
    list("#favourites", ["WC-10", "TS-2", "PT-24", "TH-1"].map(product), "favourites");
  },

  products() {
    const category = query.get("category");
    document.querySelectorAll(".tags a").forEach((tag) => {
      if ((new URL(tag.href).searchParams.get("category") ?? null) === category) tag.setAttribute("aria-current", "true");
    });
    list("#products", PRODUCTS.filter((one) => !category || one.category === category), category ?? "all");
  },

  product() {
    const one = product(query.get("sku")) ?? PRODUCTS[0];
    document.title = `${one.name} · Glass & Loam`;
    at("#picture").innerHTML = one.picture;
    at("#name").textContent = one.name;
    at("#brand").textContent = `${one.brand} · ${one.category}`;
    at("#text").textContent = one.text;
    at("#price").textContent = money(one.price);
    at("#facts").innerHTML = Object.entries(one.facts).map(([name, fact]) => `<dt>${name}</dt><dd>${fact}</dd>`).join("");
    const near = (other) => (other.category === one.category ? 0 : 1);
    list("#others", PRODUCTS.filter((other) => other !== one).sort((a, b) => near(a) - near(b)).slice(0, 4), "related");
    track("trackProductView", asProduct(one));
    at("#buy").addEventListener("submit", (event) => {
      event.preventDefault();
      const quantity = Number(at("#quantity").value);
      cart.add(one.sku, quantity);
      showCount();
      at("#added").hidden = false;
      track("trackAddToCart", { ...asCart(), products: [asProduct(one, { quantity })] });
    });
  },

  search() {
    const words = (query.get("q") ?? "").trim().toLowerCase().split(/\s+/).filter(Boolean);
    at("#q").value = words.join(" ");
    if (!words.length) return;
    const text = (one) => `${one.name} ${one.category} ${one.brand} ${one.text}`.toLowerCase();
    const found = PRODUCTS.filter((one) => words.every((word) => text(one).includes(word)));
    at("#result").textContent = found.length ? `${found.length} found for “${words.join(" ")}”` : `Nothing found for “${words.join(" ")}”`;
    track("trackSiteSearch", { terms: words, totalResults: found.length, pageResults: found.length });
    list("#found", found, "search");
  },

  "sign-up"() {
    at("#sign-up").addEventListener("submit", (event) => {
      event.preventDefault();
      at("#sign-up").hidden = true;
      at("#welcome").hidden = false;
      const plot = at("#plot").value;
      track("trackStructEvent", { category: "newsletter", action: "sign-up", label: plot });
    });
  },

  checkout() {
    showLines();
    if (cart.count) track("trackCheckoutStep", { step: 1, account_type: "guest" });
    at("#delivery").addEventListener("change", (event) => {
      track("trackCheckoutStep", { step: 2, delivery_method: event.target.value });
    });
    at("#order").addEventListener("submit", (event) => {
      event.preventDefault();
      const order = `GL-${Date.now().toString(36).toUpperCase()}`;
      sessionStorage.setItem("order", JSON.stringify({ order, payment: at("#payment").value, delivery: at("#delivery").value }));
      if (!localStorage.getItem("customer")) localStorage.setItem("customer", `c-${crypto.randomUUID().slice(0, 8)}`);
      location.href = "thanks.html";
    });
  },

  thanks() {
    const placed = JSON.parse(sessionStorage.getItem("order") ?? "null");
    if (!placed || !cart.count) return;
    at("#order-number").textContent = placed.order;
    const { total_value, products } = asCart();
    track("trackTransaction", {
      transaction_id: placed.order, revenue: cents(total_value + SHIPPING), currency: CURRENCY, payment_method: placed.payment,
      shipping: SHIPPING, tax: cents((total_value + SHIPPING) * 21 / 121), products,
    });
    cart.lines = [];
    sessionStorage.removeItem("order");
  },
};

function showLines() {
  at("#lines").innerHTML = cart.lines.map(({ sku, quantity }) => {
    const one = product(sku);
    return `<tr><td>${quantity} × ${one.name}</td><td>${money(one.price * quantity)}</td></tr>`;
  }).join("") || '<tr><td>Nothing yet</td><td></td></tr>';
  at("#shipping").textContent = money(cart.count ? SHIPPING : 0);
  at("#total").textContent = money(cart.count ? cents(cart.total + SHIPPING) : 0);
  at("#order button").disabled = !cart.count;
}

function showCount() {
  const count = at("#count");
  count.textContent = cart.count;
  count.toggleAttribute("data-empty", !cart.count);
}

startTracking();
pages[page]?.();
showCount();
document.documentElement.dataset.ready = "true";
