// The catalogue. Pictures are drawn here, so that the site asks nobody else for anything.
const leaf = "#2f6b3c", dark = "#1f4c2a", clay = "#c2623d", wood = "#b98b56", steel = "#7d8c8a", glass = "#f3faf6";
const drawing = (shapes) => `<svg viewBox="0 0 120 120" role="img" aria-hidden="true" fill="none" stroke-linecap="round" stroke-linejoin="round">${shapes}</svg>`;

export const CURRENCY = "EUR";
export const PRODUCTS = [
  {
    sku: "WC-10", name: "Watering can, 10 litres", category: "watering", price: 24.95, brand: "Brook",
    text: "Galvanised, with a long spout that reaches the back of the bench and a brass rose fine enough for seedlings.",
    facts: { Volume: "10 litres", Weight: "1.4 kg", Material: "galvanised steel" },
    picture: drawing(`<path d="M34 52h46l6 46H28z" fill="${steel}"/><path d="M80 66l26-22" stroke="${steel}" stroke-width="8"/><path d="M99 36l14 14" stroke="${dark}" stroke-width="6"/><path d="M36 52C30 26 66 18 76 50" stroke="${dark}" stroke-width="5"/><path d="M31 76h52" stroke="${glass}" stroke-width="3"/>`),
  },
  {
    sku: "TS-2", name: "Tomato ‘Noire’ seeds", category: "seeds", price: 3.4, brand: "Old Row",
    text: "A dark, heavy tomato for under glass. Sow in March at 20 °C; the first fruit is ripe in the middle of July.",
    facts: { Seeds: "25", Sow: "February to April", Height: "180 cm" },
    picture: drawing(`<rect x="30" y="16" width="60" height="88" rx="4" fill="${glass}" stroke="${leaf}" stroke-width="3"/><circle cx="60" cy="66" r="21" fill="#8a3324"/><path d="M60 46c-8-6-14 0-14 0m14 0c8-6 14 0 14 0m-14 0v-8" stroke="${leaf}" stroke-width="4"/><path d="M40 26h40" stroke="${clay}" stroke-width="5"/><path d="M46 95h28" stroke="${steel}" stroke-width="3"/>`),
  },
  {
    sku: "CF-90", name: "Cold frame, 90 × 60", category: "frames", price: 89, brand: "Larkhouse",
    text: "Larch and toughened glass. Hardens off what the greenhouse started, and keeps winter salad going until Christmas.",
    facts: { Size: "90 × 60 × 38 cm", Glass: "4 mm toughened", Wood: "untreated larch" },
    picture: drawing(`<path d="M14 96V64l92-18v50z" fill="${wood}"/><path d="M20 66l80-16V38L20 54z" fill="${glass}" stroke="${dark}" stroke-width="3"/><path d="M60 60V46" stroke="${dark}" stroke-width="3"/><path d="M14 80h92" stroke="#9c7343" stroke-width="2"/>`),
  },
  {
    sku: "PT-24", name: "Propagator, 24 cells", category: "seeds", price: 14.5, brand: "Larkhouse",
    text: "A deep tray, a vented lid and 24 cells that push out from below, so that roots stay whole.",
    facts: { Cells: "24", Size: "38 × 24 cm", Material: "recycled polypropylene" },
    picture: drawing(`<path d="M20 62C20 32 100 32 100 62z" fill="${glass}" stroke="${steel}" stroke-width="3"/><path d="M14 62h92l-8 36H22z" fill="${dark}"/><path d="M40 62V50m0 4c-8-2-9-9-9-9m9 9c8-2 9-9 9-9M78 62V50m0 4c-8-2-9-9-9-9m9 9c8-2 9-9 9-9" stroke="${leaf}" stroke-width="3"/><path d="M44 62l-3 36M60 62v36M76 62l3 36" stroke="#47705080" stroke-width="3"/>`),
  },
  {
    sku: "TH-1", name: "Max-min thermometer", category: "tools", price: 12.9, brand: "Brook",
    text: "Remembers the coldest and the warmest moment since you last pressed the button. No battery.",
    facts: { Range: "−40 to 50 °C", Length: "22 cm", Battery: "none" },
    picture: drawing(`<rect x="42" y="12" width="36" height="96" rx="8" fill="${glass}" stroke="${dark}" stroke-width="3"/><path d="M53 26v58m14-58v58" stroke="${steel}" stroke-width="4"/><path d="M53 56v32h14V44" stroke="${clay}" stroke-width="4"/><circle cx="60" cy="94" r="6" fill="${clay}"/>`),
  },
  {
    sku: "PB-1", name: "Potting bench", category: "frames", price: 139, brand: "Larkhouse",
    text: "Waist high, with a zinc top that takes compost, water and an argument about pruning.",
    facts: { Size: "110 × 55 × 92 cm", Top: "zinc", Wood: "larch" },
    picture: drawing(`<path d="M18 52h84v9H18z" fill="${steel}"/><path d="M26 61v44m68-44v44M26 88h68" stroke="${wood}" stroke-width="7"/><path d="M34 34h18l-3 18H37z" fill="${clay}"/><path d="M43 34V22m0 6c-9-2-9-10-9-10m9 10c9-2 9-10 9-10" stroke="${leaf}" stroke-width="4"/><path d="M68 42h22v10H68z" fill="${wood}"/>`),
  },
  {
    sku: "JT-80", name: "Jute twine, 80 m", category: "tools", price: 4.2, brand: "Old Row",
    text: "Soft enough for cucumbers, rots on the heap with them in autumn.",
    facts: { Length: "80 m", Thickness: "3 mm" },
    picture: drawing(`<path d="M32 34h56v54H32z" fill="${wood}"/><path d="M32 44l56 8M32 56l56 8M32 68l56 8M32 80l40 6M46 34l42 8" stroke="#8f6a3c" stroke-width="3"/><path d="M28 32h64M28 90h64" stroke="#e3cfa5" stroke-width="7"/><path d="M88 84c16 0 4 22 20 22" stroke="${wood}" stroke-width="4"/>`),
  },
  {
    sku: "SH-7", name: "Pruning shears", category: "tools", price: 32, brand: "Brook",
    text: "Forged, every part can be replaced, and the blade takes an edge from an ordinary stone.",
    facts: { Length: "21 cm", Cuts: "up to 22 mm" },
    picture: drawing(`<path d="M54 62C44 44 50 18 64 12c4 18 4 34-2 50z" fill="${steel}"/><path d="M60 62c14-12 20-26 18-42" stroke="${dark}" stroke-width="6"/><path d="M56 62c-14 12-20 26-18 44M62 62c14 12 22 24 22 44" stroke="${clay}" stroke-width="9"/><circle cx="59" cy="61" r="5" fill="${dark}"/>`),
  },
];
export const product = (sku) => PRODUCTS.find((one) => one.sku === sku);
export const money = (amount) => new Intl.NumberFormat("en-IE", { style: "currency", currency: CURRENCY }).format(amount);
